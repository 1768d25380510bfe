"""``store.log``: every filter against a plain list of what was committed, pages, scoped views."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from agentmem import AccessDeniedError, Commit, InvalidValueError, LimitExceededError, Store
from agentmem.filters import Filter
from agentmem.history.narrowing import metadata_needs
from agentmem.marks import Marker, block_of, names_of
from agentmem.namespaces import Pattern, decode
from tests.contract.conftest import ManualClock, StoreMaker

COMMITS: Final = 420  # four blocks of marks
QUERIES: Final = 100
AGENTS: Final = (None, "ann", "an", "bob", "Ünï\u202e%", "x" * 300)
NAMESPACES: Final = (
    (),
    ("team",),
    ("team", "alice"),
    ("team", "al"),
    ("team\x01",),
    ("te%m", "'\""),
    ("é" * 250,),
    ("é" * 250, "deep"),
)
METADATA: Final = (
    None,
    {"run": "a"},
    {"run": "b", "n": 1},
    {"n": 1.0},
    {"n": True, "run": "a\n\u2028é"},
    {"n": {"a": [1]}},
    {"=": "=", "long": "y" * 300},
    {f"f{number:02}": number for number in range(40)},
)
WHERES: Final = (
    None,
    {"run": "a"},
    {"n": 1},
    {"n": {"$gte": 1}},
    {"n": {"$exists": False}},
    {"n.a": [1]},
    {"n": {"$in": [True, 7]}},
    {"run": {"$ne": "a"}},
    {"f39": 39},
    {"$or": [{"run": "b"}, {"f00": 0}]},
    {"$and": [{"run": "b"}, {"n": {"$lt": 2}}]},
)
RULES: Final = {"team/alice/**": "read", "te%m/*/k*": "write"}


@dataclass
class Done:
    """One commit, as the test made it."""

    revision: int
    committed_at: datetime
    agent: str | None
    op_id: str | None
    scope: str
    metadata: dict[str, Any]
    places: set[tuple[tuple[str, ...], str]]


def window(choices: tuple[Any, ...], era: int, size: int = 3) -> list[Any]:
    """Some of the choices, others in each era: so no block of the log has all names."""
    return [choices[(era * 2 + index) % len(choices)] for index in range(size)]


def grow(stores: list[Store], clock: ManualClock, rng: random.Random) -> list[Done]:
    """Commits by several stores on one target, in and outside of a scoped view."""
    done: list[Done] = []
    for number in range(COMMITS):
        clock.advance(rng.choice((0, 0, 1, 60)))
        era = block_of(number + 1)
        store, scope = rng.choice(stores), ""
        if rng.random() < 0.2 and era:
            store, scope = store.scoped("team"), "team"
        agent = rng.choice(window(AGENTS, era))
        metadata = rng.choice(window(METADATA, era))
        op_id = f"op{number}" if rng.random() < 0.3 else None
        # In the second era nobody writes in the scoped view, which commits without writing.
        count = 0 if scope and era == 1 else rng.choice((0, 1, 1, 1, 3))
        namespaces = NAMESPACES[:3] if scope else window(NAMESPACES, era + (era == 1))
        places = {(rng.choice(namespaces), rng.choice("abk")) for _each in range(count)}
        if not places and op_id is None:
            if scope and era == 1:
                op_id = f"op{number}"
            else:
                places = {(namespaces[0], "a")}
        with store.transaction(agent=agent, op_id=op_id, metadata=metadata) as tx:
            for labels, key in places:
                tx.put(key, number, namespace=labels)
        inside = {(("team", *labels) if scope else labels, key) for labels, key in places}
        assert stores[0].revision == len(done) + 1
        done.append(
            Done(len(done) + 1, clock.now, agent, op_id, scope, dict(metadata or {}), inside)
        )
    return done


@dataclass
class View:
    """A view and what it may see, relative to its root."""

    store: Store
    scope: str
    prefix: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()

    def sees(self, labels: tuple[str, ...], key: str) -> bool:
        if labels[: len(self.prefix)] != self.prefix:
            return False
        inside = labels[len(self.prefix) :]
        return not self.patterns or any(each.matches(inside, key) for each in self.patterns)


def views(store: Store) -> list[View]:
    limits = store._core.limits
    return [
        View(store, ""),
        View(store.scoped("team"), "team", ("team",)),
        View(
            store.scoped(access=RULES),
            "rules",
            (),
            tuple(Pattern.parse(pattern, limits) for pattern in RULES),
        ),
    ]


def expected(done: list[Done], view: View, asked: dict[str, Any]) -> list[tuple[int, int]]:
    """(revision, number of changes) of the commits that a plain list has."""
    found = []
    where = Filter.parse(asked.get("where"))
    exact = asked.get("metadata") or {}
    namespace = asked.get("namespace")
    below = view.prefix + (namespace or ())
    for one in done:
        changes = {p for p in one.places if view.sees(*p) and p[0][: len(below)] == below}
        own = namespace is None and one.scope == view.scope
        whole = not below and not view.patterns
        if not (changes or own or whole):
            continue
        kept = (
            asked.get("agent") in (None, one.agent)
            and asked.get("op_id") in (None, one.op_id if one.scope == view.scope else ...)
            and one.revision > asked.get("after", 0)
            and (asked.get("upto") is None or one.revision <= asked["upto"])
            and (asked.get("since") is None or one.committed_at >= asked["since"])
            and (asked.get("until") is None or one.committed_at < asked["until"])
            and all(repr(one.metadata.get(name, ...)) == repr(exact[name]) for name in exact)
            and (where is None or where.matches(one.metadata))
        )
        if kept:
            found.append((one.revision, len(changes)))
    if not asked.get("oldest_first"):
        found.reverse()
    return found[: asked.get("limit")]


def query(done: list[Done], rng: random.Random) -> dict[str, Any]:
    """A random choice of filters."""
    some: dict[str, Any] = {
        "namespace": rng.choice((*NAMESPACES[1:], ("te%m",), ("alice",), ("nowhere",))),
        "agent": rng.choice((*AGENTS[1:], "nobody")),
        "op_id": f"op{rng.randrange(COMMITS)}",
        "since": rng.choice(done).committed_at + timedelta(seconds=rng.choice((0, 1))),
        "until": rng.choice(done).committed_at,
        "after": rng.randrange(COMMITS + 10),
        "upto": rng.randrange(COMMITS + 10),
        "metadata": rng.choice(({"run": "a"}, {"n": 1}, {"n": 1.0}, METADATA[4], {"f39": 39}, {})),
        "where": rng.choice(WHERES),
        "limit": rng.choice((0, 1, 7, 1_000)),
        "oldest_first": rng.choice((True, False)),
    }
    return {name: some[name] for name in rng.sample(sorted(some), rng.randrange(5))}


def found(view: View, asked: dict[str, Any]) -> list[tuple[int | None, int]]:
    given = dict(asked)
    commits = view.store.log(given.pop("namespace", None), **given)
    return [(commit.revision, len(commit.changes)) for commit in commits]


@pytest.mark.parametrize("marked_after", [0, 200])
def test_every_filter_finds_what_a_plain_list_has(
    make_store: StoreMaker,
    clock: ManualClock,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    marked_after: int,
) -> None:
    rng = random.Random(seed + marked_after)
    stores = [make_store(intact=not marked_after) for _handle in range(2)]
    if marked_after:
        # As in a store whose first commits are older than the marks.
        real = Marker.marks

        def marks(self: Marker, revision: int, *names: Any) -> Any:
            return real(self, revision, *names) if revision > marked_after else ()

        monkeypatch.setattr(Marker, "marks", marks)
        monkeypatch.setattr(stores[0]._core.engine, "marked_after", lambda: marked_after)
    done = grow(stores, clock, rng)
    assert block_of(COMMITS) == 3
    for _query in range(QUERIES):
        asked = query(done, rng)
        for view in views(stores[0]):
            if view.patterns and not _reached(view, asked.get("namespace")):
                with pytest.raises(AccessDeniedError):
                    found(view, asked)
                continue
            assert found(view, asked) == expected(done, view, asked), (view.scope, asked)


def _reached(view: View, namespace: tuple[str, ...] | None) -> bool:
    return any(pattern.reaches(namespace or ()) for pattern in view.patterns)


@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_are_the_whole_log_while_others_commit(
    make_store: StoreMaker, clock: ManualClock, oldest_first: bool
) -> None:
    store, other = make_store(), make_store()
    for number in range(300):
        store.put("k", number, agent="ann" if number % 3 else "bob", overwrite=True)
    wanted = [n for n in range(1, 301) if (n - 1) % 3]
    pages: list[Commit] = []
    options: dict[str, Any] = {"oldest_first": oldest_first, "agent": "ann", "limit": 60}
    while page := store.log(**options):
        pages += page
        last = page[-1].revision
        assert last is not None
        options |= {"after": last} if oldest_first else {"upto": last - 1}
        if len(pages) < 300:
            other.put("k", 0, agent="ann", overwrite=True)
    revisions = [commit.revision for commit in pages]
    assert revisions[: len(wanted)] == (wanted if oldest_first else wanted[::-1])
    if oldest_first:  # it comes to those that were committed meanwhile
        assert revisions[len(wanted) :] == list(range(301, 301 + len(revisions) - len(wanted)))
    else:
        assert len(revisions) == len(wanted)


def test_a_scoped_view_sees_its_own_alone(store: Store) -> None:
    team = store.scoped("team")
    with store.transaction(agent="ann", metadata={"run": 1}) as tx:
        tx.put("k", 1, namespace="team")
        tx.put("secret", 1, namespace="other")
    store.put("k", 2, namespace="other", op_id="theirs", agent="ann")
    team.delete("absent", op_id="mine", agent="ann")
    assert [commit.revision for commit in team.log()] == [3, 1]
    assert [commit.revision for commit in team.log(agent="ann")] == [3, 1]
    assert [change.key for commit in team.log() for change in commit.changes] == ["k"]
    assert team.log("other", op_id="mine") == store.log("team", op_id="theirs") == []
    assert team.log(op_id="theirs") == []
    assert [commit.revision for commit in team.log(op_id="mine")] == [3]
    assert store.log(op_id="mine") == []
    assert [commit.revision for commit in team.log((), metadata={"run": 1})] == [1]
    with pytest.raises(AccessDeniedError):
        store.scoped(access={"team/**": "read"}).log("other")


def test_times_are_aware_and_until_is_not_in_it(store: Store, clock: ManualClock) -> None:
    began = clock()
    for number in range(5):
        store.put("k", number, overwrite=True)
        clock.advance(10)

    def revisions(**options: Any) -> list[int | None]:
        return [commit.revision for commit in store.log(**options)]

    second = timedelta(seconds=1)
    assert revisions(since=began + 20 * second) == [5, 4, 3]
    assert revisions(until=began + 20 * second) == [2, 1]
    assert revisions(since=began + 10 * second, until=began + 10 * second) == []
    assert revisions(since=began - 10 * second, until=began + 1_000 * second) == [5, 4, 3, 2, 1]
    assert revisions(since=began + 11 * second, upto=4) == [4, 3]
    for name in ("since", "until"):
        with pytest.raises(InvalidValueError, match="time zone"):
            store.log(**{name: datetime(2026, 1, 31)})  # type: ignore[arg-type]  # noqa: DTZ001  # the point of the test
        with pytest.raises(TypeError, match=name):
            store.log(**{name: "2026-01-31"})  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"metadata": ["run"]}, TypeError),
        ({"metadata": {"run": float("nan")}}, InvalidValueError),
        ({"where": {"$nor": []}}, InvalidValueError),
        ({"agent": 5}, TypeError),
        ({"agent": "\ud800"}, InvalidValueError),
        ({"op_id": "x" * 100_000}, LimitExceededError),
        ({"limit": -1}, InvalidValueError),
        ({"after": -1}, InvalidValueError),
        ({"upto": 2**70}, InvalidValueError),
    ],
)
def test_what_cannot_be_asked_for_is_a_typed_error(
    store: Store, options: dict[str, Any], error: type[Exception]
) -> None:
    store.put("k", 1)
    with pytest.raises(error):
        store.log(**options)


def test_history_is_read_page_by_page(store: Store) -> None:
    for number in range(30):
        store.put("k", number, overwrite=True)
        store.put("other", number, overwrite=True)
    found: list[int | None] = []
    upto: int | None = None
    while page := store.history("k", upto=upto, limit=7):
        found += [entry.version for entry in page]
        assert page[-1].revision is not None
        upto = page[-1].revision - 1
    assert found == list(range(30, 0, -1))
    assert [entry.version for entry in store.history("k", after=4, upto=11)] == [6, 5, 4, 3]
    for bounds in ({"after": -1}, {"upto": 2**70}):
        with pytest.raises(InvalidValueError):
            store.history("k", **bounds)


def test_verify_tells_of_commits_that_the_log_may_not_find(
    make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(intact=False)
    store.put("a", 1, agent="ann")
    # A commit path that forgets to mark: the rest of the store is whole.
    monkeypatch.setattr("agentmem.marks.Marker.marks", lambda *_arguments: ())
    store.put("a", 2, agent="bob", namespace="team", metadata={"n": 1})
    assert store.admin.verify().problems == [
        "revisions 0 to 127 lack 4 marks: store.log may not find them"
    ]


def test_marks_are_of_all_namespaces_above() -> None:
    assert decode("team\x01alice\x01") == ("team", "alice")
    names = names_of("", None, None, ["team\x01alice\x01"])
    assert names == {"nteam\x01", "nteam\x01alice\x01"}
    assert names_of("", None, None, [""]) == set()


def test_what_is_marked_is_remembered_for_its_block_and_once_it_is_committed() -> None:
    marker = Marker()

    def marks(revision: int, agent: str = "ann") -> list[tuple[str, int]]:
        return list(marker.marks(revision, "", agent, None, ("",)))

    marker.begin(125)
    assert marks(126) == [("aann", 0)]
    assert marks(127) == []
    assert marks(128) == [("aann", 1)]  # in the same batch, behind the end of the block
    marker.begin(125)
    assert marks(126) == [("aann", 0)]  # that batch was not committed
    marker.keep()
    marker.begin(126)
    assert (marks(127), marks(127, "bob")) == ([], [("abob", 0)])
    marker.begin(0)
    assert marks(1) == [("aann", 0)]  # an older backup was put in the place of the log
    marker.keep()
    marker.begin(127)
    assert marks(128) == [("aann", 1)]


def test_an_equality_is_looked_for_in_every_spelling() -> None:
    def needs(where: dict[str, Any]) -> list[tuple[str, ...]]:
        return metadata_needs({}, Filter.parse(where))

    assert needs({"n": 1}) == needs({"n": 1.0}) == [("mn=1", "mn=1.0", "x")]
    assert needs({"n": 0}) == [("mn=0", "mn=0.0", "mn=-0.0", "x")]
    assert needs({"n": 1.5}) == [("mn=1.5", "x")]
    assert needs({"n": True, "run": "r"}) == [("mn=true", "x"), ('mrun="r"', "x")]
    assert needs({"n": {"$in": [None, "a"]}}) == [("mn=null", 'mn="a"', "x")]
    assert needs({"n": {"$gt": 1}}) == needs({"n.a": 1}) == needs({"n": [1]}) == [("fn", "x")]
    assert needs({"n": 2**60}) == [("fn", "x")]  # a float may equal it that is spelt otherwise
    assert needs({"n": {"$ne": 1}}) == needs({"$or": [{"n": 1}]}) == []
