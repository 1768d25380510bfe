"""Several processes store long conversations; some are killed; every turn is there exactly once.

Each writer has its share of the turns. It stores a turn, and counts it for its speaker, in one
transaction, under an operation id made from the turn itself. Some writers are killed with
SIGKILL at moments that a seed chooses, and a new process begins the share again from its first
turn: it cannot know how far the dead one came, and needs not, because a known op_id applies
nothing. In the end the log proves it.

    python examples/conversation_memory.py
    python examples/conversation_memory.py FILE.jsonl --writers 6 --kills 10 --store memory.db
    python examples/conversation_memory.py --store 'postgresql://host/database?store=memory'

A line of the file is one conversation: a JSON object with `conversation` (a name, optional),
`speakers`, and `turns`, each with `session`, `at`, `speaker`, `id` and `text`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

import agentmem

PROCESSES = multiprocessing.get_context("spawn")
OWN_TRANSCRIPT = Path(__file__).with_name("transcript.jsonl")
COUNTS = "speakers"  # the namespace, in each conversation, of the turns said by each speaker


@dataclass(frozen=True)
class Turn:
    """One turn of one conversation.

    Attributes:
        conversation: which one.
        value: the turn as the file has it, which is what is stored.
    """

    conversation: str
    value: dict[str, Any]

    @property
    def op_id(self) -> str:
        """Made from the turn alone, so that whoever stores it again makes the same one."""
        return f"{self.conversation}/{self.value['id']}"

    @property
    def namespace(self) -> tuple[str, ...]:
        return (self.conversation, f"session-{self.value['session']:02}")


def read_turns(path: Path) -> list[Turn]:
    with path.open(encoding="utf-8") as lines:
        conversations = [json.loads(line) for line in lines if line.strip()]
    return [
        Turn(str(each.get("conversation", number)), turn)
        for number, each in enumerate(conversations, 1)
        for turn in each["turns"]
    ]


# The writers.


def write(
    store: str, agent: str, share: list[Turn], stop_at: int | None, parent: Connection
) -> None:
    """Stores a share, and tells the parent of every turn that is durably there.

    Args:
        stop_at: a writer that is to be killed comes so far, and waits for its end there.
    """
    with agentmem.open(store, agent=agent) as whole:
        memory = whole.scoped("conversations")
        for number, turn in enumerate(share, 1):
            store_turn(memory, turn)
            parent.send(number)
            if number == stop_at:
                parent.recv()


def store_turn(memory: agentmem.Store, turn: Turn) -> None:
    def apply(tx: agentmem.Transaction) -> None:
        tx.put(turn.value["id"], turn.value, namespace=turn.namespace)
        tx.increment(turn.value["speaker"], namespace=(turn.conversation, COUNTS))

    memory.transact(apply, op_id=turn.op_id)


@dataclass
class Writer:
    """A share of the turns, and the processes that have worked on it one after another.

    Attributes:
        deaths: after how many acknowledged turns it is killed, the next one first.
        acknowledged: of how many turns, from the first, it said that they are there.
    """

    name: str
    share: list[Turn]
    deaths: list[int]
    acknowledged: int = 0
    killed: list[int] = field(default_factory=list)
    running: bool = False
    process: SpawnProcess = field(init=False)
    connection: Connection = field(init=False)

    def start(self, store: str) -> None:
        self.connection, theirs = PROCESSES.Pipe()
        # One turn more than it will be killed at: so it is killed while it works on that turn,
        # before, in, or after its commit, and never after it has finished.
        stop_at = self.deaths[0] + 1 if self.deaths else None
        self.process = PROCESSES.Process(
            target=write, args=(store, self.name, self.share, stop_at, theirs)
        )
        self.process.start()
        self.running = True
        theirs.close()  # so that the connection ends when the writer does

    def listen(self, store: str) -> None:
        """Takes one message; kills and restarts the writer if its time has come."""
        try:
            number = self.connection.recv()
        except (EOFError, OSError):
            self.end()
            return
        self.acknowledged = max(self.acknowledged, number)
        if self.deaths and number == self.deaths[0]:
            self.killed.append(self.deaths.pop(0))
            self.process.kill()
            self.end()
            self.start(store)

    def end(self) -> None:
        self.process.join()
        self.connection.close()
        self.running = False

    @property
    def failed(self) -> bool:
        return self.process.exitcode != 0 or self.acknowledged != len(self.share)


def plan(turns: list[Turn], writers: int, kills: int, seed: int) -> list[Writer]:
    """Deals the turns out, and chooses who dies when."""
    chance = random.Random(seed)
    count = min(writers, max(1, len(turns) // 2))
    planned = [Writer(f"writer-{number}", turns[number::count], []) for number in range(count)]
    for _ in range(kills):
        writer = chance.choice(planned)
        writer.deaths.append(chance.randrange(1, len(writer.share)))
    for writer in planned:
        writer.deaths.sort()
    return planned


def run(writers: list[Writer], store: str, total: int) -> None:
    for writer in writers:
        writer.start(store)
    with progress_bar(total) as show:
        while running := [writer for writer in writers if writer.running]:
            ready = wait([writer.connection for writer in running])
            for writer in running:
                if writer.connection in ready:
                    writer.listen(store)
            show(sum(each.acknowledged for each in writers), sum(len(w.killed) for w in writers))


@contextmanager
def progress_bar(total: int) -> Iterator[Any]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("storing", total=total)
        yield lambda done, killed: progress.update(
            bar, completed=done, description=f"storing, {killed} killed"
        )


# The proof.


def problems(store: agentmem.Store, turns: list[Turn]) -> Iterator[str]:
    """What the log says against the promise; nothing if every turn is there exactly once."""
    memory = store.scoped("conversations")
    for turn in turns:
        versions = memory.history(turn.value["id"], namespace=turn.namespace)
        if [each.version for each in versions] != [1]:
            yield f"{turn.op_id} has {len(versions)} versions, and should have one"
        elif (versions[0].value, versions[0].op_id) != (turn.value, turn.op_id):
            yield f"{turn.op_id} is not what was written"
    commits = Counter(commit.op_id for commit in memory.log())
    for turn in turns:
        if commits[turn.op_id] != 1:
            yield f"op_id {turn.op_id} has {commits[turn.op_id]} commits, and should have one"
    said = Counter((turn.conversation, turn.value["speaker"]) for turn in turns)
    for (conversation, speaker), count in said.items():
        entry = memory.get(speaker, namespace=(conversation, COUNTS))
        if entry is None or entry.value != count:
            yield f"{speaker} said {count} turns in {conversation}; counted: {entry}"
    yield from store.admin.verify().problems


def report(writers: list[Writer], store: agentmem.Store, turns: list[Turn]) -> int:
    for writer in writers:
        for death in writer.killed:
            print(f"{writer.name} was killed after {death} of {len(writer.share)} turns")
    found = list(problems(store, turns))
    found += [f"{writer.name} has not finished" for writer in writers if writer.failed]
    for problem in found:
        print("wrong:", problem)
    if found:
        return 1
    print(f"{len(turns)} turns, each there once: one version, one commit, one op_id")
    print("the log is whole: verified")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", default=OWN_TRANSCRIPT, help="default: a short one of our own"
    )
    parser.add_argument("--writers", type=int, default=4, help="processes (default 4)")
    parser.add_argument("--kills", type=int, default=3, help="how many are killed (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="who is killed when (default 1)")
    parser.add_argument(
        "--store", help="keep it in this file or postgresql:// store; default: a temporary folder"
    )
    given = parser.parse_args()
    if given.writers < 1 or given.kills < 0:
        parser.error("--writers is at least 1, --kills at least 0")
    if not given.file.is_file():
        parser.error(f"{given.file} is not a file")
    return given


def main() -> int:
    given = arguments()
    turns = read_turns(given.file)
    if len(turns) < 2:
        print("the file has fewer than two turns", file=sys.stderr)
        return 2
    writers = plan(turns, given.writers, given.kills, given.seed)
    conversations = len({turn.conversation for turn in turns})
    plural = "" if conversations == 1 else "s"
    print(f"{len(turns)} turns of {conversations} conversation{plural}, {len(writers)} writers")
    with tempfile.TemporaryDirectory() as folder:
        path = given.store or str(Path(folder) / "memory.db")
        run(writers, path, len(turns))
        with agentmem.open(path) as store:
            return report(writers, store, turns)


if __name__ == "__main__":
    sys.exit(main())
