"""Reading the log on PostgreSQL: commits, and the records beside them."""

from __future__ import annotations

from typing import Final

__all__ = ["COLUMNS", "ENTRY", "LOG_STATEMENTS"]

# ruff: noqa: S608  # joined from the constants of this file, nothing else
ENTRY: Final = """
x.id, x.namespace, x.key, x.version, x.revision, x.operation, x.base_version, x.merged, x.value,
x.text, x.created_at, x.expires_at, c.agent, c.op_id, c.committed_at
"""
COLUMNS: Final = """
e.id, e.namespace, e.key, e.version, e.revision, e.operation, e.base_version, e.merged, e.value,
e.text, e.created_at, e.expires_at, e.agent, e.op_id, e.committed_at
"""
_COMMIT: Final = """
SELECT c.revision, c.committed_at, c.scope, c.op_id, c.agent, c.note, c.metadata, c.base_revision,
    c.attempt, c.first_entry_id, c.changes, c.accepted, c.digests, c.hash, c.beside, r.fingerprint,
    r.result
FROM {s}.commits c LEFT JOIN {s}.operation_results r ON r.revision = c.revision
"""
# Of a namespace the entries of the commit are looked at; `|| ''` keeps the planner away from an
# index of all that is in the namespace.
_WANTED: Final = """
SELECT c.*, r.fingerprint, r.result
FROM unnest($1::bigint[], $2::bigint[]) AS w(after, upto) CROSS JOIN LATERAL (
    SELECT * FROM {s}.commits c WHERE c.revision > w.after AND c.revision <= w.upto
        AND ($3::text IS NULL OR c.agent = $3)
        AND ($4::text IS NULL OR c.scope = $6 OR (SELECT 1 FROM {s}.entries e
            WHERE e.id >= c.first_entry_id AND e.id < c.first_entry_id + c.changes
            AND e.namespace || '' >= $4 AND ($5::text IS NULL OR e.namespace || '' < $5)
            LIMIT 1) = 1)
        AND NOT EXISTS (SELECT 1 FROM unnest($7::text[]) AS t(part)
            WHERE strpos(COALESCE(c.metadata, ''), t.part) = 0)
    ORDER BY {order} LIMIT $8) c
LEFT JOIN {s}.operation_results r ON r.revision = c.revision ORDER BY {order} LIMIT $8
"""

LOG_STATEMENTS: Final = {
    "commits_up": _COMMIT
    + "WHERE c.revision > $1 AND c.revision <= $2 ORDER BY c.revision LIMIT $3",
    "commits_down": _COMMIT
    + "WHERE c.revision > $1 AND c.revision <= $2 ORDER BY c.revision DESC LIMIT $3",
    "commits_in_up": _WANTED.replace("{order}", "c.revision"),
    "commits_in_down": _WANTED.replace("{order}", "c.revision DESC"),
    # The planner cannot know how long a span is. It takes one for a two-hundredth of the table,
    # which it would rather sort than read in order up to the limit, and compile the statement for.
    "in_order": """SELECT set_config('enable_bitmapscan', 'off', true),
        set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),
        set_config('jit', 'off', true)""",
    "blocks_up": """SELECT block FROM {s}.log_marks WHERE name = $1 AND block >= $2
        ORDER BY block LIMIT $3""",
    "blocks_down": """SELECT block FROM {s}.log_marks WHERE name = $1 AND block <= $2
        ORDER BY block DESC LIMIT $3""",
    "marked_after": "SELECT marked_after FROM {s}.store WHERE id = 1",
    "unmarked": """SELECT w.name, w.block FROM unnest($1::text[], $2::bigint[]) AS w(name, block)
        WHERE NOT EXISTS (SELECT 1 FROM {s}.log_marks m WHERE m.name = w.name COLLATE "C"
            AND m.block = w.block LIMIT 1)""",
    "commit_of_operation": _COMMIT + "WHERE c.scope = $1 AND c.op_id = $2",
    "commit_of_attempt": _COMMIT + "WHERE c.revision = $1 AND c.attempt = $2",
    "commit_entries": "SELECT "
    + COLUMNS
    + " FROM unnest($1::bigint[], $2::bigint[]) AS w(first, past), LATERAL (SELECT "
    + ENTRY
    + """ FROM {s}.entries x JOIN {s}.commits c ON c.revision = x.revision
        WHERE x.id >= w.first AND x.id < w.past
        ORDER BY x.id LIMIT w.past - w.first) e ORDER BY e.id""",
    "chain_entries": """SELECT id, namespace, key, revision, version, operation, base_version,
            merged, value, text, ttl_us, expires_at, created_at, salt, digest
        FROM {s}.entries WHERE id >= $1 AND id < $2 ORDER BY id""",
    "tags": """SELECT scope, name, revision, created_at, agent, note FROM {s}.tags
        WHERE scope = $1 ORDER BY name""",
    "all_tags": """SELECT scope, name, revision, created_at, agent, note FROM {s}.tags
        ORDER BY scope, name""",
    "conflicts": """SELECT id, namespace, key, status, kind, strategy, base_version,
            theirs_version, ours, agent, op_id, revision, detected_at, note FROM {s}.conflicts
        WHERE ($1::text IS NULL OR status = $1) AND id > $2 ORDER BY id LIMIT $3""",
    "conflict": """SELECT id, namespace, key, status, kind, strategy, base_version,
            theirs_version, ours, agent, op_id, revision, detected_at, note FROM {s}.conflicts
        WHERE id = $1""",
}
