"""A hundred agents of one event loop book seats at once, are cancelled on the way, and ask again.

Each awaits its model between reading and writing, inside a transaction, and is cut off by a timeout
the first time. Nobody knows then whether it has booked; it asks again with its op_id, and is told.

    python examples/async_agents.py
    python examples/async_agents.py 'postgresql://host/database?store=seats'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

import agentmem

AGENTS = 100
SEATS = 60


async def ask_model(left: int) -> bool:
    await asyncio.sleep(0.001 * random.random())  # stands for a call of a model
    return left > 0


async def book(store: agentmem.AsyncStore, name: str) -> bool:
    async def take_seat(tx: agentmem.AsyncTransaction) -> bool:
        left = await tx.value("left")
        if not await ask_model(left):
            return False
        await tx.put("left", left - 1)
        await tx.increment(name, namespace="booked")
        return True

    return await store.transact(take_seat, op_id=f"{name}:book", agent=name, lock=["left"])


async def agent(store: agentmem.AsyncStore, number: int) -> list[bool]:
    name = f"agent-{number}"
    try:
        async with asyncio.timeout(0.01 * number * random.random()):
            await book(store, name)
    except TimeoutError:
        pass  # booked, or not
    return [await book(store, name) for _time in range(2)]  # told the same each time


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "seats.db")
        async with agentmem.aopen(path, embedder=None) as store:
            await store.put("left", SEATS, expected_version=0)
            answers = await asyncio.gather(*(agent(store, number) for number in range(AGENTS)))
            left = await store.value("left")
            seats = [entry.value for entry in await store.list("booked")]
            whole = (await store.admin.verify()).problems == []
    print(f"{AGENTS} agents asked for {SEATS} seats, each three times, once with a timeout")
    told = sum(first for first, _second in answers)
    print(f"{told} were told that they have one; {sum(seats)} are booked, {left} are left")
    print(f"the most seats that one agent has: {max(seats)}")
    same = all(first == second for first, second in answers)
    right = same and told == sum(seats) == len(seats) == SEATS and left == 0
    return 0 if right and whole else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
