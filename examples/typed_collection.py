"""A pydantic model as the type of a namespace, with a merge strategy on each field.

Values are checked when they are written and when they are read. Two agents change different
fields of one task, and even the same field, and the annotations say how both are kept.

    python examples/typed_collection.py
    python examples/typed_collection.py 'postgresql://host/database?store=tasks'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

import agentmem
from agentmem import merge


class Task(BaseModel):
    title: str
    status: str = "open"
    tags: Annotated[list[str], merge.union] = []
    minutes: Annotated[int, merge.counter] = 0
    priority: Annotated[int, merge.maximum] = 1


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        agentmem.open(sys.argv[1] if len(sys.argv) > 1 else Path(folder) / "tasks.db") as store,
    ):
        if store.revision:
            sys.exit("there is something in this store; name a new one")
        tasks = store.collection(Task, "team/tasks")
        start = tasks.put("visa", Task(title="Get the visa"))
        tasks.put("hotel", Task(title="Book a hotel", priority=2))

        task = start.value  # a Task; two agents start from this version
        ann = task.model_copy(update={"tags": ["urgent"], "minutes": 30, "priority": 3})
        bob = task.model_copy(update={"tags": ["embassy"], "minutes": 15, "status": "waiting"})
        tasks.put("visa", ann, expected_version=start.version, agent="ann")
        merged = tasks.put("visa", bob, expected_version=start.version, agent="bob")
        print(merged.value)

        with store.transaction(agent="ann") as tx:  # the same collection in a transaction
            tasks.on(tx).update("hotel", lambda hotel: hotel.model_copy(update={"minutes": 5}))
        found = [entry.key for entry in tasks.list(where={"priority": {"$gte": 2}})]
        print("priority 2 or more:", ", ".join(found))

        try:
            store.patch("visa", {"minutes": "many"}, namespace="team/tasks", agent="bob")
            tasks.get("visa")
        except agentmem.InvalidValueError as error:
            print("refused:", error)
            refused = error.path == "$.minutes"
        else:
            refused = False

    both = Task(
        title="Get the visa",
        status="waiting",
        tags=["embassy", "urgent"],
        minutes=45,
        priority=3,
    )
    return 0 if merged.value == both and found == ["hotel", "visa"] and refused else 1


if __name__ == "__main__":
    sys.exit(main())
