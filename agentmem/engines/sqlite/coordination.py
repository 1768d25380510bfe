"""The tables of coordination on SQLite: see `agentmem.coordination`."""

from __future__ import annotations

from typing import Final

from agentmem.engines.rows import (
    Answer,
    Look,
    Moment,
)
from agentmem.engines.sqlite.driver import driver

__all__ = ["CHANGES", "HAS_MARK", "answer"]

# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
_TASK: Final = """id, scope, queue, state, priority, task_group, payload, op_id, put_by, put_at,
    attempts, max_attempts, token, agent, epoch, ready_at, note"""
_FIRST: Final = "ORDER BY priority DESC, id LIMIT 1)"
_OF_QUEUE: Final = "SELECT * FROM (SELECT id, priority FROM tasks WHERE scope = ?1 AND queue = ?2"

HAS_MARK: Final = "SELECT 1 FROM batch_marks WHERE attempt = ?"
_LOOKS: Final = {
    "number": "SELECT COALESCE(MAX(number), 0) FROM batch_marks",
    "has_batch_mark": HAS_MARK,
    # The grant, if there is one, then those who wait, in order.
    "lease": """
        SELECT 0, token, agent, granted_at, epoch, expires_at FROM leases
        WHERE scope = ?1 AND name = ?2
        UNION ALL
        SELECT 1, ticket, agent, since, epoch, until FROM lease_waiters
        WHERE scope = ?1 AND name = ?2
        ORDER BY 1, 2 LIMIT 100
    """,
    "leases": """
        SELECT scope, name, token, agent, granted_at, epoch, expires_at,
            (SELECT COUNT(*) FROM lease_waiters w WHERE w.scope = l.scope AND w.name = l.name)
        FROM leases l WHERE ?1 IS NULL OR scope = ?1 ORDER BY scope, name
    """,
    "task_operation": """
        SELECT task_id, fingerprint FROM task_operations
        WHERE scope = ? AND queue = ? AND op_id = ?
    """,
    "claim_operation": f"""
        SELECT {_TASK} FROM tasks WHERE scope = ? AND queue = ? AND claim_op_id = ?
    """,
    # Each part goes by an index to its end; those of another epoch are few.
    "next_task": f"""
        SELECT {_TASK} FROM tasks WHERE id = (SELECT id FROM (
            {_OF_QUEUE} AND state = 0 {_FIRST}
            UNION ALL {_OF_QUEUE} AND state = 1 AND epoch = ?3 AND ready_at <= ?4 {_FIRST}
            UNION ALL {_OF_QUEUE} AND state = 1 AND epoch < ?3
                AND (due_at IS NULL OR due_at <= ?5) {_FIRST}
            UNION ALL {_OF_QUEUE} AND state = 1 AND epoch > ?3
                AND (due_at IS NULL OR due_at <= ?5) {_FIRST}
        {_FIRST})
    """,
    "task_due": """
        SELECT MIN(ready_at) FROM tasks
        WHERE scope = ? AND queue = ? AND state = 1 AND epoch = ?
    """,
    "task": f"SELECT {_TASK} FROM tasks WHERE id = ?",
    "tasks": f"""
        SELECT {_TASK} FROM tasks WHERE scope = ? AND queue = ? AND state < 3
        ORDER BY priority DESC, id LIMIT ? + 0
    """,
    "dead_tasks": f"""
        SELECT {_TASK} FROM tasks WHERE scope = ? AND queue = ? AND state = 3
        ORDER BY id LIMIT ? + 0
    """,
    "task_count": "SELECT COUNT(*) FROM tasks WHERE scope = ? AND queue = ? AND state < 3",
    "queues": """
        SELECT scope, queue, state, state = 1 AND token IS NOT NULL,
            state = 1 AND (epoch <> ?2 AND (due_at IS NULL OR due_at <= ?4)
                OR epoch = ?2 AND ready_at <= ?3), COUNT(*)
        FROM tasks WHERE ?1 IS NULL OR scope = ?1 GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2
    """,
    "once": """
        SELECT token, agent, started_at, epoch, until, result, expires_at FROM once_records
        WHERE scope = ? AND id = ?
    """,
    "cursor": "SELECT revision, hash FROM cursors WHERE scope = ? AND name = ?",
    "cursors": """
        SELECT scope, name, revision, moved_at FROM cursors
        WHERE ?1 IS NULL OR scope = ?1 ORDER BY scope, name
    """,
    "hash_at": "SELECT hash FROM commits WHERE revision = ?",
}
_TIMED: Final = ("next_task", "queues")  # epoch, moment and time of day are added

# Of a new task: behind the others of its group, or from a moment on, or at once.
_STATE: Final = """
    CASE WHEN {group} IS NOT NULL AND EXISTS (SELECT 1 FROM tasks g WHERE g.scope = {scope}
            AND g.queue = {queue} AND g.task_group = {group} AND g.state < 3) THEN 2
        WHEN {ready_at} IS NULL THEN 0 ELSE 1 END
"""
CHANGES: Final = {
    "add_batch_mark": "INSERT INTO batch_marks (number, attempt) VALUES (:number, :attempt)",
    "prune_batch_marks": "DELETE FROM batch_marks WHERE number < :below",
    "grant_lease": """
        INSERT INTO leases (scope, name, token, agent, granted_at, epoch, expires_at)
        VALUES (:scope, :name, :token, :agent, :granted_at, :epoch, :expires_at)
        ON CONFLICT (scope, name) DO UPDATE SET token = excluded.token, agent = excluded.agent,
            granted_at = excluded.granted_at, epoch = excluded.epoch,
            expires_at = excluded.expires_at
    """,
    "renew_lease": """
        UPDATE leases SET epoch = :epoch, expires_at = :expires_at
        WHERE scope = :scope AND name = :name
    """,
    "end_lease": "DELETE FROM leases WHERE scope = :scope AND name = :name",
    "join_line": """
        INSERT INTO lease_waiters (ticket, scope, name, agent, since, epoch, until)
        VALUES (:ticket, :scope, :name, :agent, :since, :epoch, :until)
    """,
    "stay_in_line": """
        UPDATE lease_waiters SET epoch = :epoch, until = :until WHERE ticket = :ticket
    """,
    "leave_line": "DELETE FROM lease_waiters WHERE ticket = :ticket",
    "put_task": """
        INSERT INTO tasks (id, scope, queue, state, priority, task_group, payload, op_id, put_by,
            put_at, attempts, max_attempts, epoch, ready_at, due_at)
        VALUES (:id, :scope, :queue, """
    + _STATE.format(group=":task_group", scope=":scope", queue=":queue", ready_at=":ready_at")
    + """, :priority, :task_group, :payload, :op_id, :put_by, :put_at, 0, :max_attempts,
            :epoch, :ready_at, :due_at)
    """,
    "note_operation": """
        INSERT INTO task_operations (scope, queue, op_id, task_id, fingerprint)
        VALUES (:scope, :queue, :op_id, :task_id, :fingerprint)
    """,
    "claim_task": """
        UPDATE tasks SET state = 1, attempts = attempts + 1, token = :token, agent = :agent,
            claim_op_id = :op_id, epoch = :epoch, ready_at = :ready_at, due_at = NULL
        WHERE id = :id
    """,
    "forget_claim": "UPDATE tasks SET claim_op_id = NULL WHERE id = :id",
    "extend_task": "UPDATE tasks SET epoch = :epoch, ready_at = :ready_at WHERE id = :id",
    "give_task_back": """
        UPDATE tasks SET state = CASE WHEN :ready_at IS NULL THEN 0 ELSE 1 END, token = NULL,
            claim_op_id = NULL, epoch = :epoch, ready_at = :ready_at, due_at = :due_at,
            note = :note
        WHERE id = :id
    """,
    "bury_task": """
        UPDATE tasks SET state = 3, token = NULL, claim_op_id = NULL, epoch = NULL,
            ready_at = NULL, due_at = NULL, note = COALESCE(:note, note)
        WHERE id = :id
    """,
    "end_task": "DELETE FROM tasks WHERE id = :id",
    "open_group": """
        UPDATE tasks SET state = CASE WHEN ready_at IS NULL THEN 0 ELSE 1 END
        WHERE id = (SELECT MIN(id) FROM tasks WHERE scope = :scope AND queue = :queue
            AND task_group = :task_group AND state < 3)
    """,
    "revive_task": "UPDATE tasks SET id = :new_id, attempts = 0, note = NULL, state = "
    + _STATE.format(
        group="task_group", scope="tasks.scope", queue="tasks.queue", ready_at="ready_at"
    )
    + "WHERE id = :id",
    "begin_once": """
        INSERT INTO once_records (scope, id, token, agent, started_at, epoch, until)
        VALUES (:scope, :id, :token, :agent, :started_at, :epoch, :until)
        ON CONFLICT (scope, id) DO UPDATE SET token = excluded.token, agent = excluded.agent,
            started_at = excluded.started_at, epoch = excluded.epoch, until = excluded.until,
            result = NULL, expires_at = NULL
    """,
    "stay_once": """
        UPDATE once_records SET epoch = :epoch, until = :until WHERE scope = :scope AND id = :id
    """,
    "end_once": """
        UPDATE once_records SET result = :result, expires_at = :expires_at
        WHERE scope = :scope AND id = :id
    """,
    "forget_once": "DELETE FROM once_records WHERE scope = :scope AND id = :id",
    "set_cursor": """
        INSERT INTO cursors (scope, name, revision, hash, moved_at)
        VALUES (:scope, :name, :revision, :hash, :moved_at)
        ON CONFLICT (scope, name) DO UPDATE SET revision = excluded.revision,
            hash = excluded.hash, moved_at = excluded.moved_at
    """,
    "forget_cursor": "DELETE FROM cursors WHERE scope = :scope AND name = :name",
}


def answer(
    executes: driver.Connection | driver.Cursor, look: Look, moment: Moment, now: int
) -> Answer:
    """The rows that a look finds.

    Args:
        moment, now: the clock of what runs out, and the time of day.
    """
    values = (*look.values, *moment, now) if look.name in _TIMED else look.values
    return executes.execute(_LOOKS[look.name], values).fetchall()
