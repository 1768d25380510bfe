"""A random past on a store, and beside it as plain lists: what history, log, diff, blame must say.

Several store objects on one target write, delete, merge, increment, revert and let entries expire;
what each call returned is kept. Everything that is asked of the log is then worked out from those
lists, by other means than agentmem's: blame goes forward from the oldest version, where agentmem
goes back from the newest. A longer run than the tests make::

    python -m tests.property.history_model --steps 5000 --seed 3 [--target URL]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import agentmem
from agentmem import ConflictError, Store
from agentmem.values import canonical

__all__ = ["Past"]

Labels = tuple[str, ...]
Place = tuple[Labels, str]
Path_ = tuple[str | int, ...]

NAMESPACES: Final[tuple[Labels, ...]] = ((), ("team",), ("team", "al/ice"), ("m",), ("é\x01%",))
KEYS: Final = ("k", "k.1", "ключ\u202e")
AGENTS: Final = (None, "ann", "bob", "O'Hara\n")
NAMES: Final = ("a", "b", "a.b", "é", "0")
SCALARS: Final = (0, 1, 1.0, True, None, "", "x", "\U0001f9e0")
BEGAN: Final = datetime(2026, 1, 31, tzinfo=UTC)


class Clock:
    """Time that the past moves on."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Version:
    """One version of a key, as its writer was told."""

    place: Place
    version: int
    revision: int
    at: datetime
    value: Any
    deleted: bool
    expires_at: datetime | None
    agent: str | None

    def visible(self, at: datetime) -> bool:
        return not self.deleted and (self.expires_at is None or self.expires_at > at)


@dataclass
class Past:
    """A store with a past, and the lists that tell of it.

    Attributes:
        stores: several objects on one target, with `clock` as their time.
    """

    stores: list[Store]
    clock: Clock
    rng: random.Random
    versions: dict[Place, list[Version]] = field(default_factory=dict)
    commits: list[tuple[datetime, str | None, str | None, dict[str, Any]]] = field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        self.stores[0].set_merge("m/**", "json")

    # Growing.

    def grow(self, steps: int) -> None:
        """Makes a random step so many times."""
        ways = [self.put, self.put, self.put, self.operate, self.operate, self.delete, self.merge]
        ways += [self.several, self.touch, self.revert, self.revert_commit, self.put]
        for _step in range(steps):
            self.clock.now += timedelta(seconds=self.rng.choice((0, 0, 1, 5)))
            self.rng.choice(ways)()

    def place(self) -> Place:
        return self.rng.choice(NAMESPACES), self.rng.choice(KEYS)

    def value(self, depth: int = 0) -> Any:
        kind = self.rng.random()
        if kind < 0.45 and depth < 3:
            names = self.rng.sample(NAMES, self.rng.randrange(4))
            return {name: self.value(depth + 1) for name in names}
        if kind < 0.6 and depth < 3:
            return [self.value(depth + 1) for _item in range(self.rng.randrange(4))]
        return self.rng.choice(SCALARS)

    def changed(self, value: Any) -> Any:
        """A value that differs in a part, mostly."""
        if isinstance(value, dict) and self.rng.random() < 0.9:
            name = self.rng.choice(NAMES)
            return value | {name: self.changed(value.get(name))}
        if isinstance(value, list) and value and self.rng.random() < 0.9:
            index = self.rng.randrange(len(value))
            return [*value[:index], self.changed(value[index]), *value[index + 1 :]]
        return self.value(1)

    def who(self) -> dict[str, Any]:
        """The fields of a commit."""
        number = len(self.commits)
        return {
            "agent": self.rng.choice(AGENTS),
            "op_id": f"op{number}" if self.rng.random() < 0.3 else None,
            "note": f"note {number}" if self.rng.random() < 0.3 else None,
            "metadata": {"n": number % 7} if self.rng.random() < 0.5 else None,
        }

    def put(self) -> None:
        labels, key = self.place()
        store, who = self.rng.choice(self.stores), self.who()
        there = store.get(key, namespace=labels)
        value = self.changed(there.value) if there is not None else self.value()
        ttl_s = self.rng.choice((None, None, None, 3, 20))
        store.put(key, value, namespace=labels, overwrite=True, ttl_s=ttl_s, **who)
        self.learn(who)

    def operate(self) -> None:
        """An atomic operation that fits what is there."""
        labels, key = self.place()
        store, who = self.rng.choice(self.stores), self.who()
        there = store.get(key, namespace=labels)
        value = there.value if there is not None else self.rng.choice((0, [], {}))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            store.increment(key, self.rng.choice((0, 1, 0.5)), namespace=labels, **who)
        elif isinstance(value, list):
            call = self.rng.choice((store.append, store.add_to_set))
            call(key, self.value(2), namespace=labels, **who)
        elif isinstance(value, dict):
            patch: dict[str, Any] = {
                self.rng.choice(NAMES): self.rng.choice((None, 1, {"a": None, "b": []}))
            }
            store.patch(key, patch, namespace=labels, **who)
        else:
            return
        self.learn(who)

    def delete(self) -> None:
        labels, key = self.place()
        who = self.who()
        self.rng.choice(self.stores).delete(key, namespace=labels, overwrite=True, **who)
        self.learn(who)

    def merge(self) -> None:
        """Two writers start from the same version; the second is merged, or is refused."""
        labels, key = ("m",), self.rng.choice(KEYS)
        first, second = self.rng.choice(self.stores), self.rng.choice(self.stores)
        there = first.get(key, namespace=labels)
        if there is None:
            return
        for store in (first, second):
            who = self.who()
            value = self.changed(there.value)
            try:
                store.put(key, value, namespace=labels, expected_version=there.version, **who)
            except ConflictError:
                return
            self.learn(who)

    def several(self) -> None:
        """One commit of several keys."""
        who = self.who()
        with self.rng.choice(self.stores).transaction(**who) as tx:
            for _key in range(self.rng.randrange(1, 5)):
                labels, key = self.place()
                if self.rng.random() < 0.2:
                    tx.delete(key, namespace=labels)
                else:
                    tx.put(key, self.value(), namespace=labels)
        self.learn(who)

    def touch(self) -> None:
        labels, key = self.place()
        there = self.stores[0].get(key, namespace=labels)
        if there is not None:
            ttl_s = self.rng.choice((None, 2, 30))
            touched = self.stores[0].touch(key, ttl_s, namespace=labels)
            assert touched is not None
            self.versions[labels, key][-1].expires_at = touched.expires_at

    def revert(self) -> None:
        labels, key = self.place()
        versions = self.versions.get((labels, key), [])
        who = self.who()
        version = self.rng.randrange(len(versions) + 1)
        self.rng.choice(self.stores).audit.revert(key, version, namespace=labels, **who)
        who["note"] = who["note"] or f"revert to version {version}"
        self.learn(who)

    def revert_commit(self) -> None:
        if not self.commits:
            return
        who = self.who()
        revision = self.rng.randrange(1, len(self.commits) + 1)
        try:
            self.rng.choice(self.stores).audit.revert_commit(revision, **who)
        except (ConflictError, agentmem.InvalidValueError):
            return
        who["note"] = who["note"] or f"revert of revision {revision}"
        who["metadata"] = (who["metadata"] or {}) | {"reverts": revision}
        self.learn(who)

    def learn(self, who: dict[str, Any]) -> None:
        """Keeps what the last commit wrote: by reads of the present, not of the log."""
        store = self.stores[0]
        if store.revision == len(self.commits):
            return
        self.commits.append((self.clock.now, who["agent"], who["op_id"], who))
        assert store.revision == len(self.commits)
        for place in ((labels, key) for labels in NAMESPACES for key in KEYS):
            row = store._core.engine.point(store._scope.place(*place), None).row
            known = self.versions.setdefault(place, [])
            if row is not None and row.version > len(known):
                assert row.version == len(known) + 1
                value = None if row.value is None else agentmem.values.load(row.value)
                expires_at = (
                    None if row.expires_at is None else agentmem.model.to_datetime(row.expires_at)
                )
                known.append(
                    Version(
                        place, row.version, len(self.commits), self.clock.now, value,
                        row.value is None, expires_at, who["agent"],
                    )
                )  # fmt: skip

    # Working it out from the lists.

    def moment(self, revision: int) -> datetime:
        """The instant of a revision."""
        return self.commits[revision - 1][0] if revision else BEGAN - timedelta(days=1)

    def state(self, revision: int, at: datetime) -> dict[Place, Version]:
        """What a view sees."""
        found = {}
        for place, versions in self.versions.items():
            until = [each for each in versions if each.revision <= revision]
            if until and until[-1].visible(at):
                found[place] = until[-1]
        return found

    def blame(self, place: Place, revision: int) -> list[tuple[str, int]]:
        """(path, version) of each leaf, forward from the first version."""
        setters: dict[Path_, int] = {}
        before: dict[Path_, bytes] = {}
        previous: Version | None = None
        for version in self.versions[place]:
            if version.revision > revision:
                break
            now = {} if version.deleted else dict(leaves(version.value, ()))
            fresh = previous is None or not previous.visible(version.at)
            setters = {
                path: version.version if fresh or before.get(path) != text else setters[path]
                for path, text in now.items()
            }
            before, previous = now, version
        return [(spelt(path), version) for path, version in setters.items()]

    # Holding the store against it.

    def check(self, questions: int) -> None:
        """Asks random questions, and all histories."""
        for place, versions in self.versions.items():
            self.check_history(place, versions)
        for _question in range(questions):
            last = len(self.commits)
            first, second = self.rng.randint(0, last), self.rng.randint(0, last)
            self.check_diff(first, second)
            self.check_blame(self.rng.randint(0, last))
            self.check_log()

    def check_history(self, place: Place, versions: list[Version]) -> None:
        found = self.rng.choice(self.stores).history(place[1], namespace=place[0])
        assert [
            (each.version, each.revision, each.value, each.deleted, each.agent, each.committed_at)
            for each in found
        ] == [
            (each.version, each.revision, each.value, each.deleted, each.agent, each.at)
            for each in reversed(versions)
        ]

    def check_diff(self, first: int, second: int) -> None:
        store = self.rng.choice(self.stores)
        namespace = self.rng.choice((None, None, ("team",)))
        one, two = (self.state(each, self.moment(each)) for each in (first, second))
        wanted = []
        for place in sorted({*one, *two}, key=in_order):
            if namespace is not None and place[0][:1] != namespace:
                continue
            sides = [one.get(place), two.get(place)]
            texts = [None if each is None else canonical(each.value) for each in sides]
            if texts[0] != texts[1]:
                wanted.append((place, [each.version if each else 0 for each in sides]))
        found = list(store.audit.diff_revisions(first, second, namespace=namespace))
        assert [
            (
                (each.namespace, each.key),
                [entry.version if entry else 0 for entry in (each.before, each.after)],
            )
            for each in found
        ] == wanted
        for each in found:
            assert each.differences
            assert rebuilt(each) == (each.after.value if each.after is not None else ...)
        if found:
            middle = found[len(found) // 2]
            rest = store.audit.diff_revisions(
                first, second, namespace=namespace, after=(middle.namespace, middle.key)
            )
            assert list(rest) == found[len(found) // 2 + 1 :]

    def check_blame(self, revision: int) -> None:
        store = self.rng.choice(self.stores)
        state = self.state(revision, self.moment(revision))
        for place in (self.place(), (("m",), KEYS[0])):
            if place not in state:
                try:
                    store.audit.blame(place[1], namespace=place[0], at=revision)
                except agentmem.KeyMissingError:
                    continue
                raise AssertionError(f"{place} is absent at {revision}")
            found = store.audit.blame(place[1], namespace=place[0], at=revision)
            wanted = self.blame(place, revision)
            assert [(each.path, each.version) for each in found] == wanted, (place, revision)
            for each in found:
                version = self.versions[place][each.version - 1]
                _at, agent, op_id, who = self.commits[version.revision - 1]
                assert (each.revision, each.committed_at) == (version.revision, version.at)
                assert (each.agent, each.op_id, each.note) == (agent, op_id, who["note"])
                assert not each.or_earlier

    def check_log(self) -> None:
        agent = self.rng.choice(AGENTS)
        namespace = self.rng.choice((None, ("team",), NAMESPACES[2], NAMESPACES[4]))
        metadata = self.rng.choice((None, {"n": 3}))
        wanted = [
            number
            for number, (_at, who, _op_id, fields) in enumerate(self.commits, 1)
            if agent in (None, who)
            and (metadata is None or canonical((fields["metadata"] or {}).get("n")) == b"3")
            and (namespace is None or number in self.written_below(namespace))
        ]
        store = self.rng.choice(self.stores)
        found = store.log(namespace, agent=agent, metadata=metadata, oldest_first=True)
        assert [each.revision for each in found] == wanted
        for each in found:
            assert each.revision is not None
            at, who, op_id, fields = self.commits[each.revision - 1]
            assert (each.committed_at, each.agent, each.op_id) == (at, who, op_id)
            assert (each.note, dict(each.metadata)) == (fields["note"], fields["metadata"] or {})

    def written_below(self, namespace: Labels) -> set[int]:
        return {
            version.revision
            for (labels, _key), versions in self.versions.items()
            if labels[: len(namespace)] == namespace
            for version in versions
        }


def in_order(place: Place) -> tuple[Any, ...]:
    """The order of the store."""
    return tuple(label.replace("\x01", "\x02\x02") for label in place[0]), place[1]


def leaves(value: Any, path: Path_) -> Iterator[tuple[Path_, bytes]]:
    """Scalars and empty containers with their paths."""
    if isinstance(value, dict) and value:
        for name in sorted(value):
            yield from leaves(value[name], (*path, name))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, canonical(value)


def spelt(path: Path_) -> str:
    """A path as agentmem writes it."""
    steps = (f"[{json.dumps(step, ensure_ascii=False)}]" for step in path)
    return "$" + "".join(
        f".{name}" if name in ("a", "b", "é", "0") else step
        for name, step in zip(path, steps, strict=True)
    )


def rebuilt(difference: Any) -> Any:
    """The value after, from the leaves before and what is said to differ; ... if it is absent."""
    if difference.after is None:
        assert [(each.path, each.kind) for each in difference.differences] == [("$", "removed")]
        return ...
    before = {} if difference.before is None else flat(difference.before.value, "$")
    for each in difference.differences:
        gone = [path for path in before if path == each.path or below(path, each.path)]
        assert (each.kind == "added") == (not gone)
        for path in gone:
            del before[path]
        if each.kind != "removed":
            before |= flat(each.after, each.path)
    wanted = flat(difference.after.value, "$")
    # An object or list that has become empty, or was, is told of by its parts alone.
    empty = (b"{}", b"[]")
    shown = {path: text for path, text in before.items() if text not in empty}
    assert shown == {path: text for path, text in wanted.items() if text not in empty}
    return difference.after.value


def below(path: str, start: str) -> bool:
    """Whether a path lies below another."""
    return path.startswith((start + ".", start + "["))


def flat(value: Any, start: str) -> dict[str, bytes]:
    """Leaves by their paths as text."""
    return {start + spelt(path)[1:]: text for path, text in leaves(value, ())}


def main() -> None:
    """Grows a past and holds it against the lists; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", help="a URL of PostgreSQL; else a file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = given.target or str(Path(folder) / "past.db")
        clock = Clock()
        stores = [
            agentmem.open(target, clock=clock, embedder=None, durability="relaxed")
            for _handle in range(2)
        ]
        past = Past(stores, clock, random.Random(given.seed))
        for done in range(0, given.steps, 500):
            past.grow(min(500, given.steps - done))
            past.check(50)
            print(f"{len(past.commits)} commits agree")
        assert stores[0].admin.verify().ok
        for store in stores:
            store.close()


if __name__ == "__main__":
    main()
