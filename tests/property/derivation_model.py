"""What is derived from what, on plain dicts: random histories, and a model that follows them.

The model keeps, of each commit, which versions it has read, and of each version what it was
written over. It finds what a version has spoilt by asking each later one in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hypothesis import strategies as st

from agentmem import ConflictError, Store, Transaction, merge

KEYS = ("a", "ab", "b", "c")
MERGED = "m"  # has a merge strategy
EVERY = (*KEYS, MERGED)

Name = tuple[str, int]
"""(key, version)."""


@dataclass
class Version:
    """One version: the commit that wrote it, what was done, and what it holds of others."""

    revision: int
    kind: str
    value: int | None
    over: set[Name]


@dataclass
class Open:
    """A transaction that is under way."""

    tx: Transaction
    base: int
    read: set[Name] = field(default_factory=set)
    checked: set[Name] = field(default_factory=set)
    writes: dict[str, tuple[str, int | None]] = field(default_factory=dict)


class Model:
    """The history so far."""

    def __init__(self) -> None:
        self.versions: dict[Name, Version] = {}
        self.read: dict[int, set[Name]] = {}
        self.checked: dict[int, tuple[int, set[Name]]] = {}  # (base, what must not have changed)

    def newest(self, key: str, revision: int | None = None) -> Name | None:
        """The newest version of a key, at or below a revision."""
        found = [
            name
            for name, version in self.versions.items()
            if name[0] == key and (revision is None or version.revision <= revision)
        ]
        return max(found, key=lambda name: name[1], default=None)

    def visible(self, revision: int | None = None) -> dict[str, Name]:
        """The versions that a view sees."""
        names = ((key, self.newest(key, revision)) for key in EVERY)
        return {key: name for key, name in names if name and self.versions[name].value is not None}

    def add(self, revision: int, key: str, kind: str, value: int | None, over: set[Name]) -> None:
        """Notes a version that was committed."""
        before = self.newest(key)
        name = (key, before[1] + 1 if before else 1)
        self.versions[name] = Version(revision, kind, value, over)

    def spoilt(self, root: Name) -> tuple[set[Name], set[Name]]:
        """What a version has spoilt: the derived ones, and those that only carry it."""

        @cache
        def derived(name: Name) -> bool:
            read = self.read.get(self.versions[name].revision, set())
            return name == root or any(is_spoilt(each) for each in read)

        @cache
        def is_spoilt(name: Name) -> bool:
            return derived(name) or any(is_spoilt(each) for each in self.versions[name].over)

        ones = {name for name in self.versions if derived(name)}
        return ones, {name for name in self.versions if is_spoilt(name)} - ones

    def skewed(self) -> set[tuple[int, int]]:
        """Pairs of commits that each have read what the other replaced."""

        def missed(reader: int, writer: int) -> bool:
            _base, read = self.checked[reader]
            mine = {key for key, _version in read}
            return any(
                name[0] in mine and version.revision == writer
                for name, version in self.versions.items()
            )

        return {
            (first, second)
            for second, (base, _read) in self.checked.items()
            for first in self.checked
            if base < first < second and missed(second, first) and missed(first, second)
        }

    def sources(self, name: Name) -> set[Name]:
        """A version and all that it was derived from."""
        found: set[Name] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self.read.get(self.versions[one].revision, set())
                waiting += self.versions[one].over
        return found

    def without(self, gone: set[Name]) -> dict[str, int]:
        """The values that there would be if some versions had never been written."""
        values: dict[str, int] = {}
        for (key, number), version in sorted(
            self.versions.items(), key=lambda item: (item[1].revision, item[0])
        ):
            if (key, number) in gone:
                continue
            if version.kind == "increment":
                values[key] = values.get(key, 0) + (version.value or 0)
            elif version.value is None:
                values.pop(key, None)
            else:
                values[key] = version.value
        return values


class History:
    """Plays random steps on a store, and tells the model what came of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.model = Model()
        self.open: dict[int, Open] = {}
        store.set_merge(MERGED, merge.counter)

    def play(self, step: tuple[Any, ...]) -> None:
        """One step: see `steps`."""
        name, *arguments = step
        getattr(self, name)(*arguments)

    # Single calls.

    def put(self, key: str, value: int, knowing: bool) -> None:  # drawn
        """Blindly, or naming the version that is there."""
        there = self.model.visible().get(key)
        if knowing:
            self.store.put(key, value, expected_version=there[1] if there else 0)
        else:
            self.store.put(key, value, overwrite=True)
        read = {there} if knowing and there else set()
        self._committed({key: ("put", value)}, read)

    def update(self, key: str, value: int) -> None:
        """Reads and writes one key."""
        there = self.model.visible().get(key)
        self.store.update(key, lambda _value: value, default=0)
        self._committed({key: ("put", value)}, {there} if there else set())

    def increment(self, key: str, by: int) -> None:
        """Reads nothing."""
        self.store.increment(key, by)
        self._committed({key: ("increment", by)}, set())

    # Transactions, that may overlap.

    def begin(self, slot: int, isolation: str) -> None:
        """A new one takes the slot."""
        tx = self.store.transaction(isolation=isolation)  # type: ignore[arg-type]  # drawn
        self.open[slot] = Open(tx, self.store.revision)

    def read(self, slot: int, key: str, track: bool) -> None:  # drawn
        """One key; absent because of a delete is read, too."""
        one = self.open.get(slot)
        if one is None or (key in one.writes and one.writes[key][0] != "increment"):
            return
        one.tx.get(key, track=track)
        seen = self.model.newest(key, one.base)
        if seen and (track or self.model.versions[seen].value is not None):
            one.read.add(seen)
            if track and self.model.versions[seen].value is not None:
                one.checked.add(seen)

    def scan(self, slot: int, prefix: str, limit: int | None) -> None:
        """Several keys, in order."""
        one = self.open.get(slot)
        if one is None or one.writes:
            return  # own writes among what is found are the transaction's own affair
        one.tx.list(key_prefix=prefix, limit=limit)
        seen = sorted(
            (key, name)
            for key, name in self.model.visible(one.base).items()
            if key.startswith(prefix)
        )
        one.read |= {name for _key, name in seen[:limit]}
        one.checked |= {name for _key, name in seen[:limit]}

    def write(self, slot: int, key: str, kind: str, value: int) -> None:
        """Each key once."""
        one = self.open.get(slot)
        if one is None or key in one.writes:
            return
        if kind == "put":
            one.tx.put(key, value)
        elif kind == "increment":
            one.tx.increment(key, value)
        else:
            one.tx.delete(key)
        one.writes[key] = (kind, None if kind == "delete" else value)

    def commit(self, slot: int) -> None:
        """If it does not conflict."""
        one = self.open.pop(slot, None)
        if one is None:
            return
        bases = self.model.visible(one.base)
        now = self.model.visible()
        try:
            commit = one.tx.commit()
        except ConflictError:
            one.tx.rollback()
            return
        if commit.revision is None:
            return
        merged = {key for _namespace, key in commit.merged}
        over = {
            key: {name for name in (bases.get(key), self.model.newest(key)) if name}
            for key in merged
        }
        writes = {
            key: done for key, done in one.writes.items() if done[0] != "delete" or key in now
        }
        self._committed(writes, one.read, over)
        if not merged:
            self.model.checked[commit.revision] = (one.base, one.checked)

    def _committed(
        self,
        writes: dict[str, tuple[str, int | None]],
        read: set[Name],
        over: dict[str, set[Name]] | None = None,
    ) -> None:
        revision = self.store.revision
        self.model.read[revision] = read
        for key, (kind, value) in writes.items():
            held = (over or {}).get(key, set())
            before = self.model.newest(key)
            if kind == "increment" and before:
                held = {before}
            self.model.add(revision, key, kind, value, held)


_SLOT = st.integers(0, 2)
_KEY = st.sampled_from(EVERY)
_VALUE = st.integers(1, 99)
_ISOLATION = st.sampled_from(("serializable", "snapshot"))
_STEP = st.one_of(
    st.tuples(st.just("put"), _KEY, _VALUE, st.booleans()),
    st.tuples(st.just("update"), _KEY, _VALUE),
    st.tuples(st.just("increment"), _KEY, _VALUE),
    st.tuples(st.just("begin"), _SLOT, _ISOLATION),
    st.tuples(st.just("read"), _SLOT, _KEY, st.booleans()),
    st.tuples(st.just("scan"), _SLOT, st.sampled_from(("", "a")), st.sampled_from((None, 1, 2))),
    st.tuples(
        st.just("write"), _SLOT, _KEY, st.sampled_from(("put", "increment", "delete")), _VALUE
    ),
    st.tuples(st.just("commit"), _SLOT),
)
"""One step: the name of a method of `History`, and its arguments."""


@st.composite
def _transactions(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """A whole transaction: what single steps would seldom come to."""
    slot = draw(_SLOT)
    steps: list[tuple[Any, ...]] = [("begin", slot, draw(_ISOLATION))]
    read = draw(st.lists(_KEY, max_size=2, unique=True))
    steps += [("read", slot, key, draw(st.booleans())) for key in read]
    if draw(st.booleans()):
        steps.append(
            ("scan", slot, draw(st.sampled_from(("", "a"))), draw(st.sampled_from((None, 2))))
        )
    for key in draw(st.lists(_KEY, min_size=1, max_size=2, unique=True)):
        kind = draw(st.sampled_from(("put", "increment", "delete")))
        steps.append(("write", slot, key, kind, draw(_VALUE)))
    if draw(st.integers(0, 3)):
        steps.append(("commit", slot))
    return steps


steps = st.lists(
    st.one_of(_STEP.map(lambda step: [step]), _transactions()), min_size=4, max_size=24
).map(lambda parts: [step for part in parts for step in part])
"""A history."""
