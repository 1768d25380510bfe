"""The statements of one store, with its schema written into them.

A schema's name cannot be a parameter, and a search path would be state of a session, which a
pooler in transaction mode does not keep. So the quoted name stands in the text; all else is bound.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from agentmem.engines.postgres.coordination import COORDINATION_STATEMENTS
from agentmem.engines.postgres.lineage import LINEAGE_STATEMENTS
from agentmem.engines.postgres.log import COLUMNS, ENTRY, LOG_STATEMENTS
from agentmem.engines.postgres.retention_statements import RETENTION_STATEMENTS
from agentmem.engines.postgres.searching import SEARCH_STATEMENTS
from agentmem.engines.postgres.tallies import (
    TALLY_STATEMENTS,
    after_change,
    changed,
    removed,
    sealed_as,
)
from agentmem.engines.postgres.wire import Statement
from agentmem.engines.ranges import namespace_bounds, prefix_end
from agentmem.engines.rows import (
    Range,
)

__all__ = ["Statements"]

# ruff: noqa: S608  # joined from the constants of this file and a quoted name, nothing else
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# Seen directly, the length of an array makes the planner prefer a new plan for each call, which
# costs twice what the statement does (245 µs against 104 for one head).
_ARRAY: Final = re.compile(r"(\$[0-9]+::[a-z]+\[\])")
_NAMES: Final = re.compile(r"\{(?:config|s|n|x)\}")
_POSITION: Final = "revision, committed_at, hash, last_entry_id"
# By how much a commit made without asking for the time may be dated before it.
_LATE_US: Final = 20_000
_SYNCHRONOUS: Final = """set_config('synchronous_commit', CASE WHEN {} = 'off' THEN 'off'
            WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
            ELSE current_setting('synchronous_commit') END, true)"""

# LIMIT 1 keeps the planner at one look into an index a row, whatever it believes of the sizes of
# tables that were empty when the statement was prepared.
_HEAD: Final = (
    "LATERAL (SELECT "
    + ENTRY
    + """ FROM {s}.heads h JOIN {s}.entries x ON x.id = h.entry_id
        JOIN {s}.commits c ON c.revision = x.revision
        WHERE h.namespace = w.namespace AND h.key = w.key LIMIT 1) e"""
)
_NEWEST: Final = (
    "LATERAL (SELECT "
    + ENTRY
    + """ FROM {s}.entries x JOIN {s}.commits c ON c.revision = x.revision
        WHERE x.namespace = w.namespace AND x.key = w.key AND x.revision <= $1
        ORDER BY x.revision DESC LIMIT 1) e"""
)

_STATEMENTS: Final = {
    # A commit, first round trip.
    "settings": """SELECT set_config('lock_timeout', $1, true),
        set_config('idle_in_transaction_session_timeout', $2, true),
        """
    + _SYNCHRONOUS.format("$3"),
    # In a statement of its own: one that locked and read other tables would answer from before
    # the wait. The clock is asked above the CTE, so after the wait, too.
    "lock": f"""WITH locked AS MATERIALIZED (
            SELECT {_POSITION}, floor, fence, nearest FROM {{s}}.store WHERE id = 1 FOR UPDATE)
        SELECT {_POSITION}, floor, fence, nearest, {_NOW} FROM locked""",
    "heads": "SELECT "
    + COLUMNS
    + " FROM unnest($1::text[], $2::text[]) AS w(namespace, key), "
    + _HEAD,
    "operations": """SELECT w.scope, w.op_id, o.revision, o.fingerprint
        FROM unnest($1::text[], $2::text[]) AS w(scope, op_id), LATERAL (
            SELECT c.revision, r.fingerprint FROM {s}.commits c
            LEFT JOIN {s}.operation_results r ON r.revision = c.revision
            WHERE c.scope = w.scope AND c.op_id = w.op_id LIMIT 1) o""",
    # A commit, second round trip. By far the most have one entry.
    "append_one": """WITH c AS (INSERT INTO {s}.commits VALUES
            ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $30)),
        e AS (INSERT INTO {s}.entries VALUES
            ($15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)),
        h AS (INSERT INTO {s}.heads VALUES ($16, $17, $15, $19, $18)
            ON CONFLICT (namespace, key) DO UPDATE SET entry_id = excluded.entry_id,
                version = excluded.version, revision = excluded.revision)
        UPDATE {s}.store SET revision = $1, committed_at = $2, hash = $14, last_entry_id = $15
        WHERE id = 1""",
    # A whole commit in one round trip, see `ahead`. Where it waits for the lock, and another commit
    # was first, the server looks at the conditions of the row again, and does nothing.
    "append_ahead": f"""WITH settings AS MATERIALIZED (
            SELECT set_config('lock_timeout', $34, true), {_SYNCHRONOUS.format("$35")}),
        moved AS (UPDATE {{s}}.store s SET revision = $1, committed_at = $2, hash = $14,
                last_entry_id = $15, texts = s.texts + CASE WHEN $36::text IS NULL THEN 0 ELSE 1 END
                    - (SELECT COUNT(*) FROM {{s}}.texts t WHERE t.entry_id = $37::bigint)
            FROM settings WHERE s.id = 1 AND s.hash = $30 AND s.fence = $31 AND s.nearest IS NULL
                AND ($33::int = 0 OR $2 BETWEEN {_NOW} - {_LATE_US} AND {_NOW})
                AND $32::text = COALESCE((SELECT concat(h.entry_id, '/', x.expires_at)
                    FROM {{s}}.heads h JOIN {{s}}.entries x ON x.id = h.entry_id
                    WHERE h.namespace = $16 AND h.key = $17 LIMIT 1), '')
                AND ($4::text IS NULL OR NOT EXISTS (
                    SELECT 1 FROM {{s}}.commits k WHERE k.scope = $3 AND k.op_id = $4))
            RETURNING 1),
        c AS (INSERT INTO {{s}}.commits SELECT $1::bigint, $2::bigint, $3::text, $4::text, $5::text,
            $6::text, $7::text, $8::bigint, $9::bytea, $10::bigint, $11::int, $12::text,
            $13::bytea, $14::bytea, $38::int FROM moved),
        e AS (INSERT INTO {{s}}.entries SELECT $15::bigint, $16::text, $17::text, $18::bigint,
            $19::bigint, $20::int, $21::bigint, $22::text, $23::text, $24::text, $25::bigint,
            $26::bigint, $27::bigint, $28::bytea, $29::bytea FROM moved),
        h AS (INSERT INTO {{s}}.heads SELECT $16, $17, $15, $19, $18 FROM moved
            ON CONFLICT (namespace, key) DO UPDATE SET entry_id = excluded.entry_id,
                version = excluded.version, revision = excluded.revision),
        g AS (DELETE FROM {{s}}.texts
            WHERE entry_id = (SELECT $37::bigint FROM moved WHERE $37 IS NOT NULL)),
        t AS (INSERT INTO {{s}}.texts SELECT $15, $16, to_tsvector({{config}}, $36) FROM moved
            WHERE $36 IS NOT NULL)
        SELECT (SELECT COUNT(*) FROM moved), {_NOW}""",
    "append_commits": """INSERT INTO {s}.commits SELECT * FROM unnest($1::bigint[], $2::bigint[],
        $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bytea[],
        $10::bigint[], $11::int[], $12::text[], $13::bytea[], $14::bytea[], $15::int[])""",
    "append_entries": """INSERT INTO {s}.entries SELECT * FROM unnest($1::bigint[], $2::text[],
        $3::text[], $4::bigint[], $5::bigint[], $6::int[], $7::bigint[], $8::text[], $9::text[],
        $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bytea[], $15::bytea[])""",
    "append_heads": """INSERT INTO {s}.heads SELECT * FROM unnest($1::text[], $2::text[],
        $3::bigint[], $4::bigint[], $5::bigint[])
        ON CONFLICT (namespace, key) DO UPDATE SET entry_id = excluded.entry_id,
            version = excluded.version, revision = excluded.revision""",
    "move": """UPDATE {s}.store SET revision = $1, committed_at = $2, hash = $3,
        last_entry_id = $4 WHERE id = 1""",
    "append_log_marks": """INSERT INTO {s}.log_marks SELECT * FROM unnest($1::text[], $2::bigint[])
        ON CONFLICT DO NOTHING""",
    "append_results": """INSERT INTO {s}.operation_results
        SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[])""",
    "touch": """UPDATE {s}.entries x SET expires_at = w.expires_at
        FROM unnest($1::bigint[], $2::bigint[]) AS w(expires_at, id) WHERE x.id = w.id""",
    # After append_ahead, if that has committed; as reads_ahead.
    "log_marks_ahead": """INSERT INTO {s}.log_marks
        SELECT w.* FROM unnest($1::text[], $2::bigint[]) AS w, {s}.store s
        WHERE s.id = 1 AND s.hash = $3 ON CONFLICT DO NOTHING""",
    "results_ahead": """INSERT INTO {s}.operation_results
        SELECT w.* FROM unnest($1::bigint[], $2::bytea[], $3::text[]) AS w, {s}.store s
        WHERE s.id = 1 AND s.hash = $4""",
    "append_conflicts": changed(
        "conflicts",
        "false",
        """INSERT INTO {s}.conflicts (namespace, key, status, kind, strategy,
            base_version, theirs_version, ours, agent, op_id, revision, detected_at, note)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
            $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bigint[],
            $12::bigint[], $13::text[])""",
    ),
    "set_strategy": changed(
        "merge_strategies",
        "pattern = $1",
        """INSERT INTO {s}.merge_strategies (position, pattern, spec)
        VALUES ((SELECT COALESCE(MAX(position), 0) + 1 FROM {s}.merge_strategies), $1, $2)
        ON CONFLICT (pattern) DO UPDATE SET spec = excluded.spec, position = excluded.position,
            checksum = excluded.checksum""",
    ),
    "unset_strategy": removed(
        "merge_strategies", "DELETE FROM {s}.merge_strategies WHERE pattern = $1"
    ),
    "set_tag": changed(
        "tags",
        "scope = $1 AND name = $2",
        """INSERT INTO {s}.tags (scope, name, revision, created_at, agent, note)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (scope, name) DO UPDATE SET revision = excluded.revision,
            created_at = excluded.created_at, agent = excluded.agent, note = excluded.note,
            checksum = excluded.checksum""",
    ),
    "unset_tag": removed("tags", "DELETE FROM {s}.tags WHERE scope = $1 AND name = $2"),
    "resolve_conflict": changed(
        "conflicts",
        "id = $3 AND status = 'open'",
        """UPDATE {s}.conflicts t SET status = 'resolved', revision = $1, note = $2, checksum = """
        + sealed_as(
            "jsonb_build_object('status', 'resolved', 'revision', $1::bigint, 'note', $2::text)"
        )
        + " WHERE id = $3 AND status = 'open'",
    ),
    "fence": "UPDATE {s}.store SET fence = fence + 1 WHERE id = 1",
    # In a copy. The sequence goes on after the ids that were given; ids are drawn under the lock.
    "copy_conflict": after_change(
        "conflicts",
        "id = $1",
        """INSERT INTO {s}.conflicts AS t (id, namespace, key, status, kind, strategy,
            base_version, theirs_version, ours, agent, op_id, revision, detected_at, note)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, revision = excluded.revision,
            note = excluded.note, checksum = """
        + sealed_as(
            "jsonb_build_object('status', excluded.status, 'revision', excluded.revision, "
            "'note', excluded.note)"
        )
        + " RETURNING tableoid, id, checksum",
    )
    + """ SELECT setval(pg_get_serial_sequence(w.tableoid::regclass::text, 'id'),
            GREATEST(w.id, (SELECT MAX(id) FROM {s}.conflicts))) FROM written w""",
    # Indexes by pgvector, see `nearest`.
    "set_nearest": "UPDATE {s}.store SET nearest = $1 WHERE id = 1",
    "nearest_sets": "SELECT nearest FROM {s}.store",
    "nearest_settings": """SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),
        set_config('hnsw.ef_search', $1, true)""",
    # Reads.
    "position": f"SELECT {_POSITION}, {_NOW} FROM {{s}}.store WHERE id = 1",
    "floor": "SELECT floor FROM {s}.store",
    "store_id": "SELECT store_id FROM {s}.store",
    "position_at": """SELECT revision, committed_at, hash, first_entry_id + changes - 1
        FROM {s}.commits WHERE revision = $1""",
    "point_now": "SELECT s.floor, s.fence, "
    + COLUMNS
    + """ FROM (SELECT $1::text AS namespace, $2::text AS key) w CROSS JOIN {s}.store s
        LEFT JOIN """
    + _HEAD
    + " ON true",
    "point_at": "SELECT s.floor, "
    + COLUMNS
    + """ FROM (SELECT $2::text AS namespace, $3::text AS key) w CROSS JOIN {s}.store s
        LEFT JOIN """
    + _NEWEST
    + " ON true",
    # Commit times never fall, so halving finds it.
    "revision_at": """WITH RECURSIVE halves(low, high) AS (
            SELECT 0::bigint, revision FROM {s}.store WHERE id = 1
            UNION ALL SELECT CASE WHEN c.committed_at <= $1 THEN m.middle ELSE h.low END,
                CASE WHEN c.committed_at <= $1 THEN h.high ELSE m.middle - 1 END
            FROM halves h CROSS JOIN LATERAL (SELECT (h.low + h.high + 1) / 2 AS middle) m
            CROSS JOIN LATERAL (SELECT x.committed_at FROM {s}.commits x
                WHERE x.revision = m.middle LIMIT 1) c
            WHERE h.low < h.high)
        SELECT low FROM halves WHERE low = high""",
    "points": "SELECT s.floor, "
    + COLUMNS
    + """ FROM {s}.store s LEFT JOIN (
        unnest($2::text[], $3::text[]) AS w(namespace, key) CROSS JOIN """
    + _NEWEST
    + ") ON true",
    "entry_version": "SELECT "
    + ENTRY
    + """ FROM {s}.entries x JOIN {s}.commits c ON c.revision = x.revision
        WHERE x.namespace = $1 AND x.key = $2 AND x.version = $3
        ORDER BY x.revision DESC LIMIT 1""",
    "history": "SELECT "
    + ENTRY
    + """ FROM {s}.entries x JOIN {s}.commits c ON c.revision = x.revision
        WHERE x.namespace = $1 AND x.key = $2 AND x.revision > $3 AND x.revision <= $4
        ORDER BY x.revision DESC LIMIT $5""",
    "expiries": """SELECT id, expires_at FROM {s}.entries
        WHERE id > $1 AND id <= $2 AND expires_at IS NOT NULL ORDER BY id LIMIT $3""",
    "strategies": "SELECT pattern, spec, position FROM {s}.merge_strategies ORDER BY position",
    "counts": """SELECT (SELECT COUNT(*) FROM {s}.commits), (SELECT COUNT(*) FROM {s}.entries),
        (SELECT COUNT(*) FROM {s}.heads), (SELECT COUNT(*) FROM {s}.conflicts),
        (SELECT COUNT(*) FROM {s}.conflicts WHERE status = 'open'), (SELECT floor FROM {s}.store),
        (SELECT COALESCE(SUM(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
            WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r')""",
    "wrong_heads": """SELECT
        (SELECT COUNT(*) FROM {s}.heads h LEFT JOIN {s}.entries e ON e.id = h.entry_id
            WHERE e.id IS NULL OR e.namespace <> h.namespace OR e.key <> h.key
                OR e.version <> h.version OR e.revision <> h.revision)
        + (SELECT COUNT(*) FROM {s}.entries e
            LEFT JOIN {s}.heads h ON h.namespace = e.namespace AND h.key = e.key
            WHERE h.revision IS NULL OR e.revision > h.revision)
        + (SELECT COUNT(*) FROM {s}.store s LEFT JOIN {s}.commits c ON c.revision = s.revision
            WHERE s.revision <> (SELECT COALESCE(MAX(revision), 0) FROM {s}.commits)
                OR (s.revision > 0 AND (s.hash <> c.hash OR s.committed_at <> c.committed_at
                    OR s.last_entry_id <> c.first_entry_id + c.changes - 1)))""",
    # The lane.
    "take_lane": f"""INSERT INTO {{s}}.lane (id, holder, until, urgent_until)
        VALUES (1, $1, {_NOW} + $2::bigint, {_NOW} + $3::bigint)
        ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until,
            urgent_until = GREATEST(lane.urgent_until, excluded.urgent_until)
        WHERE lane.until <= {_NOW} OR lane.holder = excluded.holder""",
    "leave_lane": "UPDATE {s}.lane SET until = 0, urgent_until = 0 WHERE id = 1 AND holder = $1",
    "asked": f"SELECT urgent_until - {_NOW} FROM {{s}}.lane WHERE id = 1",
    # With what the lane asks for, so that a transaction need not go and look. Not on a replica,
    # where an unlogged table cannot be read.
    "position_and_asked": f"""SELECT {_POSITION}, floor, fence, {_NOW},
            COALESCE((SELECT urgent_until FROM {{s}}.lane WHERE id = 1), 0) - {_NOW}
        FROM {{s}}.store WHERE id = 1""",
}
BEGIN: Final = Statement("BEGIN ISOLATION LEVEL READ COMMITTED", prepared=False)
COMMIT: Final = Statement("COMMIT", prepared=False)
ROLLBACK: Final = Statement("ROLLBACK", prepared=False)


class Statements:
    """The statements of one schema, as attributes by name."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        # A name in a literal: its quotes, doubled as those of a name, are doubled once more.
        self._config = "'" + f"{schema}.words".replace("'", "''") + "'::regconfig"
        every = _STATEMENTS | LOG_STATEMENTS | LINEAGE_STATEMENTS | SEARCH_STATEMENTS
        every |= COORDINATION_STATEMENTS | RETENTION_STATEMENTS | TALLY_STATEMENTS
        self._made = {name: self._made_of(sql) for name, sql in every.items()}
        self._of_range = cache(self._range)

    def _made_of(self, sql: str) -> Statement:
        return self.named(sql, {})

    def named(self, sql: str, names: dict[str, str]) -> Statement:
        """A statement with the store's names in it, and others by what stands for them."""
        names = {"{config}": self._config, "{s}": self._schema} | names
        # In one go: a schema's name may hold what stands for it.
        named = _NAMES.sub(lambda found: names[found[0]], _ARRAY.sub(r"(SELECT \1)", sql))
        return Statement(named)

    def __getitem__(self, name: str) -> Statement:
        return self._made[name]

    def scan(
        self, within: Range, revision: int, limit: int, *, backwards: bool
    ) -> tuple[Statement, list[Any]]:
        """See `Engine.scan`; the floor stands before each row."""
        shape, values = _bounds(within, backwards=backwards)
        kind = "scan_back" if backwards else "scan"
        return self._of_range(kind, shape), [revision, *values, limit]

    def namespaces(self, within: Range, revision: int, instant: int) -> tuple[Statement, list[Any]]:
        """See `Engine.namespaces`; the floor stands before each."""
        shape, bounds = _namespace_bounds(within)
        return self._of_range("namespaces", shape), [revision, *bounds, instant]

    def changed_since(
        self, revision: int, within: Range, expired: tuple[int, int]
    ) -> tuple[Statement, list[Any]]:
        """See `Engine.changed_since`."""
        shape, bounds = _namespace_bounds(within)
        return self._of_range("changed", shape), [revision, *bounds, *expired]

    def changed_between(
        self, after: int, upto: int, within: Range, expired: tuple[int, int], limit: int
    ) -> tuple[Statement, list[Any]]:
        """See `Engine.changed_between`."""
        shape, bounds = _bounds(within)
        statement = self._of_range("changed_between", shape)
        return statement, [after, *bounds, upto, *expired, limit]

    def changed_keys(
        self, revision: int, within: Range, expired: tuple[int, int], limit: int
    ) -> tuple[Statement, list[Any]]:
        """See `Engine.changed_keys`."""
        shape, bounds = _bounds(within)
        return self._of_range("changed_keys", shape), [revision, *bounds, *expired, limit]

    def _range(self, kind: str, shape: tuple[str, ...]) -> Statement:
        """The text for the bounds that are given: the planner can use no others."""
        number = 2
        conditions = []
        for bound in shape:
            condition = _CONDITIONS[bound]
            for _each in range(condition.count("?")):
                condition = condition.replace("?", f"${number}", 1)
                number += 1
            conditions.append(condition)
        where = " AND ".join(conditions)
        sql = _RANGES[kind].replace("{newest}", _NEWEST).replace("{columns}", COLUMNS)
        sql = sql.replace("{where}", where).replace("{bare}", where.replace("w.", ""))
        for index, name in enumerate(("{next}", "{last}", "{third}", "{fourth}")):
            sql = sql.replace(name, f"${number + index}")
        # A namespace has an end as $3, or none.
        sql = sql.replace("{upto}", "AND namespace < $3" if "end" in shape else "")
        return self._made_of(sql)


_RANGES: Final = {
    "scan": """SELECT s.floor, {columns} FROM {s}.store s CROSS JOIN {s}.heads w
        CROSS JOIN {newest} WHERE {where} ORDER BY w.namespace, w.key LIMIT {next}""",
    "scan_back": """SELECT s.floor, {columns} FROM {s}.store s CROSS JOIN {s}.heads w
        CROSS JOIN {newest} WHERE {where} ORDER BY w.namespace DESC, w.key DESC LIMIT {next}""",
    # From one namespace to the next, not from key to key. A plain EXISTS would be taken apart by
    # the planner, which then reads all keys (600 ms for 200,000 against 8).
    "namespaces": """WITH RECURSIVE n(namespace) AS (
            (SELECT namespace FROM {s}.heads WHERE {bare} ORDER BY namespace LIMIT 1)
            UNION ALL SELECT (SELECT h.namespace FROM {s}.heads h
                WHERE h.namespace > n.namespace {upto} ORDER BY h.namespace LIMIT 1)
            FROM n WHERE n.namespace IS NOT NULL)
        SELECT s.floor, n.namespace FROM {s}.store s CROSS JOIN n
        WHERE n.namespace IS NOT NULL AND (
            SELECT 1 FROM {s}.heads w CROSS JOIN {newest}
            WHERE w.namespace = n.namespace AND e.value IS NOT NULL
                AND (e.expires_at IS NULL OR e.expires_at > {next}) LIMIT 1) IS NOT NULL
        ORDER BY n.namespace""",
    # It runs under the store's lock. Materialized, and with the end of the ids, because the planner
    # would go by the namespace and read all of it (20 to 50 ms for 200,000 entries against 0.2).
    "changed": """WITH changed AS MATERIALIZED (SELECT namespace, key FROM {s}.entries
            WHERE id > COALESCE((SELECT first_entry_id + changes - 1 FROM {s}.commits
                    WHERE revision = $1), 0)
                AND id <= (SELECT last_entry_id FROM {s}.store WHERE id = 1)),
        expired AS MATERIALIZED (SELECT namespace, key FROM {s}.entries
            WHERE expires_at > {next} AND expires_at <= {last})
        SELECT namespace, key FROM changed WHERE {bare}
        UNION SELECT namespace, key FROM expired WHERE {bare}""",
    "changed_between": """WITH changed AS MATERIALIZED (SELECT namespace, key FROM {s}.entries
            WHERE id > $1 AND id <= {next}),
        expired AS MATERIALIZED (SELECT namespace, key FROM {s}.entries
            WHERE expires_at > {last} AND expires_at <= {third})
        SELECT namespace, key FROM changed w WHERE {where}
        UNION SELECT namespace, key FROM expired w WHERE {where}
        ORDER BY namespace, key LIMIT {fourth}""",
    "changed_keys": """SELECT w.namespace, w.key FROM {s}.heads w WHERE {where}
        AND (w.revision > $1 OR EXISTS (SELECT 1 FROM {s}.entries e WHERE e.id = w.entry_id
            AND e.expires_at > {next} AND e.expires_at <= {last} OFFSET 0))
        ORDER BY w.namespace, w.key LIMIT {third}""",
}
_CONDITIONS: Final = {
    "start": "w.namespace >= ?",
    "end": "w.namespace < ?",
    "after": "(w.namespace, w.key) > (?, ?)",
    "upto": "(w.namespace, w.key) <= (?, ?)",
    "before": "(w.namespace, w.key) < (?, ?)",
    "downto": "(w.namespace, w.key) >= (?, ?)",
    "key_start": "w.key >= ?",
    "key_end": "w.key < ?",
}


def _namespace_bounds(within: Range) -> tuple[tuple[str, ...], list[str]]:
    start, end = namespace_bounds(within.namespace)
    return (("start",), [start]) if end is None else (("start", "end"), [start, end])


def _bounds(within: Range, *, backwards: bool = False) -> tuple[tuple[str, ...], list[Any]]:
    start, end = namespace_bounds(within.namespace)
    shape, values = ["start"], [start]
    if end is not None:
        shape.append("end")
        values.append(end)
    names = ("before", "downto") if backwards else ("after", "upto")
    for name, place in zip(names, (within.after, within.upto), strict=True):
        if place is not None:
            shape.append(name)
            values += place
    if within.key_prefix:
        shape.append("key_start")
        values.append(within.key_prefix)
        if (key_end := prefix_end(within.key_prefix)) is not None:
            shape.append("key_end")
            values.append(key_end)
    return tuple(shape), values
