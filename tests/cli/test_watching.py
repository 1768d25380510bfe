"""watch and consumers."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import agentmem
from tests.cli.program import Program, streaming

TIMEOUT_S = 60


def revisions(lines: str) -> list[int]:
    return [int(line.split()[0]) for line in lines.splitlines()]


def test_watch_prints_what_is_there_and_ends(program: Program, store: agentmem.Store) -> None:
    store.put("a", 1, agent="ann", note="first")
    store.put("b", 2, namespace="team")
    first, second = program.ok("watch", "--since", "0", "--no-wait").splitlines()
    assert first.split()[0::2] == ["1", "ann", "a@1"]
    assert second.split()[0] == "2"
    (line,) = program.ok("watch", "--since", "0", "--no-wait", "-n", "team", "--json").splitlines()
    event = json.loads(line)
    assert event["revision"] == 2
    assert [(each["key"], each["value"]) for each in event["entries"]] == [("b", 2)]
    assert program.ok("watch", "--no-wait") == ""
    assert "future" in program.fails(6, "watch", "--since", "9")


def test_a_consumer_goes_on_where_it_stopped(program: Program, store: agentmem.Store) -> None:
    for number in range(4):
        store.put("a", number)
    watch = ("watch", "--consumer", "c", "--since", "0", "--no-wait")
    assert revisions(program.ok(*watch, "--limit", "3")) == [1, 2, 3]
    (shown,) = program.document("consumers", "list")
    assert (shown["consumer"], shown["revision"], shown["behind"]) == ("c", 3, 1)
    assert program.ok("consumers").splitlines()[1].split()[:3] == ["c", "3", "1"]
    assert revisions(program.ok(*watch)) == [4]
    assert program.ok(*watch) == ""
    with store.watch(consumer="c", agent="ann"):
        assert "'ann'" in program.fails(3, *watch)
    assert program.ok("consumers", "forget", "c", "--yes") == "c: forgotten\n"
    assert program.ok("consumers", "list") == ""
    assert "no consumer" in program.fails(1, "consumers", "forget", "c", "--yes")
    assert len(program.ok(*watch).splitlines()) == 4


def watching(path: Path, *options: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return streaming("watch", "--store", str(path), "--since", "0", *options)


def next_revision(child: subprocess.Popen[bytes]) -> int:
    assert child.stdout is not None
    return int(child.stdout.readline().split()[0])


def test_watch_prints_what_comes_and_ends_with_ctrl_c(path: Path, store: agentmem.Store) -> None:
    store.put("a", 1)
    with watching(path, "--consumer", "c") as child:
        assert next_revision(child) == 1
        store.put("a", 2)
        assert next_revision(child) == 2
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=TIMEOUT_S)
        assert (child.returncode, out, errors) == (0, b"", b"")
    assert [each.token for each in store.consumers()] == [None]


def test_a_reader_that_goes_away_ends_watching(path: Path, store: agentmem.Store) -> None:
    store.put("a", 1)
    with watching(path) as child:
        next_revision(child)
        assert child.stdout is not None
        child.stdout.close()
        store.put("a", 2)
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait(TIMEOUT_S) == 141
