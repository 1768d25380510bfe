"""Erasing on PostgreSQL: rows, and what the server's files keep of rows that are gone.

A changed row leaves its old version in its page until a vacuum, and that leaves its bytes until
something else is written there. So a purge ends with ``VACUUM FULL`` of the tables that held
values, which writes each anew, with its indexes, from the rows that there are. Row versions that
an open transaction could still see it would take along, so those are waited for first.

What it cannot reach: the server's write-ahead log and its archive, base backups, replicas that
are behind, snapshots of the file system, the server's own log if that is told to show parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from agentmem.engines.postgres.failures import ServerError, translated
from agentmem.engines.postgres.migrate import connected
from agentmem.engines.postgres.target import Target
from agentmem.errors import StorageError, StoreBusyError

__all__ = ["scrub"]

# Those that hold values, or what was made of them.
_TABLES: Final = ("entries", "vectors", "texts", "operation_results", "reads", "conflicts")
_NEAREST: Final = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %s AND c.relname ~ '^nearest_[0-9]+$' AND c.relkind = 'r'"
)
_OWNERS: Final = (
    "SELECT c.relname, pg_get_userbyid(c.relowner) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s "
    "AND c.relname = ANY(%s) AND c.relkind = 'r' AND NOT pg_has_role(c.relowner, 'USAGE')"
)
_LATEST: Final = "SELECT pg_current_xact_id()::xid::text"
# Whose snapshot is not after that transaction, so that it could see rows from before.
_OLDER: Final = """
SELECT 'the session with pid ' || a.pid || ' (' || COALESCE(NULLIF(a.application_name, ''),
        a.backend_type) || ')'
    FROM pg_stat_activity a
    WHERE a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
        AND (a.datid IS NULL OR a.datid = 0
            OR a.datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND (age(a.backend_xmin) >= age(%(latest)s::text::xid)
            OR age(a.backend_xid) >= age(%(latest)s::text::xid))
UNION ALL SELECT 'the replication slot ' || s.slot_name FROM pg_replication_slots s
    WHERE age(s.xmin) >= age(%(latest)s::text::xid)
UNION ALL SELECT 'the prepared transaction ' || p.gid FROM pg_prepared_xacts p
    WHERE p.database = current_database() AND age(p.transaction) >= age(%(latest)s::text::xid)
"""
_LOOK_S: Final = 0.02


def scrub(target: Target, timeout_ms: int, told: Callable[[int, int], None]) -> bool:
    """See `Engine.scrub`."""
    with connected(target, timeout_ms) as connection:
        _check_owner(connection, target)
        dropped = _drop_nearest(connection, target, timeout_ms)
    with connected(target, timeout_ms) as connection:
        # A transaction of its own: what it has made is over before anybody is waited for.
        row = connection.execute(_LATEST).fetchone()
    assert row is not None, "a SELECT without FROM returns a row"
    try:
        with psycopg.connect(
            target.conninfo, **target.defaults, autocommit=True, prepare_threshold=None
        ) as connection:
            _wait_for_readers(connection, target, row[0], timeout_ms)
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{timeout_ms}ms",))
            for done, table in enumerate(_TABLES):
                told(done, len(_TABLES))
                name = sql.Identifier(target.store, table)
                connection.execute(sql.SQL("VACUUM (FULL) {}").format(name))
            connection.execute("CHECKPOINT") if _may_checkpoint(connection) else None
            told(len(_TABLES), len(_TABLES))
            return dropped
    except psycopg.errors.LockNotAvailable as error:
        raise StoreBusyError(
            f"another session used the tables of {target.location} for {timeout_ms} ms, so they "
            "could not be written anew: run it again",
            waited_ms=timeout_ms,
        ) from error
    except psycopg.Error as error:
        code = error.sqlstate
        if code is None:
            raise StorageError(
                f"the connection to {target.location} was lost while tables were written anew; "
                "run it again"
            ) from error
        raise translated(ServerError(code, str(error)), target.location) from error


def _check_owner(connection: psycopg.Connection[Any], target: Target) -> None:
    """Raises unless the role may write the tables anew: VACUUM would only warn, and pass over."""
    others = connection.execute(_OWNERS, (target.store, list(_TABLES))).fetchall()
    if others:
        table, owner = others[0]
        raise StorageError(
            f"this role may not write the table {table} of {target.location} anew, which keeps "
            f"bytes of what was erased: run it again as {owner}, who owns it"
        )


def _drop_nearest(connection: psycopg.Connection[Any], target: Target, timeout_ms: int) -> bool:
    """Takes away the indexes by pgvector, which are derived; says whether there were any."""
    names = [name for (name,) in connection.execute(_NEAREST, (target.store,)).fetchall()]
    if not names:
        return False
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{timeout_ms}ms",))
    store = sql.Identifier(target.store, "store")
    update: LiteralString = "UPDATE {} SET nearest = NULL, fence = fence + 1 WHERE id = 1"
    connection.execute(sql.SQL(update).format(store))
    for name in names:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(target.store, name)))
    return True


def _wait_for_readers(
    connection: psycopg.Connection[Any], target: Target, latest: str, timeout_ms: int
) -> None:
    deadline = time.monotonic() + timeout_ms / 1_000
    while older := connection.execute(_OLDER, {"latest": latest}).fetchall():
        if time.monotonic() > deadline:
            raise StoreBusyError(
                f"{older[0][0]} of {target.location} can still read what was erased, so the "
                "server must keep it: end it, and run it again",
                waited_ms=timeout_ms,
            )
        time.sleep(_LOOK_S)


def _may_checkpoint(connection: psycopg.Connection[Any]) -> bool:
    """Whether the role may; without it, old files go at the server's next checkpoint."""
    row = connection.execute(
        "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    return row == (True,)
