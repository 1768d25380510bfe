"""How many rows the tables beside the log have, and which: statements that keep count.

See `agentmem.engines.sqlite.tallies`, which does the same on a file. Here each statement that
changes rows changes the tally, too, in one: a statement has one view of the tables, so what is
looked for beside the change is found as it was before.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "TALLY_STATEMENTS",
    "adds_one",
    "after_change",
    "changed",
    "more",
    "removed",
    "sealed_as",
]

# ruff: noqa: S608  # the statements are joined from constants of this package, nothing else
# Their rows have checksums, which the server makes where they are inserted.
_SEALED: Final = (
    "operation_results",
    "reads",
    "conflicts",
    "tags",
    "merge_strategies",
    "purges",
    "vector_sets",
    "vector_spaces",
)
_BESIDE_COMMITS: Final = ("operation_results", "reads")
_COUNTED: Final = (
    "vectors", "pending_vectors", "tasks", "task_operations", "once_records", "cursors",
)  # fmt: skip
_MOVE: Final = """UPDATE {s}.tallies SET row_count = row_count
        + (SELECT COUNT(*) FROM written) - (SELECT COUNT(*) FROM before),
    seal = seal # COALESCE((SELECT bit_xor({s}.seal_of(w.checksum)) FROM (
        SELECT checksum FROM before UNION ALL SELECT checksum FROM written) w), 0)"""


def sealed_as(change: str) -> str:
    """The checksum of a row ``t`` that an UPDATE changes.

    Args:
        change: SQL of a JSON object with the columns that change.
    """
    return "{s}.checksum_of(to_jsonb(t) || " + change + ")"


def after_change(table: str, where: str, statement: str) -> str:
    """CTEs of a statement that writes rows of a table with checksums, and changes its tally.

    Args:
        where: finds those of its rows that were there before.
        statement: returns ``checksum`` of each row as it is now, and what else is wanted.
    """
    return (
        f"WITH before AS MATERIALIZED (SELECT checksum FROM {{s}}.{table} WHERE {where}),"
        f" written AS ({statement}), moved AS ({_MOVE} WHERE name = '{table}')"
    )


def changed(table: str, where: str, statement: str) -> str:
    """The same as a whole statement; it is said to change one row, or none if it writes none."""
    return (
        f"WITH before AS MATERIALIZED (SELECT checksum FROM {{s}}.{table} WHERE {where}),"
        f" written AS ({statement} RETURNING checksum)"
        f" {_MOVE} WHERE name = '{table}' AND EXISTS (SELECT 1 FROM written)"
    )


def removed(table: str, statement: str) -> str:
    """A DELETE from a table with checksums; it is said to change one row, or none."""
    return (
        f"WITH before AS ({statement} RETURNING checksum),"
        " written AS (SELECT checksum FROM before WHERE false)"
        f" {_MOVE} WHERE name = '{table}' AND EXISTS (SELECT 1 FROM before)"
    )


def more(table: str, statement: str, sign: str = "+") -> str:
    """A statement that adds rows to a table that is only counted; or removes them, with ``-``."""
    return (
        f"WITH w AS ({statement} RETURNING 1) UPDATE {{s}}.tallies"
        f" SET row_count = row_count {sign} (SELECT COUNT(*) FROM w)"
        f" WHERE name = '{table}' AND EXISTS (SELECT 1 FROM w)"
    )


def adds_one(table: str, where: str, statement: str) -> str:
    """A statement that adds the row that ``where`` finds, or changes it where it is there."""
    return (
        f"WITH w AS ({statement}) UPDATE {{s}}.tallies SET row_count = row_count + 1"
        f" WHERE name = '{table}' AND NOT EXISTS (SELECT 1 FROM {{s}}.{table} WHERE {where})"
    )


TALLY_STATEMENTS: Final = {
    "changed_rows": " UNION ALL ".join(
        f"SELECT '{table}', COUNT(*) FROM {{s}}.{table} t "
        "WHERE t.checksum IS DISTINCT FROM {s}.checksum_of(to_jsonb(t))"
        for table in _SEALED
    ),
    "wrong_tallies": "SELECT f.name, f.row_count, t.row_count FROM ("
    + " UNION ALL ".join(
        [
            f"SELECT '{table}' AS name, COUNT(*) AS row_count,"
            f" COALESCE(bit_xor({{s}}.seal_of(checksum)), 0) AS seal FROM {{s}}.{table}"
            for table in _SEALED
            if table not in _BESIDE_COMMITS
        ]
        + [f"SELECT '{table}', COUNT(*), 0 FROM {{s}}.{table}" for table in _COUNTED]
    )
    + """) f FULL JOIN {s}.tallies t ON t.name = f.name COLLATE "C"
        WHERE t.row_count IS DISTINCT FROM f.row_count OR t.seal IS DISTINCT FROM f.seal""",
    "strays": """SELECT COUNT(*) FROM {s}.entries e
        WHERE e.id < 1 OR e.id > (SELECT last_entry_id FROM {s}.store WHERE id = 1)""",
    "beside": """SELECT revision, COUNT(*) * 2 FROM {s}.reads
            WHERE revision > $1 AND revision <= $2 GROUP BY revision
        UNION ALL SELECT revision, 1 FROM {s}.operation_results
            WHERE revision > $1 AND revision <= $2""",
}
