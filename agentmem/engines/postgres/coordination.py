"""The tables of coordination on PostgreSQL: see `agentmem.coordination`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.postgres.tallies import adds_one, more
from agentmem.engines.postgres.wire import Rows
from agentmem.engines.rows import (
    Answer,
    Look,
    Moment,
)

__all__ = ["CHANGED_BY", "COORDINATION_STATEMENTS", "CoordinationReads", "values_of"]

# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_TASK: Final = """id, scope, queue, state, priority, task_group, payload, op_id, put_by, put_at,
    attempts, max_attempts, token, agent, epoch, ready_at, note"""
_FIRST: Final = "ORDER BY priority DESC, id LIMIT 1)"
_OF_QUEUE: Final = "(SELECT id, priority FROM {s}.tasks WHERE scope = $1 AND queue = $2"
_STATE: Final = """
    CASE WHEN {group} IS NOT NULL AND EXISTS (SELECT 1 FROM {s}.tasks g WHERE g.scope = {scope}
            AND g.queue = {queue} AND g.task_group = {group} AND g.state < 3) THEN 2
        WHEN {ready_at} IS NULL THEN 0 ELSE 1 END
"""


def _state(group: str, scope: str, queue: str, ready_at: str) -> str:
    """Of a new task: behind the others of its group, or from a moment on, or at once."""
    names = {"{group}": group, "{scope}": scope, "{queue}": queue, "{ready_at}": ready_at}
    found = _STATE
    for name, text in names.items():
        found = found.replace(name, text)
    return found


COORDINATION_STATEMENTS: Final = {
    # Changes with every commit: either takes a revision, or the fence is moved.
    "pulse": "SELECT revision, fence FROM {s}.store WHERE id = 1",
    "number": "SELECT COALESCE(MAX(number), 0) FROM {s}.batch_marks",
    "has_batch_mark": "SELECT 1 FROM {s}.batch_marks WHERE attempt = $1",
    # The grant, if there is one, then those who wait, in order.
    "lease": """SELECT 0, token, agent, granted_at, epoch, expires_at FROM {s}.leases
            WHERE scope = $1 AND name = $2
        UNION ALL
        (SELECT 1, ticket, agent, since, epoch, until FROM {s}.lease_waiters
            WHERE scope = $1 AND name = $2 ORDER BY ticket LIMIT 100)
        ORDER BY 1, 2""",
    "leases": """SELECT scope, name, token, agent, granted_at, epoch, expires_at,
            (SELECT COUNT(*) FROM {s}.lease_waiters w
                WHERE w.scope = l.scope AND w.name = l.name)
        FROM {s}.leases l WHERE $1::text IS NULL OR scope = $1 ORDER BY scope, name""",
    "task_operation": """SELECT task_id, fingerprint FROM {s}.task_operations
        WHERE scope = $1 AND queue = $2 AND op_id = $3""",
    "claim_operation": "SELECT "
    + _TASK
    + " FROM {s}.tasks WHERE scope = $1 AND queue = $2 AND claim_op_id = $3",
    "next_task": "SELECT "
    + _TASK
    + " FROM {s}.tasks WHERE id = (SELECT id FROM ("
    + f"{_OF_QUEUE} AND state = 0 {_FIRST} UNION ALL "
    + f"{_OF_QUEUE} AND state = 1 AND ready_at <= COALESCE($3::bigint, {_NOW}) {_FIRST}"
    + f") w {_FIRST}",
    "task_due": """SELECT MIN(ready_at) FROM {s}.tasks
        WHERE scope = $1 AND queue = $2 AND state = 1 AND epoch = $3""",
    "task": "SELECT " + _TASK + " FROM {s}.tasks WHERE id = $1",
    "tasks": "SELECT "
    + _TASK
    + """ FROM {s}.tasks WHERE scope = $1 AND queue = $2 AND state < 3
        ORDER BY priority DESC, id LIMIT $3""",
    "dead_tasks": "SELECT "
    + _TASK
    + """ FROM {s}.tasks WHERE scope = $1 AND queue = $2 AND state = 3
        ORDER BY id LIMIT $3""",
    "task_count": """SELECT COUNT(*) FROM {s}.tasks
        WHERE scope = $1 AND queue = $2 AND state < 3""",
    "queues": f"""SELECT scope, queue, state, (state = 1 AND token IS NOT NULL)::int,
            (state = 1 AND ready_at <= COALESCE($2::bigint, {_NOW}))::int, COUNT(*)
        FROM {{s}}.tasks WHERE $1::text IS NULL OR scope = $1
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2""",
    "once": """SELECT token, agent, started_at, epoch, until, result, expires_at
        FROM {s}.once_records WHERE scope = $1 AND id = $2""",
    "cursor": "SELECT revision, hash FROM {s}.cursors WHERE scope = $1 AND name = $2",
    "cursors": """SELECT scope, name, revision, moved_at FROM {s}.cursors
        WHERE $1::text IS NULL OR scope = $1 ORDER BY scope, name""",
    "hash_at": "SELECT hash FROM {s}.commits WHERE revision = $1",
    # Changes.
    # What is judged by has changed, and no revision tells of it.
    "add_batch_mark": """WITH f AS (UPDATE {s}.store SET fence = fence + 1 WHERE id = 1)
        INSERT INTO {s}.batch_marks (number, attempt) VALUES ($1, $2)""",
    "prune_batch_marks": "DELETE FROM {s}.batch_marks WHERE number < $1",
    "grant_lease": """INSERT INTO {s}.leases
            (scope, name, token, agent, granted_at, epoch, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (scope, name) DO UPDATE SET token = excluded.token, agent = excluded.agent,
            granted_at = excluded.granted_at, epoch = excluded.epoch,
            expires_at = excluded.expires_at""",
    "renew_lease": """UPDATE {s}.leases SET epoch = $1, expires_at = $2
        WHERE scope = $3 AND name = $4""",
    "end_lease": "DELETE FROM {s}.leases WHERE scope = $1 AND name = $2",
    "join_line": """INSERT INTO {s}.lease_waiters
            (ticket, scope, name, agent, since, epoch, until)
        VALUES ($1, $2, $3, $4, $5, $6, $7)""",
    "stay_in_line": "UPDATE {s}.lease_waiters SET epoch = $1, until = $2 WHERE ticket = $3",
    "leave_line": "DELETE FROM {s}.lease_waiters WHERE ticket = $1",
    "put_task": more(
        "tasks",
        """INSERT INTO {s}.tasks (id, scope, queue, state, priority, task_group, payload,
            op_id, put_by, put_at, attempts, max_attempts, epoch, ready_at, due_at)
        VALUES ($1, $2, $3, """
        + _state("$5::text", "$2::text", "$3::text", "$11::bigint")
        + ", $4, $5, $6, $7, $8, $9, 0, $10, $12, $11, $13)",
    ),
    "note_operation": more(
        "task_operations",
        """INSERT INTO {s}.task_operations
            (scope, queue, op_id, task_id, fingerprint)
        VALUES ($1, $2, $3, $4, $5)""",
    ),
    "claim_task": """UPDATE {s}.tasks SET state = 1, attempts = attempts + 1, token = $1,
            agent = $2, claim_op_id = $3, epoch = $4, ready_at = $5, due_at = NULL
        WHERE id = $6""",
    "forget_claim": "UPDATE {s}.tasks SET claim_op_id = NULL WHERE id = $1",
    "extend_task": "UPDATE {s}.tasks SET epoch = $1, ready_at = $2 WHERE id = $3",
    "give_task_back": """UPDATE {s}.tasks SET
            state = CASE WHEN $1::bigint IS NULL THEN 0 ELSE 1 END, token = NULL,
            claim_op_id = NULL, ready_at = $1, epoch = $2, due_at = $3, note = $4
        WHERE id = $5""",
    "bury_task": """UPDATE {s}.tasks SET state = 3, token = NULL, claim_op_id = NULL, epoch = NULL,
            ready_at = NULL, due_at = NULL, note = COALESCE($1, note)
        WHERE id = $2""",
    "end_task": more("tasks", "DELETE FROM {s}.tasks WHERE id = $1", "-"),
    "open_group": """UPDATE {s}.tasks SET state = CASE WHEN ready_at IS NULL THEN 0 ELSE 1 END
        WHERE id = (SELECT MIN(id) FROM {s}.tasks
            WHERE scope = $1 AND queue = $2 AND task_group = $3 AND state < 3)""",
    "revive_task": "UPDATE {s}.tasks t SET id = $1, attempts = 0, note = NULL, state = "
    + _state("t.task_group", "t.scope", "t.queue", "t.ready_at")
    + "WHERE id = $2",
    "begin_once": adds_one(
        "once_records",
        "scope = $1 AND id = $2",
        """INSERT INTO {s}.once_records
            (scope, id, token, agent, started_at, epoch, until)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (scope, id) DO UPDATE SET token = excluded.token, agent = excluded.agent,
            started_at = excluded.started_at, epoch = excluded.epoch, until = excluded.until,
            result = NULL, expires_at = NULL""",
    ),
    "stay_once": """UPDATE {s}.once_records SET epoch = $1, until = $2
        WHERE scope = $3 AND id = $4""",
    "end_once": """UPDATE {s}.once_records SET result = $1, expires_at = $2
        WHERE scope = $3 AND id = $4""",
    "forget_once": more(
        "once_records", "DELETE FROM {s}.once_records WHERE scope = $1 AND id = $2", "-"
    ),
    "set_cursor": adds_one(
        "cursors",
        "scope = $1 AND name = $2",
        """INSERT INTO {s}.cursors (scope, name, revision, hash, moved_at)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (scope, name) DO UPDATE SET revision = excluded.revision,
            hash = excluded.hash, moved_at = excluded.moved_at""",
    ),
    "forget_cursor": more("cursors", "DELETE FROM {s}.cursors WHERE scope = $1 AND name = $2", "-"),
}
CHANGED_BY: Final = {
    "add_batch_mark": ("number", "attempt"),
    "prune_batch_marks": ("below",),
    "grant_lease": ("scope", "name", "token", "agent", "granted_at", "epoch", "expires_at"),
    "renew_lease": ("epoch", "expires_at", "scope", "name"),
    "end_lease": ("scope", "name"),
    "join_line": ("ticket", "scope", "name", "agent", "since", "epoch", "until"),
    "stay_in_line": ("epoch", "until", "ticket"),
    "leave_line": ("ticket",),
    "put_task": (
        "id", "scope", "queue", "priority", "task_group", "payload", "op_id", "put_by", "put_at",
        "max_attempts", "ready_at", "epoch", "due_at",
    ),
    "note_operation": ("scope", "queue", "op_id", "task_id", "fingerprint"),
    "claim_task": ("token", "agent", "op_id", "epoch", "ready_at", "id"),
    "forget_claim": ("id",),
    "extend_task": ("epoch", "ready_at", "id"),
    "give_task_back": ("ready_at", "epoch", "due_at", "note", "id"),
    "bury_task": ("note", "id"),
    "end_task": ("id",),
    "open_group": ("scope", "queue", "task_group"),
    "revive_task": ("new_id", "id"),
    "begin_once": ("scope", "id", "token", "agent", "started_at", "epoch", "until"),
    "stay_once": ("epoch", "until", "scope", "id"),
    "end_once": ("result", "expires_at", "scope", "id"),
    "forget_once": ("scope", "id"),
    "set_cursor": ("scope", "name", "revision", "hash", "moved_at"),
    "forget_cursor": ("scope", "name"),
}  # fmt: skip
"""The values that each change binds, in the order of its parameters."""

_TIMED: Final = ("next_task", "queues")


def values_of(look: Look, clock: MicrosecondClock | None) -> Sequence[Any]:
    """What a look binds; where it hangs on the time, an injected clock, or None: the server's."""
    if look.name not in _TIMED:
        return look.values
    return (*look.values, None if clock is None else clock())


class CoordinationReads:
    """The reads of `agentmem.engines.base.Engine` for coordination."""

    _clock: MicrosecondClock | None = None

    def _read(self, name: str, *values: Any) -> Rows:
        raise NotImplementedError

    def now(self) -> int:
        """See `agentmem.engines.base.Engine`."""
        raise NotImplementedError

    def moment(self) -> Moment:
        """See `agentmem.engines.base.Engine`."""
        return Moment("", self.now())

    def look(self, look: Look) -> Answer:
        """See `agentmem.engines.base.Engine`."""
        return self._read(look.name, *values_of(look, self._clock))

    def pulse(self) -> object:
        """See `agentmem.engines.base.Engine`."""
        return self._read("pulse")
