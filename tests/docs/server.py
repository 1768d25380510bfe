"""The server that documents call ``db.example.com``: one of the wheel, emptied for each of them.

It has a database ``memory``, and the programs of PostgreSQL (``psql``, ``pg_dump``) are on PATH.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.postgres_server import Server

__all__ = ["HOSTS", "DocumentServer", "document_server"]

HOSTS = ("db.example.com", "replica.example.com")
"""Names for it. A server may be its own replica: it has replayed whatever it has."""


@dataclass(frozen=True, slots=True)
class DocumentServer:
    """Where the hosts of a document are.

    Attributes:
        folder: of its socket, which stands for a host in a URL.
        programs: the folder of ``psql`` and its like.
    """

    folder: str
    programs: str

    def reached(self, text: str) -> str:
        """A block of a document, with the hosts where they are."""
        for host in HOSTS:
            text = text.replace(host, quote(self.folder, safe=""))
        return text

    def shown(self, text: str) -> str:
        """What was printed, as the document prints it."""
        for place in (self.folder, quote(self.folder, safe="")):
            text = text.replace(place, HOSTS[0])
        return text


@cache
def _server() -> Server:
    return Server()


@contextmanager
def document_server() -> Iterator[DocumentServer]:
    """The server, with an empty database, and as before at the end."""
    server = _server()
    folder = psycopg.conninfo.conninfo_to_dict(server.url)["host"]
    _run(server, "CREATE DATABASE memory")
    try:
        yield DocumentServer(str(folder), str(server._server.bin_path))
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            found = connection.execute("SELECT rolname FROM pg_roles WHERE NOT rolsuper").fetchall()
        roles = [role for (role,) in found if not role.startswith("pg_")]
        _run(server, "DROP DATABASE memory WITH (FORCE)")
        for role in roles:
            _run(server, "DROP ROLE {}", role)


def _run(server: Server, statement: str, *names: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]  # a text of this file
