"""Two agents write the same note from the same version, and both are kept.

A merge hook is a three-way merge, as in git: base is what both started from, theirs is what is
there now, ours is what this writer wants. A hook is a function of this process; a strategy kept
with `set_merge` is in the store, for every process. What nobody can merge is refused, and every
conflict is on record with how it ended.

    python examples/merge_notes.py
    python examples/merge_notes.py 'postgresql://host/database?store=notes'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import agentmem


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "notes.db")
        # One store opened twice, as two processes would have it.
        with agentmem.open(path, agent="ann") as ann, agentmem.open(path, agent="bob") as bob:
            if ann.revision:
                sys.exit("there is something in this store; name a new one")
            kept = merge_by_hook(ann, bob) and merge_by_strategy(ann, bob)
            return 0 if kept and refuse(ann, bob) and explain(ann) else 1


def merge_by_hook(ann: agentmem.Store, bob: agentmem.Store) -> bool:
    def keep_both(conflict: agentmem.Conflict) -> list[str]:
        return sorted({*conflict.theirs, *conflict.ours})

    for store in (ann, bob):
        store.merge_hook("notes/**")(keep_both)  # also as a decorator: @store.merge_hook(...)
    base = ann.put("trip", ["museum"], namespace="notes")
    ann.put("trip", ["museum", "opera"], namespace="notes", expected_version=base.version)
    merged = bob.put("trip", ["museum", "beach"], namespace="notes", expected_version=base.version)
    print("hook      ", merged.value)
    return merged.value == ["beach", "museum", "opera"]


def merge_by_strategy(ann: agentmem.Store, bob: agentmem.Store) -> bool:
    ann.set_merge("plans/*", "json")  # kept in the store: bob's process knows it too
    base = ann.put("rome", {"days": 3, "budget": 900}, namespace="plans")
    with ann.transaction() as tx, bob.transaction() as other:
        tx.put("rome", {"days": 4, "budget": 900}, namespace="plans")
        other.put("rome", {"days": 3, "budget": 700}, namespace="plans")
    merged = ann.get("rome", namespace="plans")
    print("strategy  ", merged.value, f"from version {base.version} on both sides")
    return merged.value == {"days": 4, "budget": 700}


def refuse(ann: agentmem.Store, bob: agentmem.Store) -> bool:
    base = ann.get("rome", namespace="plans")
    ann.put("rome", {**base.value, "days": 5}, namespace="plans", expected_version=base.version)
    try:
        bob.put("rome", {**base.value, "days": 6}, namespace="plans", expected_version=base.version)
    except agentmem.ConflictError as error:
        conflict = error.conflicts[0]
        print("refused   ", f"theirs {conflict.theirs['days']} days, ours {conflict.ours['days']}")
        return ann.get("rome", namespace="plans").value["days"] == 5
    return False


def explain(store: agentmem.Store) -> bool:
    records = store.audit.conflicts()
    for each in records:
        name = "/".join((*each.namespace, each.key))
        by = f" by {each.strategy}" if each.strategy else ""
        print("on record ", f"{name}, {each.agent}: {each.status}{by}")
    return [each.status for each in records] == ["merged", "merged", "rejected"]


if __name__ == "__main__":
    sys.exit(main())
