"""Each race is made to happen, and found; a clean history has no findings."""

from __future__ import annotations

from typing import Any

import pytest

import agentmem
from agentmem import ConflictError, InvalidValueError, OperationMismatchError, Race, Store
from tests.contract.conftest import ManualClock, StoreMaker


def kinds(store: Store, **options: Any) -> list[tuple[str, str]]:
    """(kind, key) of the findings."""
    return [(race.kind, race.key) for race in store.audit.races(**options)]


def only(store: Store, kind: str) -> Race:
    """The one finding of a kind."""
    (race,) = [race for race in store.audit.races() if race.kind == kind]
    return race


@pytest.fixture
def quiet(make_store: StoreMaker) -> Store:
    """A store that lets blind writes pass without a warning."""
    return make_store(blind_writes="allow")


def test_a_clean_history_has_no_findings(quiet: Store) -> None:
    quiet.set_merge("list", "union")
    for turn in range(4):
        agent = f"agent {turn % 2}"
        quiet.update("plan", lambda plan: {**plan, "n": len(plan)}, default={}, agent=agent)
        quiet.increment("count", agent=agent)
        quiet.put("own", turn, namespace=agent, agent=agent, op_id=f"op {turn}")
        with quiet.transaction(agent=agent, isolation="snapshot") as tx:
            tx.put("both", [*tx.get("both").value, turn] if turn else [turn])  # type: ignore[union-attr]  # there
            tx.list("agent 0")
    quiet.put("own", 0, namespace="agent 0", agent="agent 0", op_id="op 0")
    quiet.put("fresh", 1, agent="agent 0")
    quiet.delete("fresh", agent="agent 1", expected_version=1)
    assert quiet.audit.races() == []


def test_a_blind_write_over_a_fresh_version_is_found(quiet: Store, clock: ManualClock) -> None:
    quiet.put("plan", 1, agent="ann")
    clock.advance(30)
    quiet.put("plan", 2, agent="bob")
    race = only(quiet, "blind_write")
    assert (race.key, race.versions, race.revisions, race.agents) == (
        "plan",
        (((), "plan", 1), ((), "plan", 2)),
        (1, 2),
        ("ann", "bob"),
    )
    assert race.explanation == (
        "'bob' replaced plan version 1, which 'ann' had written 30 s before, without having read it"
    )
    assert "store.update" in race.advice
    assert kinds(quiet, fresh_s=29) == []
    assert kinds(quiet, since=2) == []
    assert kinds(quiet, since=1) == [("blind_write", "plan")]
    assert kinds(quiet, namespace="other") == []
    quiet.delete("plan", agent="ann", overwrite=True)
    assert kinds(quiet) == [("blind_write", "plan")] * 2


def test_a_blind_write_by_who_had_read_or_written_it_is_none(quiet: Store) -> None:
    quiet.put("plan", 1, agent="ann")
    with quiet.transaction(agent="bob") as tx:
        tx.get("plan")
        tx.put("seen", 1)
    quiet.put("plan", 2, agent="bob")  # an earlier transaction of bob's had read it
    quiet.put("plan", 3, agent="bob")
    with quiet.transaction(agent="ann") as tx:
        tx.list(key_prefix="pl")
        tx.put("plan", 4, overwrite=True)
    quiet.put("gone", 1, agent="ann")
    quiet.delete("gone", agent="ann")
    quiet.put("gone", 2, agent="bob")  # over a tombstone
    assert kinds(quiet) == []


@pytest.mark.parametrize("way", ["keys", "scan", "phantom"])
def test_write_skew_of_snapshot_isolation_is_found(quiet: Store, way: str) -> None:
    for doctor in ("alice", "bob"):
        quiet.put(doctor, True, namespace="on call")
    transactions = [
        quiet.transaction(isolation="snapshot", agent=agent) for agent in ("alice", "bob")
    ]
    for doctor, tx in zip(("alice", "bob"), transactions, strict=True):
        if way == "keys":
            tx.get_many(["alice", "bob"], namespace="on call")
        else:
            tx.list("on call")
        key = f"new {doctor}" if way == "phantom" else doctor
        tx.put(key, False, namespace="on call")
    for tx in transactions:
        tx.commit()
    race = only(quiet, "write_skew")
    assert (race.revisions, race.agents) == ((3, 4), ("alice", "bob"))
    first, second = ("new alice", "new bob") if way == "phantom" else ("alice", "bob")
    version = 1 if way == "phantom" else 2
    assert race.versions == ((("on call",), first, version), (("on call",), second, version))
    assert "neither saw" in race.explanation


def test_a_stale_read_alone_is_no_write_skew(quiet: Store) -> None:
    quiet.put("rate", 1)
    tx = quiet.transaction(isolation="snapshot")
    tx.get("rate")
    tx.put("total", 1)
    quiet.put("rate", 2, expected_version=1)
    tx.commit()  # as if it had run before
    assert kinds(quiet) == []


def test_an_op_id_used_for_different_requests_is_found(store: Store) -> None:
    store.put("a", 1, op_id="op", agent="ann")
    with pytest.raises(OperationMismatchError):
        store.put("b", 2, op_id="op", agent="bob")
    store.put("c", 3, op_id="op", agent="bob", on_mismatch="replay")
    store.put("a", 1, op_id="op", agent="bob")  # the same request again is what it is for
    found = store.audit.races()
    assert [(race.kind, race.key, race.revisions, race.agents) for race in found] == [
        ("operation_reused", "b", (1,), ("ann", "bob")),
        ("operation_reused", "c", (1,), ("ann", "bob")),
    ]
    assert "was refused" in found[0].explanation
    assert "first result" in found[1].explanation
    assert [record.kind for record in store.audit.conflicts("rejected")] == ["operation"] * 2


VALUES: dict[str, tuple[Any, Any, str]] = {
    "numbers": (0, lambda value, turn: value + turn, "increment"),
    "growing lists": ([], lambda value, turn: [*value, turn], "append"),
    "queues": (["x"] * 9, lambda value, turn: value[1:] if turn % 2 else [*value, turn], "queue"),
    "sets": ([], lambda value, turn: [turn, *value], "union"),
    "parts": ({}, lambda value, turn: {**value, f"p{turn}": 1}, "json"),
    "states": (
        {"state": "open"},
        lambda value, turn: {"state": ["taken", "open"][turn % 2]},
        "lease",
    ),
    "one part": ({"n": 0}, lambda value, turn: {"n": turn + 1}, "$.n"),
    "texts": ("", lambda value, turn: f"text {turn}", "lease"),
}


@pytest.mark.parametrize("shape", VALUES)
def test_a_hot_key_is_found_with_what_would_help(
    store: Store, make_store: StoreMaker, shape: str
) -> None:
    start, change, word = VALUES[shape]
    rival = make_store(agent="rival")
    store.put("hot", start)
    store.put("cold", start)

    def slow(turn: int, value: Any) -> Any:
        if not met[turn]:
            met[turn] = True
            rival.update("hot", lambda theirs: change(theirs, turn))
        return change(value, turn + 1)

    met = [False] * 5
    for turn in range(5):
        store.update("hot", lambda value, turn=turn: slow(turn, value), agent="slow")  # type: ignore[misc]  # mypy does not infer the default
    race = only(store, "hot_key")
    assert race.key == "hot"
    assert race.figures == {
        "writes": 11,
        "conflicts": 5,
        "retried": 5,
        "merged": 0,
        "conflict_rate": 5 / 16,
        "retry_rate": 5 / 16,
    }
    assert set(race.agents) == {None, "rival", "slow"}
    assert "5 of 16 attempts" in race.explanation
    assert word in race.advice


def test_a_key_that_is_hot_for_readers_is_told_so(store: Store) -> None:
    store.put("config", 0)
    for turn in range(4):
        tx = store.transaction()
        tx.get("config")
        tx.put(f"k{turn}", 1)
        store.update("config", lambda value: value + 1)
        with pytest.raises(ConflictError):
            tx.commit()
    race = only(store, "hot_key")
    assert race.figures["retried"] == 0
    assert "track=False" in race.advice


def test_a_view_finds_only_what_lies_in_it(quiet: Store) -> None:
    for namespace in ("team", "other"):
        quiet.put("plan", 1, namespace=namespace, agent="ann")
        quiet.put("plan", 2, namespace=namespace, agent="bob")
    (race,) = quiet.scoped("team").audit.races()
    assert (race.namespace, race.key) == ((), "plan")
    assert "other" not in race.explanation


# What `escalate` has parked.


@pytest.fixture
def parked(store: Store) -> int:
    """A parked conflict: 200 is there (version 3), 300 waits."""
    store.set_merge("budget", "escalate")
    store.put("budget", 100)
    store.put("budget", 200)
    store.put("budget", 300, expected_version=1, agent="bob")
    return store.audit.conflicts("open")[0].id


@pytest.mark.parametrize("take", ["ours", [5]])
def test_a_conflict_whose_key_has_moved_on_is_not_resolved_unseen(
    store: Store, parked: int, take: Any
) -> None:
    store.put("budget", 250, expected_version=3, agent="ann")
    with pytest.raises(ConflictError, match="from version 3 to 4") as caught:
        store.audit.resolve(parked, take)
    assert caught.value.conflicts[0].current_version == 4
    assert store["budget"] == 250
    with pytest.raises(ConflictError):
        store.audit.resolve(parked, take, expected_version=3)
    entry = store.audit.resolve(parked, take, expected_version=4)
    assert entry is not None
    assert entry.version == 5
    assert store.audit.conflicts("open") == []


def test_theirs_is_whatever_is_there(store: Store, parked: int) -> None:
    store.delete("budget", expected_version=3)
    assert store.audit.resolve(parked, "theirs") is None
    assert store.audit.conflicts("open") == []


def test_a_conflict_is_resolved_once(store: Store, parked: int) -> None:
    store.audit.resolve(parked, "ours", note="agreed")
    with pytest.raises(InvalidValueError, match=r"resolved by revision 4 \(agreed\)"):
        store.audit.resolve(parked, "theirs")
    assert store["budget"] == 300


def test_two_that_resolve_at_once_do_it_once(
    store: Store, make_store: StoreMaker, parked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store()
    run = store._core.run

    def late(request: Any) -> Any:
        monkeypatch.undo()
        other.audit.resolve(parked, "theirs")
        return run(request)

    monkeypatch.setattr(store._core, "run", late)
    with pytest.raises(InvalidValueError, match="no open conflict"):
        store.audit.resolve(parked, "ours")
    assert store["budget"] == 200
    assert agentmem.Race.__module__ == "agentmem"
