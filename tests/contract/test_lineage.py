"""What an entry was derived from, what was derived from it, and how that is undone."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest

import agentmem
from agentmem import AccessDeniedError, Conflict, KeyMissingError, Lineage, Store, merge
from tests.contract.conftest import StoreMaker


def edges(lineage: Lineage) -> set[tuple[str, str, str]]:
    """(derived, why, source), as ``key@version``."""
    return {
        (
            f"{edge.derived.key}@{edge.derived.version}",
            edge.why,
            f"{edge.source.key}@{edge.source.version}",
        )
        for edge in lineage.edges
    }


def outcomes(found: agentmem.Contamination) -> dict[str, str]:
    """What becomes of each key."""
    return {key.key: key.outcome for key in found.keys}


def derive(store: Store, source: str, target: str, value: Any = "derived") -> None:
    """A transaction that reads one key and writes another."""
    with store.transaction(agent="reader") as tx:
        tx.get(source)
        tx.put(target, value)


# Lineage.


def test_lineage_goes_up_through_reads_scans_searches_bases_and_merges(store: Store) -> None:
    store.set_merge("m", merge.union)
    store.put("a", "apple")
    store.put("s", 1, namespace="n")
    store.put("m", [1])
    slow = store.transaction()
    slow.put("m", [1, 2])
    store.put("m", [1, 3], expected_version=1)
    slow.commit()
    with store.transaction(agent="writer", note="why", op_id="op") as tx:
        tx.get("a")
        tx.list("n")
        tx.search("apple", mode="text")
        tx.get("m")
        tx.put("out", 1)
    store.update("out", lambda value: value + 1)
    store.increment("out")
    found = store.audit.lineage("out")
    assert edges(found) == {
        ("out@3", "base", "out@2"),
        ("out@2", "base", "out@1"),
        ("out@1", "read", "a@1"),
        ("out@1", "search", "a@1"),
        ("out@1", "scan", "s@1"),
        ("out@1", "read", "m@3"),
        ("m@3", "merge", "m@1"),
        ("m@3", "merge", "m@2"),
        ("m@2", "base", "m@1"),
    }
    assert found.complete
    first = next(node for node in found.nodes if (node.key, node.version) == ("out", 1))
    assert (first.agent, first.note, first.op_id) == ("writer", "why", "op")
    scan = next(edge for edge in found.edges if edge.why == "scan")
    assert scan.asked == {"namespace": ["n"]}


def test_lineage_goes_down_across_keys_and_agents(store: Store) -> None:
    store.put("fact", 1)
    derive(store, "fact", "plan")
    derive(store, "plan", "report")
    store.put("fact", 2, overwrite=True)
    derive(store, "fact", "other")
    found = store.audit.lineage("fact", 1, direction="down")
    assert edges(found) == {("plan@1", "read", "fact@1"), ("report@1", "read", "plan@1")}
    assert [(node.key, node.version) for node in found.nodes] == [
        ("fact", 1),
        ("plan", 1),
        ("report", 1),
    ]


def test_depth_and_limit_leave_out_and_say_so(store: Store) -> None:
    store.put("k0", 0)
    for number in range(4):
        derive(store, f"k{number}", f"k{number + 1}")
    found = store.audit.lineage("k4", depth=2)
    assert ([node.key for node in found.nodes], found.complete) == (["k2", "k3", "k4"], False)
    found = store.audit.lineage("k4", limit=2)
    assert (len(found.nodes), found.complete) == (2, False)
    assert store.audit.lineage("k4", limit=5).complete
    with pytest.raises(KeyMissingError):
        store.audit.lineage("k4", 7)
    with pytest.raises(KeyMissingError):
        store.audit.lineage("k9")
    with pytest.raises(agentmem.InvalidValueError):
        store.audit.lineage("k4", direction="sideways")  # type: ignore[arg-type]  # the mistake


def test_a_delete_leads_on_to_who_found_the_key_absent(store: Store) -> None:
    store.put("flag", 1)
    store.delete("flag", overwrite=True)
    derive(store, "flag", "out")
    assert edges(store.audit.lineage("out")) == {("out@1", "read", "flag@2")}
    assert edges(store.audit.lineage("flag", 2, direction="down")) == {("out@1", "read", "flag@2")}
    assert edges(store.audit.lineage("flag", 1, direction="down")) == set()


def test_of_two_deletes_the_one_that_was_seen_leads_on(store: Store) -> None:
    for value in (1, 2):
        store.put("flag", value, expected_version=0)
        store.delete("flag", overwrite=True)
    derive(store, "flag", "out")
    assert edges(store.audit.lineage("flag", 2, direction="down")) == set()
    assert edges(store.audit.lineage("flag", 4, direction="down")) == {("out@1", "read", "flag@4")}


def test_a_scan_long_after_finds_what_is_still_there(store: Store) -> None:
    store.put("fact", 1)
    with store.transaction() as tx:
        tx.get("fact")
        tx.put("a", 1, namespace="n")
        tx.put("b", 1, namespace="n")
    store.put("a", 2, namespace="n", overwrite=True)
    with store.transaction() as tx:
        tx.list("n")
        tx.put("out", 1)
    found = store.audit.lineage("fact", 1, direction="down")
    assert ("out@1", "scan", "b@1") in edges(found)
    assert ("out@1", "scan", "a@1") not in edges(found)


def test_what_was_not_kept_is_counted(make_store: StoreMaker) -> None:
    store = make_store(provenance=False)
    store.put("a", 1)
    derive(store, "a", "b")
    found = store.audit.lineage("b")
    assert (len(found.nodes), found.unkept) == (1, 1)
    assert store.audit.lineage("a", direction="down").unkept == 1
    assert store.audit.revert_derived("a", 1).unkept == 1


def test_what_was_compacted_is_shown_as_such_and_what_hung_on_it_is_told(store: Store) -> None:
    store.put("fact", 1)
    derive(store, "fact", "plan")
    derive(store, "plan", "report")
    store.put("fact", 2, overwrite=True)
    store.put("plan", 2, overwrite=True)
    assert store.audit.lineage("fact", 1, direction="down").complete
    store.admin.compact(keep_revision=store.revision)
    found = store.audit.lineage("report")
    assert [(node.key, node.version, node.state) for node in found.nodes] == [
        ("plan", 1, "compacted"),
        ("report", 1, "kept"),
    ]
    assert edges(found) == {("report@1", "read", "plan@1")}
    down = store.audit.lineage("report", direction="down")
    assert not down.complete
    assert not store.audit.revert_derived("report", 1).complete


def test_a_scan_that_found_what_was_compacted_counts_it(store: Store) -> None:
    store.put("a", 1)
    with store.transaction() as tx:
        tx.list()
        tx.put("out", 1)
    store.put("a", 2, overwrite=True)
    store.admin.compact(keep_revision=store.revision)
    found = store.audit.lineage("out")
    assert ([node.key for node in found.nodes], found.lost) == (["out"], 1)


def test_a_purged_entry_is_shown_as_such(store: Store) -> None:
    store.put("fact", "secret")
    derive(store, "fact", "plan")
    store.admin.purge("fact")
    found = store.audit.lineage("plan")
    assert [(node.key, node.state) for node in found.nodes] == [
        ("fact", "purged"),
        ("plan", "kept"),
    ]


def test_a_key_whose_clean_version_was_compacted_is_left(store: Store) -> None:
    store.put("plan", "good")
    store.put("fact", "poison")
    derive(store, "fact", "plan")
    store.admin.compact(keep_revision=store.revision)
    done = store.audit.revert_derived("fact", 1, dry_run=False)
    assert outcomes(done) == {"fact": "undone", "plan": "lost"}
    assert store["plan"] == "derived"


def test_a_scoped_view_sees_its_own_part_and_counts_the_rest(store: Store) -> None:
    store.put("secret", 1)
    view = store.scoped("team")
    with store.transaction() as tx:
        tx.get("secret")
        tx.list()
        tx.put("plan", 1, namespace="team")
    found = view.audit.lineage("plan")
    assert [(node.namespace, node.key) for node in found.nodes] == [((), "plan")]
    assert (found.edges, found.outside) == ((), 1)
    assert "secret" not in repr(found)


# Undoing.


def test_what_a_poisoned_entry_led_to_is_undone_and_the_rest_stays(store: Store) -> None:
    store.put("plan", "good")
    store.put("fact", "poison", agent="web")
    derive(store, "fact", "plan", "bad")
    derive(store, "plan", "report", "bad")
    derive(store, "fact", "news", "bad")
    store.put("news", "fresh", overwrite=True, agent="editor")
    store.put("other", "kept")
    plan = store.audit.revert_derived("fact", 1)
    assert outcomes(plan) == {
        "fact": "undone",
        "plan": "undone",
        "report": "undone",
        "news": "overwritten",
    }
    assert plan.commit is None
    assert store.get("plan").value == "bad"  # type: ignore[union-attr]
    done = store.audit.revert_derived("fact", 1, dry_run=False, agent="curator")
    assert (done.derived, done.keys) == (plan.derived, plan.keys)
    assert done.commit is not None
    assert done.commit.metadata == {"reverts_derived": [[], "fact", 1]}
    assert {entry.key: entry.value for entry in store.list()} == {
        "plan": "good",
        "news": "fresh",
        "other": "kept",
    }
    assert store.audit.version("plan", 2).value == "bad"  # the log keeps what was undone


def test_innocent_appends_to_a_poisoned_list_stay(store: Store) -> None:
    store.append("notes", "a")
    store.append("notes", "bad")
    store.append("notes", "b")
    derive(store, "notes", "summary")
    store.append("notes", "c")
    done = store.audit.revert_derived("notes", 2, dry_run=False)
    assert outcomes(done) == {"notes": "merged", "summary": "undone"}
    assert {node.version for node in done.carrying} == {3, 4}
    assert store["notes"] == ["a", "b", "c"]
    assert "summary" not in store
    again = store.audit.revert_derived("notes", 2, dry_run=False)
    assert (again.commit, outcomes(again)) == (
        None,
        {"notes": "unchanged", "summary": "unchanged"},
    )


def test_what_was_undone_only_in_part_is_not_taken_for_clean(store: Store) -> None:
    store.append("notes", "a")
    store.append("notes", "bad")
    with store.transaction() as tx:
        tx.get("notes")
        tx.append("notes", "worse")
    store.append("notes", "c")
    store.audit.revert_commit(3)
    assert store["notes"] == ["a", "bad", "c"]
    store.audit.revert_derived("notes", 2, dry_run=False)
    assert store["notes"] == ["a", "c"]


def test_all_that_was_taken_out_of_a_key_is_marked_as_undone(store: Store) -> None:
    store.append("notes", "bad")
    with store.transaction() as tx:
        tx.get("notes")
        tx.append("notes", "worse")
    store.append("notes", "c")
    store.audit.revert_derived("notes", 1, dry_run=False)
    assert store["notes"] == ["c"]
    again = store.audit.revert_derived("notes", 1, dry_run=False)
    assert (again.commit, outcomes(again)) == (None, {"notes": "unchanged"})


def test_a_json_merge_takes_out_what_was_derived(store: Store) -> None:
    store.set_merge("profile", merge.json)
    store.put("fact", "poison")
    store.put("profile", {"name": "x", "city": "y"})
    slow = store.transaction()
    slow.put("profile", {"name": "x", "city": "y", "age": 3})
    with store.transaction() as tx:
        tx.get("fact")
        tx.put("profile", {"name": "bad", "city": "y"})
    slow.commit()
    assert store["profile"] == {"name": "bad", "city": "y", "age": 3}
    done = store.audit.revert_derived("fact", 1, dry_run=False)
    assert outcomes(done) == {"fact": "undone", "profile": "merged"}
    assert store["profile"] == {"name": "x", "city": "y", "age": 3}


def test_what_nothing_can_take_out_is_left_and_told(store: Store) -> None:
    store.put("fact", "poison")
    store.put("list", ["a"])

    @store.merge_hook("list")
    def join(conflict: Conflict) -> Any:
        return ["joined", *conflict.theirs]

    slow = store.transaction()
    slow.put("list", ["b"])
    derive(store, "fact", "list", ["bad"])
    slow.commit()

    @store.merge_hook("list")
    def refuse(conflict: Conflict) -> Any:
        raise agentmem.Unmergeable("not this one")

    done = store.audit.revert_derived("fact", 1, dry_run=False)
    assert outcomes(done) == {"fact": "undone", "list": "conflict"}
    assert store["list"] == ["joined", "bad"]
    assert "fact" not in store


def test_undoing_the_undoing_brings_the_poison_back_and_it_is_found_again(store: Store) -> None:
    store.put("fact", "poison")
    derive(store, "fact", "plan")
    done = store.audit.revert_derived("fact", 1, dry_run=False)
    assert done.commit is not None
    store.audit.revert_commit(done.commit.revision or 0)
    assert store["plan"] == "derived"
    again = store.audit.revert_derived("fact", 1, dry_run=False)
    assert outcomes(again) == {"fact": "undone", "plan": "undone"}
    assert store.list() == []


def test_an_operation_id_undoes_once(store: Store) -> None:
    store.put("fact", 1)
    derive(store, "fact", "plan")
    first = store.audit.revert_derived("fact", 1, dry_run=False, op_id="clean")
    again = store.audit.revert_derived("fact", 1, dry_run=False, op_id="clean")
    assert first.commit is not None
    assert again.commit is not None
    assert (again.commit.revision, again.commit.replayed) == (first.commit.revision, True)
    with pytest.raises(agentmem.OperationMismatchError):
        store.audit.revert_derived("plan", 1, dry_run=False, op_id="clean")


def test_a_view_undoes_only_what_lies_in_it(store: Store) -> None:
    team = store.scoped("team")
    team.put("fact", 1)
    with store.transaction() as tx:
        tx.get("fact", namespace="team")
        tx.put("leak", 1)
    with pytest.raises(AccessDeniedError):
        team.audit.revert_derived("fact", 1)
    with pytest.raises(AccessDeniedError):
        store.scoped(access="read").audit.revert_derived("fact", 1, namespace="team")


def test_who_reads_the_poison_between_plan_and_commit_is_undone_as_well(
    make_store: StoreMaker,
) -> None:
    store, other = make_store(), make_store()
    store.put("fact", "poison")
    store.put("list", ["a"])
    calls = []

    @store.merge_hook("list")
    def join(conflict: Conflict) -> Any:
        if conflict.base == ["bad"]:  # the undoing asks, after it has made its plan
            calls.append(1)
            if len(calls) == 1:
                derive(other, "fact", "late")
            return [item for item in conflict.theirs if item != "bad"]
        return [*conflict.theirs, *conflict.ours]

    slow = store.transaction()
    slow.put("list", ["b"])
    derive(store, "fact", "list", ["bad"])
    slow.commit()
    done = store.audit.revert_derived("fact", 1, dry_run=False)
    assert outcomes(done) == {"fact": "undone", "list": "merged", "late": "undone"}
    assert {entry.key: entry.value for entry in store.list()} == {"list": ["b"]}
    assert len(calls) == 2


def test_nothing_derived_is_left_under_concurrent_writers(make_store: StoreMaker) -> None:
    store = make_store()
    store.put("fact", "poison")
    writers = [make_store() for _ in range(3)]

    def work(number: int, mine: Store) -> None:
        for turn in range(12):
            mine.transact(
                lambda tx, turn=turn: (  # type: ignore[misc]  # mypy does not infer the default
                    tx.get("fact"),
                    tx.get(f"k{number}"),
                    tx.put(f"k{(number + turn) % 3}", turn),
                    tx.increment("count"),
                    None,
                )[-1]
            )

    threads = [Thread(target=work, args=each) for each in enumerate(writers)]
    for thread in threads:
        thread.start()
    done = store.audit.revert_derived("fact", 1, dry_run=False)
    for thread in threads:
        thread.join()
    assert done.commit is not None
    assert "conflict" not in outcomes(done).values()
    left = store.audit.revert_derived("fact", 1)
    assert set(outcomes(left).values()) <= {"unchanged", "overwritten"}
