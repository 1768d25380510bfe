"""A process that is stopped while it holds the store's lock."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import agentmem
from tests import postgres_server
from tests.race import workers

TIMEOUT_MS = 300
pytestmark = pytest.mark.stress


@contextmanager
def stopped_holder(target: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, has written without COMMIT, and is stopped."""
    with subprocess.Popen(
        [sys.executable, workers.__file__, target, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "holding\n"
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("x")
    process.stdin.flush()
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "done\n"


def test_a_lock_held_too_long_is_a_busy_error_and_all_goes_on_afterwards(target: str) -> None:
    limits = agentmem.Limits(lock_timeout_ms=TIMEOUT_MS)
    with agentmem.open(target, limits=limits, blind_writes="allow", durability="relaxed") as store:
        store.put("k", "before")
        with stopped_holder(target) as process:
            with pytest.raises(agentmem.StoreBusyError) as caught:
                store.put("k", "meanwhile", op_id="op")
            assert caught.value.waited_ms >= TIMEOUT_MS
            assert isinstance(caught.value, agentmem.TransientError)
            # Readers wait for nobody, and see only what is committed.
            assert store["k"] == "before"
            assert store.snapshot().list()[0].value == "before"
            go_on(process)
        assert store["k"] == "from the one that was stopped"
        assert store.put("k", "after", op_id="op").version == 3
        assert [entry.value for entry in store.history("k")] == [
            "after",
            "from the one that was stopped",
            "before",
        ]
        assert store.admin.verify().problems == []


def test_every_waiting_thread_gets_a_busy_error_of_its_own(target: str) -> None:
    limits = agentmem.Limits(lock_timeout_ms=TIMEOUT_MS)
    errors: list[BaseException] = []

    def write(store: agentmem.Store, number: int) -> None:
        try:
            store.put(f"k{number}", number)
        except agentmem.StoreBusyError as error:
            errors.append(error)

    with agentmem.open(target, limits=limits, durability="relaxed") as store:
        with stopped_holder(target) as process:
            threads = [threading.Thread(target=write, args=(store, n)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(errors) == 6
            go_on(process)
        assert len({id(error) for error in errors}) == 6, "raised in two threads, one is garbled"
        assert store.revision == 1
        assert store.put("k0", 0).revision == 2


def test_a_write_that_waits_is_served_as_soon_as_the_stopped_process_goes_on(
    target: str,
) -> None:
    with agentmem.open(target, durability="relaxed", blind_writes="allow") as store:
        with stopped_holder(target) as process:
            waiting = threading.Thread(target=store.increment, args=("n",), daemon=True)
            waiting.start()
            go_on(process)
            waiting.join(60)
            assert not waiting.is_alive()
        assert (store["n"], store["k"]) == (1, "from the one that was stopped")


def test_a_stopped_process_that_is_killed_lets_go(target: str) -> None:
    limits = agentmem.Limits(lock_timeout_ms=10_000)
    with agentmem.open(target, limits=limits, durability="relaxed", blind_writes="allow") as store:
        with stopped_holder(target) as process:
            process.kill()
            process.wait()
            assert store.put("k", "mine").version == 1
        assert store.admin.verify().problems == []


def test_a_client_that_stays_stopped_is_cut_off_by_the_server_and_later_tries_again() -> None:
    # PostgreSQL alone: no other process can take a file's lock from one that lives.
    name = postgres_server.new_name()
    target = postgres_server.store_url(name)
    with agentmem.open(target, durability="relaxed", blind_writes="allow") as store:
        with stopped_holder(target, "--idle-ms", str(TIMEOUT_MS)) as process:
            # Waits for the lock until the server has ended the transaction of the stopped one.
            assert store.put("k", "mine").version == 1
            assert store.put("k", "mine again").version == 2
            go_on(process)
        assert [entry.value for entry in store.history("k")] == [
            "from the one that was stopped",
            "mine again",
            "mine",
        ]
        assert store.admin.verify().problems == []
    postgres_server.drop([name])
