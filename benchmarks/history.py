"""Pages of the log and of a key's history on both engines; how fast the command line starts.

At scale 1 the log has 1,000,000 commits. They go into it as a copy does, a thousand in one database
transaction, which takes a minute or two.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import agentmem
from agentmem.engines.rows import (
    EntryRow,
    Place,
)
from agentmem.marks import Marker
from agentmem.namespaces import encode
from agentmem.operations import PUT
from agentmem.request import BLIND, Request, Write
from agentmem.scope import root_scope
from agentmem.tail import Outcome, Tail
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import postgres_server
from benchmarks.timing import Bench, Samples, interleave, require

__all__ = ["BENCHMARKS"]

_COMMITS: Final = 1_000_000
_BATCH: Final = 1_000
_PAGE: Final = 50
_KEYS: Final = 10_000
_AGENTS: Final = 8
_TEAMS: Final = 20
_RARE: Final = 50_000  # one commit in so many is by the auditor, in a namespace of its own
_RUN: Final = 500  # commits that share a field of their metadata
_VERSIONS: Final = 10_000
_KEYS_AT_ONCE: Final = 100
_TIMEOUT_MS: Final = 60_000


def _commits(bench: Bench) -> int:
    return max(2 * _BATCH, round(_COMMITS * bench.scale))


def load(store: agentmem.Store, count: int, progress: Callable[[float], None]) -> None:
    """Fills an empty store with so many commits, each of which writes one key."""
    engine, scope = store._core.engine, root_scope(agentmem.Limits(), None)
    heads: dict[Place, EntryRow | None] = {}
    marker = Marker()
    done = 0
    while done < count:
        session = engine.session()
        try:
            start = session.enter(_TIMEOUT_MS, (), ())
            marker.begin(start.position.revision)
            tail = Tail(start.position, marker)
            for number in range(done, min(done + _BATCH, count)):
                _append(tail, scope, number, heads)
            session.append(tail.rows)
            session.commit()
        finally:
            session.rollback()
            session.release()
        done += _BATCH
        progress(done / count)


def _append(tail: Tail, scope: Any, number: int, heads: dict[Place, EntryRow | None]) -> None:
    rare = number % _RARE == _RARE // 2
    agent = "auditor" if rare else f"agent{number % _AGENTS}"
    labels = ("incidents",) if rare else ("team", f"t{number % _TEAMS:02}")
    place = (encode(labels), f"k{number % _KEYS:05}")
    metadata = f'{{"run":"r{number // _RUN}","step":{number}}}'
    request = Request(scope, f"op{number}", agent, tail.revision, 0, metadata=metadata)
    request.writes[place] = Write(PUT, str(number), base=BLIND)
    written = [(place, Outcome(PUT, str(number), None, None))]
    (heads[place],) = tail.append(request, written, {place: heads.get(place)})


def _sides(store: agentmem.Store, count: int) -> dict[str, Callable[[int], object]]:
    """A first page by each filter."""
    first = store.log(oldest_first=True, limit=1)[0].committed_at
    last = store.log(limit=1)[0].committed_at
    assert first is not None
    assert last is not None
    middle = first + (last - first) / 2
    alone = store.scoped("incidents")
    run = f"r{count // _RUN // 3}"
    return {
        "log": lambda _number: store.log(limit=_PAGE),
        "log-oldest": lambda _number: store.log(limit=_PAGE, oldest_first=True),
        "log-agent": lambda _number: store.log(agent="agent3", limit=_PAGE),
        "log-agent-rare": lambda _number: store.log(agent="auditor", limit=_PAGE),
        "log-agent-none": lambda _number: store.log(agent="nobody", limit=_PAGE),
        "log-namespace": lambda _number: store.log("team/t07", limit=_PAGE),
        "log-namespace-rare": lambda _number: store.log("incidents", limit=_PAGE),
        "log-scoped": lambda _number: alone.log(limit=_PAGE),
        "log-time": lambda _number: store.log(until=middle, limit=_PAGE),
        "log-op-id": lambda number: store.log(op_id=f"op{number * 997 % count}", limit=_PAGE),
        "log-metadata": lambda _number: store.log(metadata={"run": run}, limit=_PAGE),
        "log-where": lambda _number: store.log(where={"step": count // 3}, limit=_PAGE),
        "log-two": lambda _number: store.log(
            "team", agent="agent3", metadata={"run": run}, limit=_PAGE
        ),
    }


def _log(store: agentmem.Store, bench: Bench) -> dict[str, Samples]:
    count = _commits(bench)
    load(store, count, bench.progress)
    sides = _sides(store, count)
    rare = len([n for n in range(count) if n % _RARE == _RARE // 2])
    require(len(store.log(agent="auditor")) == rare, "commits of the auditor are missing")
    require(len(store.log("incidents")) == rare, "commits of the rare namespace are missing")
    require(len(store.log(metadata={"run": "r1"})) == _RUN, "commits of a run are missing")
    require([c.op_id for c in store.log(where={"step": 5})] == ["op5"], "a step is missing")
    return interleave(bench, 50, sides)


def _milliseconds(samples: Samples) -> Figure:
    return Figure(samples.median, None, "s", samples.median * 1_000, "ms", len(samples.seconds))


def _log_page(bench: Bench) -> Mapping[str, Figure]:
    with agentmem.open(bench.path("log.db"), embedder=None, durability="relaxed") as store:
        samples = _log(store, bench)
    return {name: _milliseconds(each) for name, each in samples.items()}


def _log_page_postgres(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(
            agentmem.open(server.new_store(), embedder=None, durability="relaxed")
        )
        samples = _log(store, bench)
    return {f"pg-{name}": _milliseconds(each) for name, each in samples.items()}


def _history(store: agentmem.Store, bench: Bench) -> dict[str, Samples]:
    versions = max(200, round(_VERSIONS * bench.scale))
    for start in range(0, versions, _KEYS_AT_ONCE):
        # Between its versions other keys are written, as they are in a store.
        for number in range(start, min(start + _KEYS_AT_ONCE, versions)):
            store.put("k", {"n": number, "same": 0}, overwrite=True)
        store.put_many({f"other{number}": start for number in range(_KEYS_AT_ONCE)})
    middle = store.history("k", limit=versions // 2)[-1].revision
    require(len(store.history("k")) == versions, "versions are missing")
    wanted = list(range(versions, versions - _PAGE, -1))
    require([each.version for each in store.history("k", limit=_PAGE)] == wanted, "a wrong page")
    setters = {each.path: each.version for each in store.audit.blame("k")}
    require(setters == {"$.n": versions, "$.same": 1}, f"blame finds {setters}")
    found = interleave(
        bench,
        200,
        {
            "history-page": lambda _number: _values(store.history("k", limit=_PAGE)),
            "history-deep": lambda _number: _values(store.history("k", upto=middle, limit=_PAGE)),
        },
    )
    return found | interleave(bench, 5, {"blame-all": lambda _number: store.audit.blame("k")})


def _values(entries: list[agentmem.Entry[Any]]) -> list[Any]:
    return [entry.value for entry in entries]


def _history_page(bench: Bench) -> Mapping[str, Figure]:
    with agentmem.open(bench.path("history.db"), embedder=None, durability="relaxed") as store:
        samples = _history(store, bench)
    return {name: _milliseconds(each) for name, each in samples.items()}


def _history_page_postgres(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(
            agentmem.open(server.new_store(), embedder=None, durability="relaxed")
        )
        samples = _history(store, bench)
    return {f"pg-{name}": _milliseconds(each) for name, each in samples.items()}


# The command line, as whole processes.


def _cli_startup(bench: Bench) -> Mapping[str, Figure]:
    path = bench.path("cli.db")
    with agentmem.open(path, embedder=None, durability="relaxed") as store:
        load(store, 2 * _BATCH, bench.progress)

    def python(*arguments: str) -> None:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        require(done.returncode == 0, f"{arguments} ended with {done.returncode}")

    program = ("-m", "agentmem")
    samples = interleave(
        bench,
        15,
        {
            "python": lambda _number: python("-c", "pass"),
            "cli-import": lambda _number: python("-c", "import agentmem"),
            "cli-help": lambda _number: python(*program, "--help"),
            "cli-log": lambda _number: python(*program, "log", "--limit", "20", "--store", path),
        },
    )
    return {name: _seconds(samples[name], samples["python"]) for name in _STARTS}


def _seconds(ours: Samples, python: Samples) -> Figure:
    return Figure(ours.median, python.median, "s", ours.median, "s", len(ours.seconds))


_SIDES: Final = {
    "log": "log, newest 50 of 1,000,000 commits",
    "log-oldest": "log, oldest 50",
    "log-agent": "log of an agent with 125,000 commits",
    "log-agent-rare": "log of an agent with 20 commits",
    "log-agent-none": "log of an agent that never committed",
    "log-namespace": "log of a namespace with 50,000 commits",
    "log-namespace-rare": "log of a namespace with 20 commits",
    "log-scoped": "log of a scoped view with 20 commits",
    "log-time": "log before a time in the middle",
    "log-op-id": "log of an operation",
    "log-metadata": "log by a field of metadata, 500 commits",
    "log-where": "log by a filter that one commit passes",
    "log-two": "log by agent, namespace and metadata",
}


def _lines(prefix: str) -> tuple[Line, ...]:
    return tuple(Line(prefix + name, ours, "", Goal("<=", 20)) for name, ours in _SIDES.items())


def _history_lines(prefix: str) -> tuple[Line, ...]:
    return (
        Line(f"{prefix}history-page", "history, newest 50 of 10,000 versions", "", Goal("<=", 5)),
        Line(f"{prefix}history-deep", "history, 50 from the middle on", "", Goal("<=", 5)),
        Line(f"{prefix}blame-all", "blame, one path set by version 1", ""),
    )


_STARTS: Final = {
    "cli-import": Line("cli-import", "a process: import agentmem", "python -c pass"),
    "cli-help": Line("cli-help", "a process: agentmem --help", "python -c pass", Goal("<=", 0.35)),
    "cli-log": Line("cli-log", "a process: agentmem log", "python -c pass", Goal("<=", 0.5)),
}

BENCHMARKS: Final = (
    Benchmark("history-page", _history_lines(""), _history_page),
    Benchmark("log-page", _lines(""), _log_page),
    Benchmark("cli-startup", tuple(_STARTS.values()), _cli_startup),
    Benchmark("pg-history-page", _history_lines("pg-"), _history_page_postgres),
    Benchmark("pg-log-page", _lines("pg-"), _log_page_postgres),
)
