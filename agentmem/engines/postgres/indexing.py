"""Makes the index of a set of vectors, see `nearest`, while others commit.

All of it is one transaction, so that nothing is left of one that fails or is killed. Nobody knows
the table before it is committed, so what is slow keeps nobody waiting; only what was written
meanwhile is brought in under the store's lock::

    copy the vectors as of r7    index them    copy r8, r9    lock; copy r10; announce; COMMIT
    ... r8 ...  r9 ...                         ... r10 ...    (who commits waits)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from agentmem.engines.postgres.engine import PostgresReads
from agentmem.engines.postgres.failures import LostError, ServerError, translated
from agentmem.engines.postgres.migrate import connected, use_schema
from agentmem.engines.postgres.nearest import noted, registered, texts
from agentmem.engines.postgres.statements import Statements
from agentmem.engines.postgres.target import Target
from agentmem.engines.postgres.wire import Rows, Statement, Wire
from agentmem.engines.rows import (
    Position,
    Range,
    VectorRow,
    VectorSet,
)
from agentmem.errors import StoreBusyError

__all__ = ["build"]

_MAX_DIMENSION: Final = 2_000  # of what pgvector indexes as `vector`
_OLDEST: Final = (0, 8)  # goes on where a filter leaves too few
_PAGE: Final = 2_000  # vectors that are copied at once
_ALL: Final = Range("")
_ALONE: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('agentmem nearest ' || %s, 0))"
_EXTENSION: Final = (
    "SELECT n.nspname, e.extversion FROM pg_extension e "
    "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
)
_TABLES: Final = (
    "SELECT c.relname, EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid "
    "AND a.attname = 'vector' AND NOT a.attisdropped) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %s AND c.relname ~ '^nearest_[0-9]+$' AND c.relkind = 'r'"
)
_OWNER: Final = (
    "SELECT pg_get_userbyid(c.relowner) FROM pg_class c "
    "WHERE c.oid = 'vectors'::regclass AND c.relowner <> current_user::regrole"
)
_RIGHTS: Final = (
    "SELECT COALESCE(r.rolname, ''), a.privilege_type FROM pg_class c "
    "CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee "
    "WHERE c.oid = 'vectors'::regclass AND a.grantee <> c.relowner "
    "AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')"
)

_log = logging.getLogger("agentmem")


def build(target: Target, statements: Statements, vector_set: VectorSet, timeout_ms: int) -> bool:
    """See `Engine.build_nearest`."""
    if vector_set.dimension > _MAX_DIMENSION:
        return False
    with connected(target, timeout_ms) as connection:
        extension = _extension(connection)
        if extension is None or connection.execute(_ALONE, (target.store,)).fetchone() != (True,):
            return False
        use_schema(connection, target)
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(timeout_ms),))
        reads = PostgresReads(target, statements, _OneConnection(connection, target))
        building = _Building(connection, target, reads, vector_set, extension)
        if building.is_there():
            return True
        building.prepare()
        end = building.fill()
        building.index()
        building.announce(end, timeout_ms)
    return True


def _extension(connection: psycopg.Connection[Any]) -> str | None:
    """The schema of pgvector, which is made if that is allowed; None: there is none."""
    found = connection.execute(_EXTENSION).fetchone()
    if found is None:
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            _log.info("no index by pgvector: %s", error)
        found = connection.execute(_EXTENSION).fetchone()
    if found is None:
        return None
    schema, version = found
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        _log.info("no index by pgvector: 0.8 is the oldest that will do, and it is %s", version)
        return None
    return str(schema)


class _OneConnection:
    """Reads in the transaction that builds: those of a pool may all wait for its lock."""

    def __init__(self, connection: psycopg.Connection[Any], target: Target) -> None:
        self._wire = Wire(connection)
        self._wire.prepares = False
        self._place = target.location

    def read(self, statement: Statement, values: Sequence[Any] = ()) -> Rows:
        """What the statement returns."""
        try:
            return self._wire.run([(statement, values)])[0]
        except (ServerError, LostError) as error:
            raise translated(error, self._place) from error


class _Building:
    """The making of one index, in one transaction."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        target: Target,
        reads: PostgresReads,
        vector_set: VectorSet,
        extension: str,
    ) -> None:
        self._connection = connection
        self._target = target
        self._reads = reads
        self._set = vector_set
        self._extension = extension
        self._table = sql.Identifier(target.store, f"nearest_{vector_set.id}")

    def _run(self, text: str, *values: Any, **names: sql.Composable) -> psycopg.Cursor[Any]:
        named = {"table": self._table, "extension": sql.Identifier(self._extension)} | names
        return self._connection.execute(sql.SQL(text).format(**named), values)

    def _registered(self) -> dict[int, str]:
        """The sets whose index is announced, and whole."""
        row = self._run("SELECT nearest FROM store WHERE id = 1").fetchone()
        whole = dict(self._run(_TABLES, self._target.store).fetchall())
        known = registered(row[0] if row is not None else None)
        return {id: schema for id, schema in known.items() if whole.get(f"nearest_{id}")}

    def is_there(self) -> bool:
        """Whether there is nothing to do."""
        return self._registered().get(self._set.id) == self._extension

    def prepare(self) -> None:
        """Makes the empty table; drops those that nobody keeps any more."""
        kept = self._registered().keys() - {self._set.id}
        for name, _whole in self._run(_TABLES, self._target.store).fetchall():
            if int(name.removeprefix("nearest_")) not in kept:
                old = sql.Identifier(self._target.store, name)
                self._run("DROP TABLE {old}", old=old)
        self._run(
            "CREATE TABLE {table} (entry_id bigint PRIMARY KEY, "
            'namespace text COLLATE "C" NOT NULL, vector {extension}.vector({dimension}) NOT NULL)',
            dimension=sql.Literal(self._set.dimension),
        )
        # Nor into the server's catalog, where no purge could reach them.
        self._run("ALTER TABLE {table} ALTER COLUMN vector SET STATISTICS 0")
        # Whoever builds it: who writes vectors must be able to write it.
        for (owner,) in self._run(_OWNER).fetchall():
            self._run("ALTER TABLE {table} OWNER TO {owner}", owner=sql.Identifier(owner))
        for role, right in self._run(_RIGHTS).fetchall():
            whom = sql.Identifier(role) if role else sql.SQL("PUBLIC")
            self._run("GRANT {right} ON {table} TO {whom}", right=sql.SQL(right), whom=whom)

    def fill(self) -> Position:
        """Copies what is current; returns the commit as of which it is there."""
        end = self._reads.position()
        after = 0
        while page := self._reads.vector_rows(self._set.id, _ALL, after, end, _PAGE):
            self._copy(page)
            after = page[-1].entry_id
        return end

    def _copy(self, rows: list[VectorRow]) -> None:
        new = [row for row in rows if row.until is None and row.vector is not None]
        if not new:
            return
        written = texts([row.vector for row in new if row.vector is not None])
        statement = sql.SQL("COPY {table} FROM STDIN").format(table=self._table)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row, vector in zip(new, written, strict=True):
                copy.write_row((row.entry_id, row.namespace, vector))

    def index(self) -> None:
        """What takes long."""
        self._run("CREATE INDEX ON {table} USING hnsw (vector {extension}.vector_cosine_ops)")
        self._run("ANALYZE {table}")

    def announce(self, end: Position, timeout_ms: int) -> None:
        """Brings in what was written meanwhile; from then on every commit does it."""
        end = self._follow(end)
        try:
            self._run("SELECT 1 FROM store WHERE id = 1 FOR UPDATE")
        except psycopg.errors.LockNotAvailable as error:
            raise StoreBusyError(
                f"another process held the lock of {self._target.location} for {timeout_ms} ms; "
                "nothing was kept of the index: run it again",
                waited_ms=timeout_ms,
            ) from error
        self._follow(end)
        known = self._registered() | {self._set.id: self._extension}
        self._run("UPDATE store SET nearest = %s WHERE id = 1", noted(known))

    def _follow(self, since: Position) -> Position:
        end = self._reads.position()
        changes = self._reads.vector_changes(self._set.id, _ALL, since, end)
        gone = [row.previous for row in changes if row.previous is not None]
        late = [row.entry_id for row in changes]
        # Those that are brought in again, as well.
        self._run("DELETE FROM {table} WHERE entry_id = ANY(%s)", [*gone, *late])
        self._copy(changes)
        return end
