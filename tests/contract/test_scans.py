"""Scans of an engine, forwards and backwards, against a sorted list."""

from __future__ import annotations

import random

import agentmem
from agentmem.engines.rows import EntryRow, Place, Range
from agentmem.namespaces import encode

_NAMESPACES = ["", "a", "a/b", "a\x01", "ab", "b", "\U0010ffff"]
_KEYS = ["a", "a ", "a b", "ab", "b", "ÿ", "\ud7ff", "\ue000x", "\U0010ffff", "\U0010ffffa"]
_COMMITS = 12
_QUERIES = 150

State = dict[Place, int | None]
"""The version at each place; None: it was deleted."""


def _write(store: agentmem.Store, chosen: random.Random) -> list[State]:
    """Puts and deletes; the state at each revision."""
    states: list[State] = [{}]
    for _commit in range(_COMMITS):
        state = dict(states[-1])
        with store.transaction() as tx:
            for _ in range(8):
                namespace, key = chosen.choice(_NAMESPACES), chosen.choice(_KEYS)
                if chosen.random() < 0.2:
                    tx.delete(key, namespace=namespace or None)
                else:
                    tx.put(key, 1, namespace=namespace or None)
        (commit,) = store.log(limit=1)
        for change in commit.changes:
            place = encode(change.namespace), change.key
            state[place] = None if change.operation == "delete" else change.version
        states.append(state)
    return states


def _query(chosen: random.Random) -> Range:
    def place() -> Place | None:
        labels = tuple(label for label in chosen.choice(_NAMESPACES).split("/") if label)
        return (encode(labels), chosen.choice(_KEYS)) if chosen.random() < 0.5 else None

    labels = tuple(label for label in chosen.choice(_NAMESPACES).split("/") if label)
    prefix = chosen.choice(["", "", "a", "a ", "ab", "\ud7ff", "\U0010ffff"])
    return Range(encode(labels), prefix, place(), place())


def _expected(state: State, within: Range, *, backwards: bool) -> list[Place]:
    def precedes(one: Place, other: Place) -> bool:
        return one > other if backwards else one < other

    return [
        place
        for place in sorted(state, reverse=backwards)
        if place[0].startswith(within.namespace)
        and place[1].startswith(within.key_prefix)
        and (within.after is None or precedes(within.after, place))
        and (within.upto is None or not precedes(within.upto, place))
    ]


def _seen(rows: list[EntryRow]) -> list[tuple[Place, int | None]]:
    return [((row.namespace, row.key), None if row.deleted else row.version) for row in rows]


def test_a_scan_in_either_direction_finds_what_a_sorted_list_has(
    store: agentmem.Store, seed: int
) -> None:
    chosen = random.Random(seed)
    states = _write(store, chosen)
    engine = store._core.engine
    sizes = []
    for _ in range(_QUERIES):
        within, backwards = _query(chosen), chosen.random() < 0.7
        revision, limit = chosen.randrange(len(states)), chosen.choice([1, 3, 100])
        state = states[revision]
        expected = [
            (place, state[place]) for place in _expected(state, within, backwards=backwards)
        ]
        found = engine.scan(within, revision, limit, backwards=backwards)
        assert _seen(found) == expected[:limit], (within, revision, limit, backwards)
        sizes.append(len(expected))
    assert sum(size > 1 for size in sizes) > _QUERIES // 5


def test_pages_that_go_on_after_the_last_row_hold_all_rows_once_in_either_direction(
    store: agentmem.Store, seed: int
) -> None:
    state = _write(store, random.Random(seed))[-1]
    core = store._core
    present = {place for place, version in state.items() if version is not None}
    for backwards in (False, True):
        rows = core.iterate(core._root, None, (store.revision, core.clock()), "", None, 1,
                            backwards=backwards)  # fmt: skip
        places = [(row.namespace, row.key) for row in rows]
        assert places == sorted(present, reverse=backwards)
        assert len(places) > 8  # so that the second page was not the last
