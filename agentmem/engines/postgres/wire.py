"""Statements sent to the server many at a time: libpq's pipeline mode, by psycopg's `pq`.

psycopg's own cursors could do it, too, and cost twice what the server takes for a commit (966 µs
against 550, where a bare insert takes 310): ten waits for the socket a commit, and a search for
adapters for each value. Here the statements are fixed, their values are text, numbers and bytes,
and the socket is waited for once a round trip.

A run ends in one Sync: what was sent is on its way before anybody waits, and a cut link cannot
leave a lock behind that the server would not let go by its own timeouts.
"""

from __future__ import annotations

import hashlib
import select
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from agentmem.engines.postgres.failures import LostError, ServerError

__all__ = ["Rows", "Statement", "Wire"]

A = TypeVar("A")
R = TypeVar("R")

_NAME_BYTES: Final = 8
_WAIT_MS: Final = 1_000  # between looks at a socket that says nothing


class Statement:
    """One statement, with ``$1`` for its first parameter.

    Attributes:
        sql: the text.
        name: under which a connection prepares it; empty for what is not worth it.
    """

    __slots__ = ("name", "sql")

    def __init__(self, sql: str, *, prepared: bool = True) -> None:
        self.sql = sql.encode()
        digest = hashlib.blake2b(self.sql, digest_size=_NAME_BYTES).hexdigest()
        self.name = f"agentmem_{digest}".encode() if prepared else b""


class Rows(list[tuple[Any, ...]]):
    """What a statement returned.

    Attributes:
        changed: how many rows it changed.
        tag: the command's tag, as ``COMMIT``.
    """

    changed = 0
    tag = ""


class Wire:
    """One connection, as the engine talks to it. Used by one thread at a time."""

    __slots__ = ("_connection", "_pq", "_prepared", "_reader", "prepares")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pq: Any = connection.pgconn  # its types are those of a compiled module
        self._reader: Any = None  # a Transformer, made with the first row that is read
        # What was prepared is known where it is: on the connection, which has many wires.
        found: set[bytes] = connection.__dict__.setdefault("prepared", set())
        self._prepared = found
        self.prepares = True

    def run(self, batch: Sequence[tuple[Statement, Sequence[Any]]]) -> list[Rows]:
        """Sends all statements, then waits for all results.

        Raises:
            ServerError: the first that failed; those after it were not done.
            LostError: the connection is gone; it is closed.
        """
        return self._safely(self._run, batch)

    def glance(self, statement: Statement) -> tuple[bytes | None, ...]:
        """The first row of one statement without parameters, as the server spells it; or none.

        It costs about half of `run`, for what is asked for again and again.

        Raises:
            ServerError: it failed.
            LostError: the connection is gone; it is closed.
        """
        if self.prepares and statement.name not in self._prepared:
            self.run([(statement, ())])
        return self._safely(self._glance, statement)

    def _glance(self, statement: Statement) -> tuple[bytes | None, ...]:
        link = self._pq
        if self.prepares:
            link.send_query_prepared(statement.name, None)
        else:
            link.send_query_params(statement.sql, None)
        poll = _sent(link)
        row: tuple[bytes | None, ...] = ()
        failure: ServerError | None = None
        while (result := _next_result(link, poll)) is not None:
            if result.status != pq.ExecStatus.TUPLES_OK:
                failure = _failure(result)
            elif result.ntuples:
                row = tuple([result.get_value(0, column) for column in range(result.nfields)])
        if link.status == pq.ConnStatus.BAD:
            raise LostError(str(failure or "the server closed the connection"))
        if failure is not None:
            raise failure
        return row

    def _safely(self, call: Callable[[A], R], argument: A) -> R:
        try:
            return call(argument)
        except ServerError:
            raise
        except psycopg.Error as error:
            self._connection.close()
            raise LostError(str(error).strip() or "it was closed") from error
        except BaseException:
            # Struck in the middle: nobody knows where its answers begin.
            self._connection.close()
            raise

    def _run(self, batch: Sequence[tuple[Statement, Sequence[Any]]]) -> list[Rows]:
        link = self._pq
        link.enter_pipeline_mode()
        new: list[bytes] = []
        expected: list[bool] = []  # whether an answer is to be given back
        for statement, values in batch:
            texts = [None if value is None else _text(value) for value in values]
            name = statement.name
            if not (name and self.prepares):
                link.send_query_params(statement.sql, texts)
            else:
                if name not in self._prepared:
                    link.send_prepare(name, statement.sql)
                    expected.append(False)
                    new.append(name)
                    self._prepared.add(name)
                link.send_query_prepared(name, texts)
            expected.append(True)
        link.pipeline_sync()
        results, failure = self._answers(expected)
        link.exit_pipeline_mode()
        if failure is not None:
            self._prepared.difference_update(new)
            if failure.not_prepared:
                self._prepared.clear()
            raise failure
        return results

    def _answers(self, expected: list[bool]) -> tuple[list[Rows], ServerError | None]:
        link = self._pq
        poll = _sent(link)
        results: list[Rows] = []
        failure: ServerError | None = None
        seen = 0
        while True:
            result = _next_result(link, poll)
            if result is None:
                continue
            status = result.status
            if status == pq.ExecStatus.PIPELINE_SYNC:
                return results, failure
            if status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                if expected[seen]:
                    results.append(self._rows(result))
                seen += 1
            elif status != pq.ExecStatus.PIPELINE_ABORTED and failure is None:
                failure = _failure(result)
            if link.status == pq.ConnStatus.BAD:
                raise LostError(str(failure or "the server closed the connection"))

    def _rows(self, result: Any) -> Rows:
        rows = Rows()
        rows.changed = result.command_tuples or 0
        rows.tag = (result.command_status or b"").decode()
        if result.ntuples:
            if self._reader is None:
                self._reader = Transformer(self._connection)
            self._reader.set_pgresult(result, set_loaders=True)
            rows.extend(self._reader.load_rows(0, result.ntuples, tuple))
        return rows

    def close(self) -> None:
        """Ends the connection; an open transaction is rolled back by the server."""
        self._connection.close()

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """For the pool."""
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, aborted or not."""
        return bool(self._pq.transaction_status != pq.TransactionStatus.IDLE)


def _sent(link: Any) -> select.poll:
    """Sends what waits to be sent. Returns what to wait with for the answers."""
    poll = select.poll()
    if link.flush():
        poll.register(link.socket, select.POLLIN | select.POLLOUT)
        while link.flush():
            poll.poll(_WAIT_MS)
            link.consume_input()
    poll.register(link.socket, select.POLLIN)
    return poll


def _next_result(link: Any, poll: select.poll) -> Any:
    """The next result; None at the end of those of a statement."""
    while link.is_busy():
        poll.poll(_WAIT_MS)
        link.consume_input()
    return link.get_result()


def _failure(result: Any) -> ServerError:
    field = result.error_field
    code = (field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message or b"").decode(
        errors="replace"
    )
    return ServerError(code, message)


def _text(value: Any) -> bytes:
    """A parameter as the server reads it."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return b"{" + b",".join(map(_element, value)) + b"}"


def _element(value: Any) -> bytes:
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"%d" % value
    return b'"' + _text(value).replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
