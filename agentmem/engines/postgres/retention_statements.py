"""The statements of retention on PostgreSQL; see `statements` for how they are written."""

from __future__ import annotations

from typing import Final

from agentmem.engines.postgres.tallies import changed, more, sealed_as

__all__ = ["RETENTION_CHANGES", "RETENTION_STATEMENTS"]

RETENTION_CHANGES: Final = {
    "begin_purge": ("namespace", "key", "revision", "purged_at", "agent", "note"),
    "widen_purge": ("revision", "id"),
    "finish_purge": ("namespace", "key"),
    "erase_entries": ("ids",),
    "erase_vectors": ("ids",),
    "erase_pending": ("ids",),
    "erase_results": ("revisions",),
    "erase_conflicts": ("ids",),
    "erase_scan": ("scan", "revision", "position"),
    "raise_floor": ("floor",),
    "drop_entries": ("ids",),
    "drop_reads": ("revisions",),
    "drop_results": ("revisions",),
}
_HOLDS: Final = "(value IS NOT NULL OR text IS NOT NULL OR (salt IS NOT NULL AND operation <> 2))"
_ERASED: Final = "CASE WHEN fingerprint IS NULL THEN NULL ELSE ''::bytea END"
_SETTLED: Final = "CASE WHEN status = 'open' THEN 'resolved' ELSE status END"
# ruff: noqa: S608  # joined from the constants of this file, nothing else
RETENTION_STATEMENTS: Final = {
    "begin_purge": changed(
        "purges",
        "false",
        """INSERT INTO {s}.purges (namespace, key, revision, purged_at, agent, note,
            finished) VALUES ($1, $2, $3, $4, $5, $6, 0)""",
    ),
    "widen_purge": changed(
        "purges",
        "id = $2",
        "UPDATE {s}.purges t SET revision = GREATEST(revision, $1), checksum = "
        + sealed_as("jsonb_build_object('revision', GREATEST(revision, $1))")
        + " WHERE id = $2",
    ),
    "finish_purge": changed(
        "purges",
        "namespace = $1 AND key IS NOT DISTINCT FROM $2",
        "UPDATE {s}.purges t SET finished = 1, checksum = "
        + sealed_as("jsonb_build_object('finished', 1)")
        + " WHERE namespace = $1 AND key IS NOT DISTINCT FROM $2",
    ),
    "erase_entries": """UPDATE {s}.entries SET value = NULL, text = NULL, salt = NULL
        WHERE id = ANY(($1::bigint[])::bigint[]) AND operation <> 2""",
    "erase_vectors": more(
        "vectors",
        """DELETE FROM {s}.vectors WHERE id = ANY(ARRAY(
        SELECT (s.id::bigint << 40) + w.id FROM {s}.vector_sets s
        CROSS JOIN unnest($1::bigint[]) AS w(id)))""",
        "-",
    ),
    "erase_pending": more(
        "pending_vectors",
        """DELETE FROM {s}.pending_vectors
        WHERE entry_id = ANY(($1::bigint[])::bigint[])""",
        "-",
    ),
    "erase_results": f"""UPDATE {{s}}.operation_results t SET result = NULL,
            fingerprint = {_ERASED}, checksum = """
    + sealed_as(f"jsonb_build_object('result', NULL, 'fingerprint', {_ERASED})")
    + """ WHERE revision = ANY(($1::bigint[])::bigint[])
            AND (length(fingerprint) > 0 OR result IS NOT NULL)""",
    "erase_conflicts": changed(
        "conflicts",
        "id = ANY(($1::bigint[])::bigint[])",
        f"UPDATE {{s}}.conflicts t SET ours = NULL, status = {_SETTLED}, checksum = "
        + sealed_as(f"jsonb_build_object('ours', NULL, 'status', {_SETTLED})")
        + " WHERE id = ANY(($1::bigint[])::bigint[])",
    ),
    "erase_scan": "UPDATE {s}.reads t SET scan = $1, checksum = "
    + sealed_as("jsonb_build_object('scan', $1::text)")
    + " WHERE revision = $2 AND position = $3",
    "raise_floor": """UPDATE {s}.store SET floor = GREATEST(floor, LEAST($1::bigint,
        COALESCE((SELECT MIN(revision) FROM {s}.tags), $1::bigint))) WHERE id = 1""",
    "drop_entries": "DELETE FROM {s}.entries WHERE id = ANY(($1::bigint[])::bigint[])",
    "drop_reads": """DELETE FROM {s}.reads WHERE revision = ANY(ARRAY(
        SELECT w.revision FROM unnest($1::bigint[]) AS w(revision) CROSS JOIN LATERAL (
            SELECT * FROM {s}.commits x WHERE x.revision = w.revision LIMIT 1) c
        WHERE (SELECT 1 FROM {s}.entries e WHERE e.id >= c.first_entry_id
            AND e.id < c.first_entry_id + c.changes LIMIT 1) IS NULL))""",
    "drop_results": "UPDATE {s}.operation_results t SET result = NULL, checksum = "
    + sealed_as("""'{"result": null}'""")
    + """ WHERE revision = ANY(($1::bigint[])::bigint[]) AND result IS NOT NULL""",
    # Reads.
    "expired": """SELECT e.namespace, e.key FROM {s}.entries e
        CROSS JOIN LATERAL (SELECT h.entry_id FROM {s}.heads h
            WHERE h.namespace = e.namespace AND h.key = e.key LIMIT 1) h
        WHERE e.expires_at <= $1 AND e.value IS NOT NULL AND h.entry_id = e.id
            AND (e.namespace, e.key) > ($2::text, $3::text)
        ORDER BY e.namespace, e.key LIMIT $4""",
    "superseded": """SELECT e.id, e.revision FROM {s}.entries e
        CROSS JOIN LATERAL (SELECT h.version FROM {s}.heads h
            WHERE h.namespace = e.namespace AND h.key = e.key LIMIT 1) h
        WHERE e.id > $1 AND e.id <= $2 AND h.version - e.version >= $4
            AND (SELECT 1 FROM {s}.entries n WHERE n.namespace = e.namespace AND n.key = e.key
                AND n.revision > e.revision AND n.revision <= $3 LIMIT 1) IS NOT NULL
        ORDER BY e.id""",
    "purges": """SELECT id, namespace, key, revision, purged_at, agent, note, finished
        FROM {s}.purges ORDER BY id""",
    "results": """SELECT revision, result FROM {s}.operation_results
        WHERE revision > $1 AND result IS NOT NULL ORDER BY revision LIMIT $2""",
    "erasable_key": f"""SELECT id, revision, value FROM {{s}}.entries
        WHERE namespace = $1 AND key = $2 AND revision <= $3 AND id > $4 AND {_HOLDS}
        ORDER BY revision LIMIT $5""",
    # || '' keeps the planner at the order of the ids, whatever it believes of the sizes.
    "erasable_below": f"""SELECT id, revision, value FROM {{s}}.entries
        WHERE id > $4 AND namespace || '' >= $1 AND ($2::text IS NULL OR namespace || '' < $2)
            AND revision <= $3 AND {_HOLDS} ORDER BY id LIMIT $5""",
}
