"""Workers share a queue and are killed on the way; every task's result is there exactly once.

A worker claims a task, works on it and commits the result together with the ack. Killed before the
commit, it leaves nothing behind, and its claim runs out, so another does the task; killed after it,
the task is gone. One task cannot be done at all: after three attempts it is dead, and is shown.

    python examples/task_queue.py
    python examples/task_queue.py 'postgresql://host/database?store=tasks'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import agentmem

WORKERS = 4
TASKS = 40
KILLS = 6
VISIBILITY_S = 0.5  # so that the task of a killed worker is soon there again


def work(path: str, name: str) -> None:
    with agentmem.open(path, agent=name) as store:
        queue = store.queue("cities")
        while len(queue):
            task = queue.claim(visibility_s=VISIBILITY_S, wait_s=0.1)
            if task is None:
                continue  # the others are claimed, and their workers may yet be killed
            if task.payload["city"] is None:
                task.nack(note="no such city")
                continue
            time.sleep(random.uniform(0.01, 0.05))  # the work
            try:
                with store.transaction() as tx:
                    tx.increment(task.payload["city"], namespace="results")
                    task.ack(tx)
            except agentmem.FencedError:
                continue  # it was too slow: another has the task, and nothing was written


def keep_working(path: str) -> int:
    """Runs workers until the queue is empty, kills some on the way; returns how many."""
    processes = multiprocessing.get_context("spawn")

    def start(number: int) -> BaseProcess:
        worker = processes.Process(target=work, args=(path, f"worker-{number}"))
        worker.start()
        return worker

    workers = [start(number) for number in range(WORKERS)]
    killed = 0
    with agentmem.open(path) as store:
        queue = store.queue("cities")
        while left := len(queue):
            if killed < KILLS and left < TASKS - killed * (TASKS // KILLS):
                victim = random.randrange(WORKERS)
                workers[victim].kill()
                workers[victim].join()
                killed += 1
                workers[victim] = start(WORKERS + killed)
            time.sleep(0.01)
    for worker in workers:
        worker.join()
    return killed


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "tasks.db")
        with agentmem.open(path) as store:
            queue = store.queue("cities", max_attempts=3)
            for number in range(TASKS):
                queue.put({"city": f"city-{number}"}, op_id=f"city-{number}")
            queue.put({"city": None})
        killed = keep_working(path)
        with agentmem.open(path) as store:
            counts = [entry.value for entry in store.list("results")]
            dead = store.queue("cities").dead()
        print(f"{killed} workers were killed")
        print(f"{len(counts)} of {TASKS} tasks have a result, {sum(counts)} results in all")
        print(f"dead: {[(task.payload, task.attempts, task.note) for task in dead]}")
        return 0 if counts == [1] * TASKS and len(dead) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
