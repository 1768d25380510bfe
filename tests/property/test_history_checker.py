"""The history checker: hand-drawn anomalies, and a brute-force search for a serial order."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any, Final, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentmem.errors import InvalidValueError, MissingExtraError
from agentmem.testing.histories import (
    Anomaly,
    Append,
    Observed,
    Read,
    check,
    check_revisions,
)

Outcome = Literal["committed", "aborted", "indeterminate"]
Lists = dict[str, list[int]]
KEYS: Final = ("x", "y")


def tx(
    id: str,
    operations: str,
    at: tuple[int, int] = (0, 100),
    outcome: Outcome = "committed",
    revision: int | None = None,
) -> Observed:
    """``x=[1 2] y+3`` reads 1 and 2 in x, then appends 3 to y; all are concurrent by default."""
    parsed: list[Append | Read] = []
    for key, element, elements in re.findall(r"(\w)(?:\+(\d+)|=\[([\d ]*)\])", operations):
        if element:
            parsed.append(Append(key, int(element)))
        else:
            parsed.append(Read(key, tuple(map(int, elements.split()))))
    return Observed(id, 0, *at, tuple(parsed), outcome, revision)


def kinds(anomalies: Sequence[Anomaly]) -> list[str]:
    return sorted(anomaly.kind for anomaly in anomalies)


CYCLES: Final[dict[str, tuple[str, list[Observed], Lists | None, str]]] = {
    "writes in opposite orders": (
        "G0",
        [tx("T1", "x+1 y+1"), tx("T2", "x+2 y+2")],
        {"x": [1, 2], "y": [2, 1]},
        "T1 -ww(key x)-> T2 -ww(key y)-> T1",
    ),
    "each reads the other's append": (
        "G1c",
        [tx("T1", "x+1 y=[2]"), tx("T2", "y+2 x=[1]")],
        None,
        "T1 -wr(key x)-> T2 -wr(key y)-> T1",
    ),
    "lost update": (
        "G-single",
        [tx("T1", "x=[] x+1"), tx("T2", "x=[] x+2")],
        {"x": [1, 2]},
        "T2 -rw(key x)-> T1 -ww(key x)-> T2",
    ),
    "read skew": (
        "G-single",
        [tx("T1", "x=[] y=[2]"), tx("T2", "x+1 y+2")],
        {"x": [1], "y": [2]},
        "T1 -rw(key x)-> T2 -wr(key y)-> T1",
    ),
    "write skew": (
        "G2-item",
        [tx("T1", "x=[] y+1"), tx("T2", "y=[] x+1")],
        {"x": [1], "y": [1]},
        "T1 -rw(key x)-> T2 -rw(key y)-> T1",
    ),
    "write skew, appends never read": (
        "G2-item",
        [tx("T1", "x=[] y+1"), tx("T2", "y=[] x+1")],
        None,
        "T1 -rw(key x)-> T2 -rw(key y)-> T1",
    ),
    "long fork": (
        "G2-item",
        [tx("T1", "x+1"), tx("T2", "y+1"), tx("T3", "x=[1] y=[]"), tx("T4", "y=[1] x=[]")],
        None,
        "T3 -rw(key y)-> T2 -wr(key y)-> T4 -rw(key x)-> T1 -wr(key x)-> T3",
    ),
    "lost update of an indeterminate one that was seen": (
        "G-single",
        [
            tx("T1", "x=[] x+1", outcome="indeterminate"),
            tx("T2", "x=[] x+2"),
            tx("T3", "x=[2 1]"),
        ],
        None,
        "T1 -rw(key x)-> T2 -ww(key x)-> T1",
    ),
    "an aborted append between does not hide the cycle": (
        "G-single",
        [tx("T1", "x=[] x+1"), tx("T2", "x=[] x+2"), tx("T3", "x+3", outcome="aborted")],
        {"x": [1, 3, 2]},
        "T2 -rw(key x)-> T1 -ww(key x)-> T2",
    ),
    "appends in the order opposite to time": (
        "G0-realtime",
        [tx("T1", "x+1", (0, 1)), tx("T2", "x+2", (2, 3))],
        {"x": [2, 1]},
        "T2 -ww(key x)-> T1 -realtime-> T2",
    ),
    "read from the future": (
        "G1c-realtime",
        [tx("T1", "x=[1]", (0, 1)), tx("T2", "x+1", (2, 3))],
        None,
        "T2 -wr(key x)-> T1 -realtime-> T2",
    ),
    "stale read": (
        "G-single-realtime",
        [tx("T1", "x+1", (0, 1)), tx("T2", "x=[]", (2, 3))],
        {"x": [1]},
        "T2 -rw(key x)-> T1 -realtime-> T2",
    ),
    "two stale reads": (
        "G2-item-realtime",
        [
            tx("T1", "y=[1] x=[]"),
            tx("T2", "x+1", (0, 1)),
            tx("T3", "y=[]", (2, 9)),
            tx("T4", "y+1", (0, 9)),
        ],
        None,
        "T1 -rw(key x)-> T2 -realtime-> T3 -rw(key y)-> T4 -wr(key y)-> T1",
    ),
}


def rotations(cycle: str) -> set[str]:
    """The same cycle, told from each of its transactions."""
    first, *_ = cycle.split(" ")
    steps = re.findall(r"(\S+ -.*?-> )", cycle)
    assert cycle.endswith(f"> {first}")
    turned = [steps[n:] + steps[:n] for n in range(len(steps))]
    return {"".join(turn) + turn[0].split(" ")[0] for turn in turned}


@pytest.mark.parametrize("name", CYCLES)
def test_cycle_is_found_named_and_told(name: str) -> None:
    kind, history, final, cycle = CYCLES[name]
    found = [a for a in check(history, final) if a.kind != "G1a"]
    assert kinds(found) == [kind]
    assert found[0].explanation in rotations(cycle)
    assert sorted(found[0].transactions) == sorted(set(re.findall(r"T\d", cycle)))
    without_time = [a.kind for a in check(history, final, real_time=False) if a.kind != "G1a"]
    assert without_time == ([] if kind.endswith("-realtime") else [kind])


@pytest.mark.parametrize(
    ("kind", "ids", "history", "final"),
    [
        ("G1a", "T1 T2", [tx("T1", "x+1", outcome="aborted"), tx("T2", "x=[1]")], None),
        ("G1a", "T1", [tx("T1", "x+1", outcome="aborted")], {"x": [1]}),
        ("G1b", "T1 T2", [tx("T1", "x+1 x+2"), tx("T2", "x=[1] x+3"), tx("T3", "x=[1 2]")], None),
        (
            "G1b",
            "T1 T2",
            [tx("T1", "x+1 x+2"), tx("T2", "x+3 x=[1 3]"), tx("T3", "x+4")],
            None,
        ),
        ("garbage-read", "T1", [tx("T1", "x=[7]")], None),
        ("duplicate-element", "T1 T2", [tx("T1", "x+1"), tx("T2", "x=[1 1]")], None),
        ("duplicate-element", "T1", [tx("T1", "x+1")], {"x": [1, 1]}),
        ("duplicate-element", "T1", [tx("T1", "x+1"), tx("T2", "x+2")], {"x": [1, 2, 1]}),
        (
            "incompatible-order",
            "T4 T3",
            [tx("T1", "x+1"), tx("T2", "x+2"), tx("T3", "x=[1]"), tx("T4", "x=[2]")],
            None,
        ),
        (
            "incompatible-order",
            "T3",
            [tx("T1", "x+1"), tx("T2", "x+2"), tx("T3", "x=[2]")],
            {"x": [1, 2]},
        ),
        ("incompatible-order", "T1", [tx("T1", "x+1 x+2"), tx("T2", "x+3")], {"x": [2, 1, 3]}),
        ("incompatible-order", "T1", [tx("T1", "x+1 x+2"), tx("T2", "x=[2]")], None),
        ("lost-append", "T1", [tx("T1", "x+1"), tx("T2", "x+2")], {"x": [2]}),
        ("lost-append", "T1", [tx("T1", "x+1"), tx("T2", "x=[]")], {}),
        ("internal", "T1", [tx("T1", "x+1 x=[]")], None),
        ("internal", "T1", [tx("T1", "x=[] x+1 x=[]")], None),
        ("internal", "T1", [tx("T1", "x=[1] x+1")], None),
        ("internal", "T2", [tx("T1", "x+1"), tx("T2", "x=[1] x=[]")], None),
    ],
)
def test_wrong_read_is_found(kind: str, ids: str, history: list[Observed], final: Lists) -> None:
    found = [a for a in check(history, final) if not a.kind.startswith("G-single")]
    assert kinds(found) == [kind]
    assert found[0].transactions == tuple(ids.split())
    assert "x" in found[0].explanation


@pytest.mark.parametrize(
    ("history", "final"),
    [
        ([], None),
        ([], {}),
        ([tx("T1", "x=[] x+1 x=[1] x+2 x=[1 2]"), tx("T2", "x=[1 2] x+3")], {"x": [1, 2, 3]}),
        ([tx("T1", "x+1", outcome="indeterminate"), tx("T2", "x=[]", (200, 300))], {"x": []}),
        # It may take effect after its client gave up.
        ([tx("T1", "x+1", outcome="indeterminate"), tx("T2", "x=[]", (200, 300))], {"x": [1]}),
        # What an aborted transaction read binds nobody.
        ([tx("T1", "x+1"), tx("T2", "x=[9]", outcome="aborted")], {"x": [1]}),
        # Ends at the instant at which the other starts: concurrent.
        ([tx("T1", "x+1", (0, 5)), tx("T2", "x=[]", (5, 9))], {"x": [1]}),
    ],
)
def test_serial_history_has_no_anomaly(history: list[Observed], final: Lists | None) -> None:
    assert check(history, final) == []


def test_cycle_through_a_long_stretch_of_time_is_told_by_its_two_transactions() -> None:
    history = [tx(f"T{n}", f"y+{n}", (10 * n, 10 * n + 5)) for n in range(3_000)]
    history[0] = tx("T0", "x+1 z+1", (0, 5))
    history[-1] = tx("T2999", "x=[]", (29_990, 29_995))
    # A detour through one more transaction and fewer moments.
    history.append(tx("T3000", "z=[1]", (0, 29_980)))
    final = {"x": [1], "y": list(range(1, 2_999)), "z": [1]}
    (found,) = check(history, final)
    assert found.kind == "G-single-realtime"
    assert found.explanation == "T2999 -rw(key x)-> T0 -realtime-> T2999"


def test_separate_cycles_are_reported_each() -> None:
    history = [
        *(tx("T1", "x=[] x+1"), tx("T2", "x=[] x+2")),
        *(tx("T3", "y=[] z+1", (200, 300)), tx("T4", "z=[] y+1", (200, 300))),
    ]
    found = check(history, {"x": [1, 2], "y": [1], "z": [1]})
    assert kinds(found) == ["G-single", "G2-item"]


@pytest.mark.parametrize(
    ("worst", "operations_1", "operations_2"),
    [("G-single", "x=[] x+1", "x=[] x+2"), ("G0", "x+1 w+1", "x+2 w+2")],
)
def test_of_cycles_that_hang_together_only_the_worst_is_reported(
    worst: str, operations_1: str, operations_2: str
) -> None:
    write_skew = tx("T1", f"{operations_1} y=[] z+1"), tx("T3", "z=[] y+1")
    final = {"x": [1, 2], "y": [1], "z": [1], "w": [2, 1] if worst == "G0" else []}
    found = check([*write_skew, tx("T2", operations_2)], final)
    assert [(a.kind, set(a.transactions)) for a in found] == [(worst, {"T1", "T2"})]


@pytest.mark.parametrize(
    "history",
    [
        [tx("T1", "x+1"), tx("T1", "x+2")],
        [tx("T1", "x+1"), tx("T2", "x+1")],
        [tx("T1", "x+1 x+1")],
        [tx("T1", "x+1", (5, 4))],
    ],
)
def test_history_that_cannot_be_judged_is_refused(history: list[Observed]) -> None:
    for judge in (check, check_revisions):
        with pytest.raises(InvalidValueError) as raised:
            judge(history)
        assert raised.value.path == f"history[{len(history) - 1}]"


def test_missing_networkx_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'agentmem-store[testing]'")):
        check([tx("T1", "x+1")])
    assert check_revisions([tx("T1", "x+1", revision=1)]) == []


def test_import_does_not_import_networkx() -> None:
    code = "import sys, agentmem.testing.histories; sys.exit('networkx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("kind", "ids", "history"),
    [
        ("duplicate-revision", "T1 T2", [tx("T1", "x+1", revision=1), tx("T2", "y+1", revision=1)]),
        ("revision-read", "T2", [tx("T1", "x+1", revision=1), tx("T2", "x=[]", revision=2)]),
        ("revision-read", "T2", [tx("T1", "x+1", revision=3), tx("T2", "x=[1]", revision=2)]),
        ("revision-read", "T1", [tx("T1", "x+1 x=[]", revision=1)]),
        (
            "revision-read",
            "T2",
            [tx("T1", "x+1", revision=1, outcome="aborted"), tx("T2", "x=[1]", revision=2)],
        ),
        (
            "revision-read",
            "T3",
            [
                *(tx("T1", "x+1", revision=1), tx("T2", "x+2", revision=2)),
                tx("T3", "x=[2 1]", revision=3),
            ],
        ),
        (
            "revision-realtime",
            "T1 T2",
            [
                *(tx("T1", "x+1", (0, 1), revision=5), tx("T3", "x+3", (0, 1), revision=4)),
                tx("T2", "y+1", (2, 3), revision=3),
            ],
        ),
    ],
)
def test_revision_check_finds(kind: str, ids: str, history: list[Observed]) -> None:
    found = check_revisions(history)
    assert [(a.kind, a.transactions) for a in found] == [(kind, tuple(ids.split()))]


def test_revision_check_lets_uncertain_appends_be_seen_or_not() -> None:
    history = [
        tx("T1", "x+1", outcome="indeterminate"),
        tx("T2", "x+2"),
        tx("T3", "x=[1 2] x+3", revision=1),
        tx("T4", "x=[1 3]", revision=2),
    ]
    assert check_revisions(history) == []


# --- laws ---------------------------------------------------------------------------------------


def run(operations: Sequence[tuple[str, int | None]], lists: Lists) -> list[Append | Read]:
    """Run one transaction alone; an operation is a key, and an element if it is an append."""
    done: list[Append | Read] = []
    for key, element in operations:
        if element is None:
            done.append(Read(key, tuple(lists[key])))
        else:
            lists[key].append(element)
            done.append(Append(key, element))
    return done


@st.composite
def serial_histories(draw: st.DrawFn, *, overlapping: bool) -> tuple[list[Observed], Lists]:
    """Transactions run one after the other at 10, 20, …, and the state they leave.

    With ``overlapping`` clients see longer spans around these instants, some transactions abort,
    and of some the outcome is unknown.
    """
    outcomes = ("committed",) * 4 + ("aborted", "indeterminate") * overlapping
    lists: Lists = {key: [] for key in KEYS}
    history: list[Observed] = []
    for number in range(1, 1 + draw(st.integers(1, 8))):
        drawn = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=5))
        operations = [
            (key, 10 * number + place if is_append else None)
            for place, (key, is_append) in enumerate(drawn)
        ]
        outcome: Any = draw(st.sampled_from(outcomes))
        applied = outcome == "committed" or (outcome == "indeterminate" and draw(st.booleans()))
        state = lists if applied else {key: list(elements) for key, elements in lists.items()}
        before, after = draw(st.tuples(*[st.integers(0, 40)] * 2)) if overlapping else (1, 1)
        span = (10 * number - before, 10 * number + after)
        done = tuple(run(operations, state))
        revision = number if outcome == "committed" else None
        history.append(Observed(f"T{number}", 0, *span, done, outcome, revision))
    return draw(st.permutations(history)), lists


@given(serial_histories(overlapping=True))
@settings(max_examples=200)
def test_what_ran_serially_shows_no_anomaly(made: tuple[list[Observed], Lists]) -> None:
    history, final = made
    assert check(history, final) == []
    assert check(history) == []
    assert check(history, final, real_time=False) == []
    assert check_revisions(history) == []


@st.composite
def spoiled_histories(draw: st.DrawFn) -> tuple[list[Observed], Lists]:
    """A serial history in which one read has two elements swapped, one dropped or one twice."""
    history, final = draw(serial_histories(overlapping=False))
    reads = [
        (n, m)
        for n, transaction in enumerate(history)
        for m, operation in enumerate(transaction.operations)
        if isinstance(operation, Read) and operation.elements
    ]
    assume(reads)
    n, m = draw(st.sampled_from(reads))
    read = history[n].operations[m]
    assert isinstance(read, Read)
    elements = list(read.elements)
    place = draw(st.integers(0, len(elements) - 1))
    how = draw(st.sampled_from(["swap", "drop", "duplicate"]))
    if how == "swap":
        assume(place > 0)
        elements[place - 1 : place + 1] = elements[place], elements[place - 1]
    elif how == "drop":
        del elements[place]
    else:
        elements.insert(draw(st.integers(0, len(elements))), elements[place])
    operations = list(history[n].operations)
    operations[m] = Read(read.key, tuple(elements))
    history[n] = replace(history[n], operations=tuple(operations))
    return history, final


@given(spoiled_histories())
def test_spoiled_read_is_caught(made: tuple[list[Observed], Lists]) -> None:
    history, final = made
    assert check(history, final) != []
    assert check_revisions(history) != []


@given(serial_histories(overlapping=True), st.data())
def test_append_missing_from_or_twice_in_the_final_state_is_caught(
    made: tuple[list[Observed], Lists], data: st.DataObject
) -> None:
    history, final = made
    committed = [
        operation
        for transaction in history
        for operation in transaction.operations
        if isinstance(operation, Append) and transaction.outcome == "committed"
    ]
    assume(committed)
    append = data.draw(st.sampled_from(committed))
    rest = [element for element in final[append.key] if element != append.element]
    assert "lost-append" in kinds(check(history, {**final, append.key: rest}))
    twice = [*final[append.key], append.element]
    assert "duplicate-element" in kinds(check(history, {**final, append.key: twice}))


def serial_orders(history: Sequence[Observed]) -> Iterator[tuple[Observed, ...]]:
    """All orders of the committed transactions, with each choice of the indeterminate ones."""
    sure = [t for t in history if t.outcome == "committed"]
    unsure = [t for t in history if t.outcome == "indeterminate"]
    for count in range(len(unsure) + 1):
        for chosen in combinations(unsure, count):
            yield from permutations([*sure, *chosen])


def explains(order: Sequence[Observed], final: Mapping[str, Sequence[int]], timed: bool) -> bool:
    """Whether the transactions, run alone in this order, see and leave what was observed."""
    for place, later in enumerate(order if timed else ()):
        for earlier in order[:place]:
            if later.outcome == "committed" and later.ended < earlier.started:
                return False
    lists: Lists = {key: [] for key in KEYS}
    for transaction in order:
        operations = [(o.key, getattr(o, "element", None)) for o in transaction.operations]
        if tuple(run(operations, lists)) != transaction.operations:
            return False
    return lists == {key: list(final[key]) for key in KEYS}


@st.composite
def observed_histories(draw: st.DrawFn) -> tuple[list[Observed], Lists]:
    """Up to five transactions that saw beginnings of one final state: some serial, some not."""
    writes: list[list[Append | Read]] = [[] for _ in range(draw(st.integers(2, 5)))]
    final: Lists = {key: [] for key in KEYS}
    for element, key in enumerate(draw(st.lists(st.sampled_from(KEYS), max_size=5))):
        draw(st.sampled_from(writes)).append(Append(key, element))
        final[key].insert(draw(st.integers(0, len(final[key]))), element)
    history: list[Observed] = []
    for number, operations in enumerate(writes):
        for key in draw(st.lists(st.sampled_from(KEYS), max_size=2)):
            place = draw(st.integers(0, len(operations)))
            own = [o.element for o in operations[:place] if isinstance(o, Append) and o.key == key]
            seen = final[key][: draw(st.integers(0, len(final[key])))]
            others = [element for element in seen if element not in own]
            operations.insert(place, Read(key, (*others, *own)))
        started = draw(st.integers(0, 3))
        ended = started + draw(st.integers(0, 2))
        outcome: Any = draw(st.sampled_from(["committed"] * 5 + ["indeterminate", "aborted"]))
        history.append(Observed(f"T{number}", 0, started, ended, tuple(operations), outcome))
    return history, final


@given(observed_histories(), st.booleans())
@settings(max_examples=1_000)
def test_anomaly_is_found_exactly_if_no_serial_order_explains_the_history(
    made: tuple[list[Observed], Lists], real_time: bool
) -> None:
    history, final = made
    explained = any(explains(order, final, real_time) for order in serial_orders(history))
    found = check(history, final, real_time=real_time)
    assert (found == []) == explained, found
    if explained:
        assert check(history, real_time=real_time) == []
