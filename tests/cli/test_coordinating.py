"""leases, queue."""

from __future__ import annotations

import pytest

import agentmem
from tests.cli.program import Program, on_terminal, without_colours


def test_leases_are_listed_and_broken(program: Program, store: agentmem.Store) -> None:
    assert program.ok("leases") == program.ok("leases", "list") == ""
    lease = store.lease("plan", agent="ann").acquire()
    lines = program.ok("leases").splitlines()
    assert lines[0].split() == ["lease", "token", "agent", "granted", "expires", "in"]
    assert lines[1].split()[:3] == ["plan", "1", "ann"]
    [shown] = program.document("leases")
    assert (shown["lease"], shown["scope"], shown["key"], shown["token"]) == ("plan", [], False, 1)
    assert 0 < shown["expires_in_s"] <= 30
    assert program.ok("leases", "break", "plan", "--yes") == "plan: token 1 is broken\n"
    assert "not held" in program.fails(1, "leases", "break", "plan", "--yes")
    with pytest.raises(agentmem.FencedError):
        lease.renew()


def test_breaking_a_lease_asks_first(program: Program, store: agentmem.Store) -> None:
    store.lease("plan").acquire()
    assert "give --yes" in program.fails(2, "leases", "break", "plan")
    assert len(store.leases()) == 1


def test_leases_of_keys_and_of_views_are_told_apart(
    program: Program, store: agentmem.Store
) -> None:
    def look(tx: agentmem.Transaction) -> None:
        store.scoped("team").lease("plan").acquire()
        rows = [line.split() for line in program.ok("leases").splitlines()[1:]]
        assert [row[:3] for row in rows] == [["team/k", "a", "key"], ["plan", "team", rows[1][2]]]
        assert program.ok("leases", "break", "plan", "-n", "team", "--yes")
        document = program.document("leases", "break", "k", "-n", "team", "--key", "--yes")
        assert document["lease"] == "k"

    with pytest.raises(agentmem.FencedError):
        store.transact(look, lock=[("team", "k")])


def test_queue_alone_lists_the_queues(program: Program, store: agentmem.Store) -> None:
    assert program.ok("queue") == program.ok("queue", "list") == ""
    store.queue("tasks").put(1)
    assert program.ok("queue") == program.ok("queue", "list") != ""
    assert [each["queue"] for each in program.document("queue")] == ["tasks"]
    assert "claim" in program.ok("queue", "--help")


def test_a_claim_that_is_over_says_what_became_of_the_task(
    program: Program, store: agentmem.Store
) -> None:
    queue = store.queue("tasks")
    id = queue.put(1)
    task = queue.claim()
    assert task is not None
    other = str(task.token + 1)
    ack = ("queue", "ack", "tasks", str(id))
    assert f"is held under token {task.token}; token {other} counts" in program.fails(
        3, *ack, other
    )
    task.nack()
    assert "is not claimed" in program.fails(3, *ack, str(task.token))
    again = queue.claim()
    assert again is not None
    again.ack()
    assert "is not there" in program.fails(3, *ack, str(again.token))


def test_a_task_is_put_claimed_and_acknowledged(program: Program, store: agentmem.Store) -> None:
    document = program.document("queue", "put", "tasks", '{"n": 1}', "--op-id", "a", "--group", "g")
    id = document["id"]
    assert program.document(
        "queue", "put", "tasks", '{"n": 1}', "--op-id", "a", "--group", "g"
    ) == {
        "queue": "tasks",
        "id": id,
    }
    assert program.ok("queue", "put", "tasks", "-s", "text", "--priority", "-1")
    claim = ("queue", "claim", "tasks", "--visibility-s", "300", "--op-id", "c")
    task = program.document(*claim, "--agent", "ann")
    assert (task["id"], task["payload"], task["group"]) == (id, {"n": 1}, "g")
    assert program.document(*claim, "--agent", "ann") == task
    assert "give each claim its own op_id" in program.fails(3, *claim, "--agent", "bob")
    assert [each["state"] for each in program.document("queue", "peek", "tasks")] == [
        "claimed",
        "waiting",
    ]
    token = str(task["token"])
    assert "token 999" in program.fails(3, "queue", "ack", "tasks", str(id), "999")
    assert program.ok("queue", "ack", "tasks", str(id), token) == f"tasks: task {id} acknowledged\n"
    assert program.fails(3, "queue", "ack", "tasks", str(id), token)
    assert [each.payload for each in store.queue("tasks").peek()] == ["text"]
    assert program.fails(3, "queue", "put", "tasks", "2", "--op-id", "a")


def test_without_a_task_a_claim_fails(program: Program) -> None:
    assert "no task" in program.fails(1, "queue", "claim", "tasks", "--wait-s", "0.01")


def test_dead_tasks_are_shown_put_again_and_discarded(program: Program) -> None:
    for payload in ("1", "2"):
        program.ok("queue", "put", "tasks", payload, "--max-attempts", "1")
        task = program.document("queue", "claim", "tasks")
        numbers = (str(task["id"]), str(task["token"]))
        program.ok("queue", "nack", "tasks", *numbers, "--note", "bad", "--delay-s", "5")
    assert [each["note"] for each in program.document("queue", "dead", "tasks")] == ["bad", "bad"]
    first, second = (str(each["id"]) for each in program.document("queue", "dead", "tasks"))
    again = program.document("queue", "put-again", "tasks", first)
    assert "give --yes" in program.fails(2, "queue", "discard", "tasks", second)
    program.ok("queue", "discard", "tasks", second, "--yes")
    assert program.fails(6, "queue", "discard", "tasks", second, "--yes")
    [state] = program.document("queue", "list")
    assert (state["queue"], state["waiting"], state["dead"]) == ("tasks", 1, 0)
    assert [each["id"] for each in program.document("queue", "peek", "tasks")] == [again["id"]]
    assert program.ok("queue", "list").splitlines()[1].split() == ["tasks", "1", "0", "0", "0", "0"]


def test_queues_of_a_namespace_are_those_of_its_view(
    program: Program, store: agentmem.Store
) -> None:
    program.ok("queue", "put", "tasks", "1", "-n", "team", "--delay-s", "60")
    assert len(store.scoped("team").queue("tasks")) == 1
    assert program.document("queue", "peek", "tasks") == []
    [state] = program.document("queue", "list")
    assert (state["scope"], state["delayed"]) == (["team"], 1)


@pytest.mark.parametrize("columns", [80, 200])
def test_tables_fit_the_terminal(program: Program, columns: int) -> None:
    for number in range(3):
        program.ok("queue", "put", "tasks", f'{{"n": {number}, "text": "{"word " * 60}"}}')
    for command in (("queue", "peek", "tasks"), ("queue", "list"), ("leases",)):
        code, shown = on_terminal(*command, "--store", str(program.store), COLUMNS=str(columns))
        assert code == 0
        assert max(map(len, without_colours(shown).splitlines())) <= columns
