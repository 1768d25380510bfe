"""Writers that are killed while they commit, and what must hold after."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import agentmem
from agentmem.testing.crew import SILENCE_S, Step
from agentmem.testing.servers import drop_store, is_url, numbered

__all__ = ["kill_cycles"]

_CYCLES_A_STORE: Final = 25  # then a new file, so that checking the whole log stays cheap
# With these, a writer starts in a moment: what it imports is there. The first two are what the
# command imports, which is run again in its processes.
_PRELOADED: Final = [
    "typer",
    "agentmem.testing.list_append",
    "agentmem.testing.kills",
    "agentmem.engines.sqlite.engine",
    "agentmem.engines.postgres.engine",  # not an error where psycopg is not installed
]
_OPERATIONS: Final = ("increment", "append", "transfer", "put", "put_many")
_FAN_OUT: Final = 4
_THREADS: Final = 2  # of a writer, which share batches
_MOST_COMMITS: Final = 30  # of all writers, before the first is killed


@dataclass(slots=True)
class _Expected:
    """What the store must hold: every operation that was ever begun, once."""

    increments: int = 0
    transfers: int = 0
    lists: dict[str, list[str]] = field(default_factory=dict)
    puts: set[str] = field(default_factory=set)
    operations: set[str] = field(default_factory=set)

    def note(self, name: str, number: int) -> None:
        kind, op_id = _operation(name, number)
        self.operations.add(op_id)
        if kind == "increment":
            self.increments += 1
        elif kind == "transfer":
            self.transfers += 1
        elif kind == "append":
            self.lists.setdefault(name, []).append(op_id)
        elif kind == "put":
            self.puts.add(op_id)
        else:
            self.puts.update(f"{op_id}.{place}" for place in range(_FAN_OUT))


def _operation(name: str, number: int) -> tuple[str, str]:
    return _OPERATIONS[number % len(_OPERATIONS)], f"{name}:{number}"


def _perform(store: agentmem.Store, name: str, number: int) -> object:
    """One operation of a writer under its own op_id. Returns what a repeat must return too."""
    kind, op_id = _operation(name, number)
    if kind == "increment":
        return store.increment("total", op_id=op_id).version
    if kind == "append":
        return store.append(name, op_id, namespace="lists", op_id=op_id).version
    if kind == "put":
        return store.put(op_id, {"by": name}, namespace="puts", op_id=op_id).revision
    if kind == "put_many":
        items = {f"{op_id}.{place}": place for place in range(_FAN_OUT)}
        return store.put_many(items, namespace="puts", op_id=op_id)[-1].revision

    def transfer(tx: agentmem.Transaction) -> object:
        moved = {key: tx.get(key, namespace="accounts") for key in ("from", "to")}
        left, right = ((entry.value if entry is not None else 0) for entry in moved.values())
        tx.put("from", left - 1, namespace="accounts")
        tx.put("to", right + 1, namespace="accounts")
        return [left - 1, right + 1]

    return store.transact(transfer, op_id=op_id)


def _write_until_killed(
    end: Connection, target: str, names: Sequence[str], durability: str
) -> None:
    telling = threading.Lock()  # protects the pipe

    def write(name: str) -> None:
        number = 0
        while True:
            result = _perform(store, name, number)
            with telling:
                end.send((name, number, result))
            number += 1

    with agentmem.open(target, embedder=None, durability=durability, blind_writes="allow") as store:
        for name in names[1:]:
            threading.Thread(target=write, args=(name,), daemon=True).start()
        write(names[0])


class _Writer:
    """A writer process, its threads by name, and what each of them has acknowledged."""

    def __init__(self, context: Any, target: str, name: str, durability: str) -> None:
        self.acknowledged: dict[str, list[object]] = {
            f"{name}.{thread}": [] for thread in range(_THREADS)
        }
        self.end, far_end = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_write_until_killed,
            args=(far_end, target, list(self.acknowledged), durability),
            daemon=True,
        )
        self._process.start()
        far_end.close()

    def hear(self) -> None:
        name, number, result = self.end.recv()
        assert number == len(self.acknowledged[name]), "acknowledgements come in order"
        self.acknowledged[name].append(result)

    def kill(self) -> None:
        """Kills it, and hears what it had still said."""
        self._process.kill()
        self._process.join()
        try:
            while True:
                self.hear()
        except EOFError:
            self.end.close()


def kill_cycles(
    place: Path | str,
    cycles: int,
    *,
    seed: int = 1,
    method: str = "forkserver",
    step: Step = lambda _done: None,
) -> list[str]:
    """Kills two to four writers at a random moment, again and again.

    Durability alternates. After each cycle the store is opened again; the operation that each
    writer was in is done again under its op_id; then the log must hold every operation once,
    the state must be what they add up to, and `verify` must find nothing.

    Args:
        place: a folder for files, or a store on a server: those used are named after it, and
            dropped when nothing was wrong with them.
        cycles: how often writers are killed.
        seed: of all choices.
        method: how processes are started.
        step: called after each cycle.

    Returns: what is wrong, in words.
    """
    context = get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    choice = random.Random(seed)  # noqa: S311  # chooses moments
    problems: list[str] = []
    expected = _Expected()
    for cycle in range(cycles):
        if cycle % _CYCLES_A_STORE == 0:
            expected = _Expected()
        target = _target(place, cycle // _CYCLES_A_STORE)
        durability = ("relaxed", "full")[cycle % 2]
        names = [f"{cycle}-{number}" for number in range(choice.randint(2, 4))]
        writers = [_Writer(context, target, name, durability) for name in names]
        try:
            _let_run_and_kill(writers, choice)
        finally:
            for writer in writers:
                writer.kill() if not writer.end.closed else None
        problems += [f"cycle {cycle}: {each}" for each in _check(target, writers, expected)]
        last = cycle == cycles - 1 or (cycle + 1) % _CYCLES_A_STORE == 0
        if last and is_url(target) and not problems:
            drop_store(target)
        step(1)
    return problems


def _target(place: Path | str, number: int) -> str:
    if isinstance(place, str) and is_url(place):
        return numbered(place, number)
    return str(Path(place) / f"killed-{number}.db")


def _let_run_and_kill(writers: Sequence[_Writer], choice: random.Random) -> None:
    living = list(writers)
    choice.shuffle(living)
    # Once with the first, so that the others must go on over its dead body, then all at once.
    for victims in (living[:1], living[1:]):
        for _commit in range(choice.randint(1, _MOST_COMMITS)):
            alive = {writer.end: writer for writer in living if not writer.end.closed}
            ready = wait(list(alive), timeout=SILENCE_S)
            assert ready, f"{len(alive)} writers made no commit in {SILENCE_S} s"
            for end in ready:
                alive[end].hear()
        # Not synchronisation: it spreads the moment of death over the steps of a commit.
        time.sleep(choice.uniform(0, 0.002))
        for victim in victims:
            victim.kill()


def _check(target: str, writers: Sequence[_Writer], expected: _Expected) -> list[str]:
    problems = []
    with agentmem.open(target, embedder=None, blind_writes="allow") as store:
        problems += store.admin.verify().problems
        found = {commit.op_id for commit in store.log()}
        for writer in writers:
            for name, results in writer.acknowledged.items():
                problems += _check_writer(store, name, results, found)
                for number in range(len(results) + 1):
                    expected.note(name, number)
        problems += _check_state(store, expected)
        problems += store.admin.verify().problems
    return problems


def _check_writer(
    store: agentmem.Store, name: str, results: list[object], found: set[str | None]
) -> list[str]:
    """Also does again what the writer was in when it was killed."""
    count = len(results)
    lost = [number for number in range(count) if _operation(name, number)[1] not in found]
    problems = [f"{name}: lost acknowledged commit {number}" for number in lost]
    if count and _perform(store, name, count - 1) != results[-1]:
        problems.append(f"{name}: a repeat of {count - 1} gave another result")
    _perform(store, name, count)
    return problems


def _check_state(store: agentmem.Store, expected: _Expected) -> list[str]:
    counts = Counter(commit.op_id for commit in store.log())
    problems = [f"{op_id!r} was applied {n} times" for op_id, n in counts.items() if n > 1]
    if counts.keys() != expected.operations:
        problems.append(f"operations lost or made up: {counts.keys() ^ expected.operations}")
    state = {(*entry.namespace, entry.key): entry.value for entry in store.list()}
    model: dict[tuple[str, ...], object] = {("lists", k): v for k, v in expected.lists.items()}
    if expected.increments:
        model["total",] = expected.increments
    if expected.transfers:
        model["accounts", "from"] = -expected.transfers
        model["accounts", "to"] = expected.transfers
    puts = {place[1] for place in state if place[0] == "puts"}
    if puts != expected.puts:
        problems.append(f"puts lost or made up: {puts ^ expected.puts}")
    others = {place: value for place, value in state.items() if place[0] != "puts"}
    wrong = [place for place in {**others, **model} if others.get(place) != model.get(place)]
    return problems + [f"{place}: {others.get(place)}, not {model.get(place)}" for place in wrong]
