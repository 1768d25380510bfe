"""Targets of stores on a server, and raw access to them behind agentmem's back."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from tests.postgres_server import new_name

__all__ = ["raw", "run", "target"]


def target(url: str, store: str | None = None, **options: object) -> str:
    """The target of a store; its name and the options are encoded as a URL wants it."""
    given = {"store": new_name() if store is None else store} | options
    query = urlencode(given, quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{query}"


def raw(url: str, store: str) -> psycopg.Connection[Any]:
    """A connection whose unqualified names are the store's tables."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(store)))
    return connection


def run(url: str, *statements: str) -> None:
    """Runs statements, each in a transaction of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]  # a test's own text
