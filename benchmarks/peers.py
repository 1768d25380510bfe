"""What agentmem is compared with, where it is installed: started, and ended, for one benchmark.

Each peer is set up to keep what it acknowledged when the power fails, as agentmem does by default.
"""

from __future__ import annotations

import base64
import http.client
import importlib
import json
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.report import MissingPeerError
from benchmarks.server import Server, connect, settle

__all__ = [
    "Counter",
    "agentmem_saver",
    "etcd_counter",
    "fill_langgraph",
    "langgraph_postgres_store",
    "langgraph_saver",
    "langgraph_store",
    "redis_counters",
    "zodb_counters",
]

_START_TIMEOUT_S: Final = 30.0
_REQUEST_TIMEOUT_S: Final = 30.0


class Counter:
    """A counter that many threads increment at once.

    Attributes:
        increment: adds one, in any thread; tries again until it is done.
        value: what was counted.
    """

    def __init__(self, increment: Callable[[], object], value: Callable[[], int]) -> None:
        self.increment = increment
        self.value = value

    def step(self, number: int) -> object:
        """`increment`, for a thread with a number."""
        return self.increment()


def _module(name: str, distribution: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPeerError(f"pip install {distribution}") from None


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingPeerError(f"there is no {name} on the PATH")
    return path


@contextmanager
def langgraph_store(path: str, *, tuned: bool = False) -> Iterator[Any]:
    """LangGraph's store on SQLite.

    Args:
        tuned: with a write-ahead log that is synced at each commit, which is not its default.
    """
    module = _module("langgraph.store.sqlite", "langgraph-checkpoint-sqlite")
    if not tuned:
        with module.SqliteStore.from_conn_string(path) as store:
            store.setup()
            yield store
        return
    # The same arguments as from_conn_string has.
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    with closing(connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        store = module.SqliteStore(connection)
        store.setup()
        yield store


@contextmanager
def langgraph_saver(path: str) -> Iterator[Any]:
    """LangGraph's checkpointer on SQLite, as it comes: WAL, and synced at each commit."""
    module = _module("langgraph.checkpoint.sqlite", "langgraph-checkpoint-sqlite")
    with module.SqliteSaver.from_conn_string(path) as saver:
        saver.setup()
        yield saver


@contextmanager
def agentmem_saver(path: str) -> Iterator[Any]:
    """agentmem's checkpointer, which needs LangGraph, too."""
    _module("langgraph.checkpoint.base", "langgraph-checkpoint")
    with _module("langgraph_agentmem", "agentmem-store").AgentMemSaver(path) as saver:
        yield saver


@contextmanager
def langgraph_postgres_store(server: Server, *, pool: int | None = None) -> Iterator[Any]:
    """LangGraph's store on PostgreSQL, in a schema of its own.

    Args:
        pool: so many connections, in place of the one that it has as it comes.
    """
    module = _module("langgraph.store.postgres", "langgraph-checkpoint-postgres")
    schema = server.new_schema()
    with connect(server.url) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    if pool is None:
        with module.PostgresStore.from_conn_string(server.url) as store:
            settle(store.conn, schema)
            store.setup()
            yield store
        return
    config = {
        "min_size": pool,
        "max_size": pool,
        "configure": lambda connection: settle(connection, schema),
    }
    with module.PostgresStore.from_conn_string(server.url, pool_config=config) as store:
        store.setup()
        yield store


def fill_langgraph(store: Any, namespace: str, items: Mapping[str, Any]) -> None:
    """Puts many items in one batch: one by one takes long, with no write-ahead log."""
    put = _module("langgraph.store.base", "langgraph-checkpoint").PutOp
    store.batch([put((namespace,), key, value) for key, value in items.items()])


@contextmanager
def zodb_counters(folder: Path) -> Iterator[tuple[Counter, Counter]]:
    """ZODB on a FileStorage: a plain object, and a `BTrees.Length`, which merges conflicts."""
    zodb = _module("ZODB", "ZODB")
    conflict_error = _module("ZODB.POSException", "ZODB").ConflictError
    transaction = _module("transaction", "ZODB")
    length = _module("BTrees.Length", "ZODB").Length
    mapping = _module("persistent.mapping", "ZODB").PersistentMapping
    database = zodb.DB(str(folder / "zodb.fs"), pool_size=64)
    local = threading.local()

    def root() -> Any:
        if not hasattr(local, "root"):
            local.manager = transaction.TransactionManager()
            local.root = database.open(local.manager).root()
        return local.root

    def increment(change: Callable[[Any], None]) -> None:
        counted = root()
        while True:
            local.manager.begin()
            try:
                change(counted)
                local.manager.commit()
            except conflict_error:
                local.manager.abort()
            else:
                return

    def set_up(counted: Any) -> None:
        counted["plain"], counted["length"] = mapping(n=0), length()

    def add_plain(counted: Any) -> None:
        counted["plain"]["n"] += 1

    def add_length(counted: Any) -> None:
        counted["length"].change(1)

    def value(of: Callable[[Any], int]) -> int:
        local.manager.begin()
        return of(root())

    try:
        increment(set_up)
        yield (
            Counter(
                lambda: increment(add_plain), lambda: value(lambda counted: counted["plain"]["n"])
            ),
            Counter(
                lambda: increment(add_length), lambda: value(lambda counted: counted["length"]())
            ),
        )
    finally:
        database.close()


@contextmanager
def _server(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], ready: Callable[[], object], error: Any) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            ready()
        except error:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def redis_counters(folder: Path) -> Iterator[tuple[Counter, Counter]]:
    """Redis with a log that is synced at each write: by WATCH, GET, SET, and by INCR."""
    redis = _module("redis", "redis")
    program = _program("redis-server")
    path = str(folder / "redis.sock")
    settings = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    place = ("--port", "0", "--unixsocket", path, "--dir", str(folder))
    with _server(program, *place, *settings) as process:
        client = redis.Redis(unix_socket_path=path)
        _wait_for(process, client.ping, (redis.ConnectionError, FileNotFoundError))

        def change(pipe: Any) -> None:
            number = int(pipe.get("watched") or 0)
            pipe.multi()
            pipe.set("watched", number + 1)

        yield (
            Counter(
                lambda: client.transaction(change, "watched"), lambda: int(client.get("watched"))
            ),
            Counter(lambda: client.incr("added"), lambda: int(client.get("added"))),
        )
        client.close()


@contextmanager
def etcd_counter(folder: Path) -> Iterator[Counter]:
    """One etcd, by its JSON gateway, a connection a thread: range, then a compared put."""
    program = _program("etcd")
    port, peer_port = _free_port(), _free_port()
    address, peer_address = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command = (
        *(program, "--data-dir", str(folder / "etcd"), "--name", "one"),
        *("--listen-client-urls", address, "--advertise-client-urls", address),
        *("--listen-peer-urls", peer_address, "--initial-advertise-peer-urls", peer_address),
        *("--initial-cluster", f"one={peer_address}"),
    )
    with _server(*command) as process:
        local = threading.local()

        def call(path: str, request: dict[str, Any]) -> Any:
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection(
                    "127.0.0.1", port, timeout=_REQUEST_TIMEOUT_S
                )
            try:
                local.connection.request("POST", path, json.dumps(request))
                response = local.connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                local.connection.close()
                raise
            if response.status != http.client.OK:
                raise http.client.HTTPException(body.decode(errors="replace"))
            return json.loads(body)

        _wait_for(
            process,
            lambda: call("/v3/kv/range", {"key": _KEY}),
            (OSError, http.client.HTTPException),
        )
        yield _etcd(call)


_KEY: Final = base64.b64encode(b"counter").decode()


def _etcd(call: Callable[[str, dict[str, Any]], Any]) -> Counter:
    def read() -> tuple[int, str]:
        return found(call("/v3/kv/range", {"key": _KEY}))

    def found(answer: Any) -> tuple[int, str]:
        if not answer.get("kvs"):
            return 0, "0"
        (row,) = answer["kvs"]
        return int(base64.b64decode(row["value"])), row["mod_revision"]

    def increment() -> None:
        number, revision = read()
        while True:
            value = base64.b64encode(str(number + 1).encode()).decode()
            compared = {"key": _KEY, "target": "MOD", "mod_revision": revision}
            answer = call(
                "/v3/kv/txn",
                {
                    "compare": [compared],
                    "success": [{"requestPut": {"key": _KEY, "value": value}}],
                    "failure": [{"requestRange": {"key": _KEY}}],
                },
            )
            if answer.get("succeeded"):
                return
            number, revision = found(answer["responses"][0]["response_range"])

    return Counter(increment, lambda: read()[0])


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
