"""Judge isolation from what clients saw: an Elle-style checker for list-append histories.

Clients append integers, unique per key, to lists and read whole lists. A read shows the order of
the appends in it, hence who came before whom (Kingsbury & Alvaro, "Elle: Inferring Isolation
Anomalies from Experimental Observations", VLDB 2020)::

    T1 reads x = ()      T2 reads x = ()         in the end x = (1, 2), so
    T1 appends 1 to x    T2 appends 2 to x       T1 -ww(key x)-> T2    2 came after 1
                                                 T2 -rw(key x)-> T1    T2 did not see 1

A cycle has no serial order. It is named after Adya (1999): ``G0`` has only ww edges; ``G1c`` ww
and wr (saw the other's append); ``G-single`` one rw: lost update, as above; ``G2-item`` more rw:
write skew. Suffix ``-realtime``: it needs an edge from one that ended to one that started later.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from agentmem.errors import InvalidValueError, MissingExtraError

__all__ = ["FINAL", "Anomaly", "Append", "Observed", "Read", "check", "check_revisions"]

FINAL: Final = "(final)"
"""The id that explanations give to a reader of the final state, after all transactions."""

# Worst first: an edge that the cycle must have, and the edges that may close it.
_G0, _G1C = ("ww", ("ww",)), ("wr", ("ww", "wr"))
_G_SINGLE, _G2_ITEM = ("rw", ("ww", "wr")), ("rw", ("ww", "wr", "rw"))
# Edges tried per component, and nodes visited for each: first all nearby, then a few at any depth.
_SEARCHES: Final = ((5_000, 500), (20, 1_000_000_000))

_Node = str | int  # a transaction, or a moment between transactions
_Edge = tuple[_Node, _Node, str, str]  # source, target, kind, key


@dataclass(frozen=True, slots=True)
class Append:
    """An element was added to the end of the key's list; no other append has this key and it."""

    key: str
    element: int


@dataclass(frozen=True, slots=True)
class Read:
    """The key's whole list, the transaction's own earlier appends included."""

    key: str
    elements: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """One transaction as its client saw it; all retries under one op_id are one transaction."""

    id: str
    process: int
    started: int  # monotonic nanoseconds, one clock for the whole history
    ended: int  # when the client knew the outcome, same clock
    operations: tuple[Append | Read, ...]  # in program order, of the attempt that counted
    # An indeterminate transaction counts as committed once an append of it was seen.
    outcome: Literal["committed", "aborted", "indeterminate"]
    revision: int | None = None  # None if unknown, or if the commit took none


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that a strictly serializable store never does."""

    # A cycle's name; G1a (aborted read), G1b (intermediate read), garbage-read, duplicate-element,
    # incompatible-order, lost-append, internal; duplicate-revision, revision-read,
    # revision-realtime.
    kind: str
    transactions: tuple[str, ...]  # the ids of those involved; of a cycle, in its order
    explanation: str


class _Seen(NamedTuple):
    """A read. Its first ``outside`` elements are not the reader's own, earlier appends."""

    reader: str
    key: str
    elements: tuple[int, ...]
    outside: int


@dataclass(slots=True)
class _Book:
    """The history, indexed; of anomalies of one kind about one thing the first is kept."""

    transactions: dict[str, Observed] = field(default_factory=dict)
    writers: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    last: dict[tuple[str, str], int] = field(default_factory=dict)  # a writer's last to a key
    committed: set[str] = field(default_factory=set)
    reads: list[_Seen] = field(default_factory=list)
    found: dict[tuple[object, ...], Anomaly] = field(default_factory=dict)

    def report(self, kind: str, about: object, ids: Iterable[str], text: str) -> None:
        involved = tuple(dict.fromkeys(i for i in ids if i != FINAL))
        self.found.setdefault((kind, about), Anomaly(kind, involved, text))


def check(
    history: Iterable[Observed],
    final: Mapping[str, Sequence[int]] | None = None,
    *,
    real_time: bool = True,
) -> list[Anomaly]:
    """The anomalies of a list-append history; none if the store is strictly serializable.

    Linear in the elements read, but for sorting. Of cycles that hang together one is reported, of
    the worst class (among thousands of transactions a G-single may be missed and be called
    G2-item); of other anomalies one for each element.

    Args:
        history: every transaction that was begun, in any order.
        final: the lists after the last transaction; an absent key means an empty list.
        real_time: also demand that a transaction comes after those that ended before it started.

    Raises:
        InvalidValueError: an id or append appears twice, or a transaction ends before it starts.
        MissingExtraError: networkx is not installed.
    """
    book = _open(history)
    if final is not None:
        end = 1 + max((t.ended for t in book.transactions.values()), default=0)
        lists = tuple(Read(key, tuple(final.get(key, ()))) for key in {**final, **book.writers})
        book.transactions[FINAL] = Observed(FINAL, -1, end, end, lists, "committed")
    _decide(book)
    orders = _judge_reads(book)
    _judge_orders(book, orders, final)
    edges = list(_dependencies(book, orders))
    for cycle in _cycles([*edges, *_real_time(book)] if real_time else edges):
        steps = [(str(step[0]), *step[2:]) for step in cycle if isinstance(step[0], str)]
        kinds = [kind for _, kind, _ in steps]
        name = "G1c" if "wr" in kinds else "G0"
        if "rw" in kinds:
            name = "G-single" if kinds.count("rw") == 1 else "G2-item"
        words = [f"{i} -{kind}" + f"(key {key})" * bool(key) for i, kind, key in steps]
        text = "-> ".join([*words, steps[0][0]])
        book.report(name + "-realtime" * ("realtime" in kinds), text, (s[0] for s in steps), text)
    return list(book.found.values())


def check_revisions(history: Iterable[Observed]) -> list[Anomaly]:
    """The committed transactions that did not run alone, one after the other, by revision.

    Revisions must be unique, reads must show exactly the appends of smaller revisions in their
    order, and a transaction's revision must exceed those of all that ended before it started.
    Committed transactions without a revision are not judged; appends of theirs and of
    indeterminate ones may be seen or not. Raises as `check` does, but needs no networkx.
    """
    book = _open(history)
    numbers = {
        t.id: t.revision
        for t in book.transactions.values()
        if t.outcome == "committed" and t.revision is not None
    }
    known = sorted((book.transactions[i] for i in numbers), key=lambda t: (numbers[t.id], t.id))
    for one, two in pairwise(known):
        if one.revision == two.revision:
            text = f"{one.id} and {two.id} both have revision {one.revision}"
            book.report("duplicate-revision", two.id, (one.id, two.id), text)
    _judge_revision_reads(book, known)
    # The queue is never empty: late is in it until something starts after late ended.
    ended, newest = deque(sorted(known, key=lambda t: t.ended)), known[0] if known else None
    for late in sorted(known, key=lambda t: t.started):
        while newest and ended[0].ended < late.started:
            newest = max(newest, ended.popleft(), key=lambda t: numbers[t.id])
        if newest and numbers[newest.id] > numbers[late.id]:
            text = f"{newest.id} with revision {newest.revision} had ended before {late.id} started"
            text = f"{text}, which has {late.revision}"
            book.report("revision-realtime", late.id, (newest.id, late.id), text)
    return list(book.found.values())


def _judge_revision_reads(book: _Book, known: list[Observed]) -> None:
    """Compare every read with the appends of smaller revisions and the transaction's own."""
    judged = {t.id for t in known} | {
        t.id for t in book.transactions.values() if t.outcome == "aborted"
    }
    optional = {k: {e for e, w in ws.items() if w not in judged} for k, ws in book.writers.items()}
    lists: defaultdict[str, list[int]] = defaultdict(list)
    for transaction in known:
        own: defaultdict[str, list[int]] = defaultdict(list)
        for operation in transaction.operations:
            key = operation.key
            if isinstance(operation, Append):
                own[key].append(operation.element)
                continue
            expected, seen = lists[key] + own[key], list(operation.elements)
            if seen != expected and optional.get(key):
                seen = [element for element in seen if element not in optional[key]]
            if seen != expected:
                text = f"{transaction.id} at revision {transaction.revision} read {key}: it"
                text = f"{text} {_difference(seen, expected, 'by revision')}"
                book.report("revision-read", (transaction.id, key), (transaction.id,), text)
        for key, elements in own.items():
            lists[key].extend(elements)


def _difference(seen: Sequence[int], expected: Sequence[int], to: str) -> str:
    """Where two lists begin to differ; they may be long."""
    pairs = zip(seen, expected, strict=False)
    place = next((n for n, (one, two) in enumerate(pairs) if one != two), None)
    if place is None:
        return f"had {len(seen)} elements, {len(expected)} {to}"
    return f"had {seen[place]} at place {place}, {expected[place]} {to}"


def _open(history: Iterable[Observed]) -> _Book:
    book = _Book()
    for place, transaction in enumerate(history):
        problem = "ended before it started" if transaction.ended < transaction.started else ""
        if transaction.id in book.transactions or transaction.id == FINAL:
            problem = "has an id that is taken"
        book.transactions[transaction.id] = transaction
        for key, element in _appends(transaction):
            if element in book.writers[key]:
                problem = f"appends {element} to {key} again; record retries as one transaction"
            book.writers[key][element] = transaction.id
            book.last[transaction.id, key] = element
        if problem:
            raise InvalidValueError(f"{transaction.id} {problem}", path=f"history[{place}]")
    return book


def _appends(transaction: Observed) -> Iterator[tuple[str, int]]:
    return ((o.key, o.element) for o in transaction.operations if isinstance(o, Append))


def _decide(book: _Book) -> None:
    """Find out who committed, and collect what those read."""
    seen: defaultdict[str, set[int]] = defaultdict(set)
    unsure = [t for t in book.transactions.values() if t.outcome == "indeterminate"]
    fresh = [t for t in book.transactions.values() if t.outcome == "committed"]
    while fresh:
        for transaction in fresh:
            book.committed.add(transaction.id)
            for read in _reads(book, transaction):
                book.reads.append(read)
                seen[read.key].update(read.elements if unsure else ())
        unsure = [t for t in unsure if t.id not in book.committed]
        fresh = [t for t in unsure if any(e in seen[key] for key, e in _appends(t))]


def _reads(book: _Book, transaction: Observed) -> Iterator[_Seen]:
    """A transaction's reads; reports those that disagree with its own operations."""
    known: dict[str, tuple[int, ...]] = {}
    own: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for operation in transaction.operations:
        key, before = operation.key, known.get(operation.key)
        if isinstance(operation, Append):
            own[key] += (operation.element,)
            good = before is None or operation.element not in before
            if before is not None:
                known[key] = (*before, operation.element)
        else:
            seen, mine = operation.elements, own[key]
            outside = len(seen) - len(mine)
            ends_well = outside >= 0 and seen[outside:] == mine
            good = ends_well if before is None else seen == before
            known[key] = seen
            yield _Seen(transaction.id, key, seen, outside if ends_well else len(seen))
        if not good:
            text = f"{operation!s:.80} in {transaction.id} contradicts its operations on {key}"
            book.report("internal", (transaction.id, key), (transaction.id,), text)


def _judge_reads(book: _Book) -> dict[str, tuple[int, ...]]:
    """Report what no committed state can show; return the longest list read of each key."""
    longest: dict[str, _Seen] = {}
    for read in book.reads:
        if read.key not in longest or len(read.elements) > len(longest[read.key].elements):
            longest[read.key] = read
    for read in book.reads:
        reader, key, seen, outside = read
        writers, best = book.writers[key], longest[key]
        for element in seen[:outside][-1:]:
            writer = writers.get(element, reader)
            if writer != reader and book.last[writer, key] != element:
                text = f"{reader} read {key} up to {element}, before the last append of {writer}"
                book.report("G1b", (key, element), (writer, reader), text)
        if seen != best.elements[: len(seen)]:
            text = f"{key} {_difference(seen, best.elements, f'to {best.reader}')} to {reader}"
            book.report("incompatible-order", (key, seen), (reader, best.reader), text)
        elif read is not best:
            continue  # The longest list holds whatever is wrong with this one.
        for element, count in Counter(seen).items():
            writer, text = writers.get(element, ""), f"{reader} read {element} in {key}"
            if count > 1:
                text = f"{text} {count} times"
                book.report("duplicate-element", (key, element), (writer, reader), text)
            if not writer:
                text = f"{text}, which nobody appended"
                book.report("garbage-read", (key, element), (reader,), text)
            elif writer not in book.committed:
                text = f"{text}, appended by {writer}, which aborted"
                book.report("G1a", (key, element), (writer, reader), text)
    # With an element twice, positions in the list say nothing about who came first.
    return {k: s.elements for k, s in longest.items() if len(set(s.elements)) == len(s.elements)}


def _judge_orders(
    book: _Book, orders: dict[str, tuple[int, ...]], final: Mapping[str, Sequence[int]] | None
) -> None:
    """Report lost and displaced appends; with no final state a lone unread writer is the last."""
    for key, writers in book.writers.items():
        held = set(orders.get(key, ()) if final is None else final.get(key, ()))
        missing = {e: w for e, w in writers.items() if w in book.committed and e not in held}
        if final is None and len(set(missing.values())) == 1:
            orders[key] = (*orders.get(key, ()), *missing)
        for element, writer in missing.items() if final is not None else ():
            text = f"{writer} appended {element} to {key}, and the final state lacks it"
            book.report("lost-append", (key, element), (writer,), text)
        program = {element: place for place, element in enumerate(writers)}
        for one, two in pairwise(orders.get(key, ())):
            writer = writers.get(one, "")
            if writer and writer == writers.get(two) and program[one] > program[two]:
                text = f"{writer} appended {two} to {key} before {one}, but it stands behind it"
                book.report("incompatible-order", (key, two), (writer,), text)


def _dependencies(book: _Book, orders: dict[str, tuple[int, ...]]) -> Iterator[_Edge]:
    clean: dict[str, list[str]] = {}  # the committed writers of the list's elements
    dirty: dict[str, list[int]] = {}  # the places of all other elements
    for key, order in orders.items():
        writers = [book.writers[key].get(element, "") for element in order]
        clean[key] = [writer for writer in writers if writer in book.committed]
        dirty[key] = [n for n, writer in enumerate(writers) if writer not in book.committed]
        yield from ((source, target, "ww", key) for source, target in pairwise(clean[key]))
    for reader, key, seen, outside in book.reads:
        if key in orders and seen == orders[key][: len(seen)]:
            rank = outside - bisect_left(dirty[key], outside)
            if rank > 0:
                yield clean[key][rank - 1], reader, "wr", key
            if rank < len(clean[key]):
                yield reader, clean[key][rank], "rw", key


def _real_time(book: _Book) -> Iterator[_Edge]:
    """Edges through a chain of moments: three a transaction, not one for each pair.

    A moment lies between a run of ends and the next run of starts. An indeterminate transaction
    may take effect at any time after its start, so nothing comes after its end.
    """
    committed = [book.transactions[i] for i in book.committed]
    events = [(t.started, False, t.id) for t in committed]
    events += [(t.ended, True, t.id) for t in committed if t.outcome == "committed"]
    moment, after_end = 0, False
    for _, is_end, i in sorted(events):  # At one instant starts come first: concurrent.
        if is_end and not after_end:
            moment += 1
            yield moment - 1, moment, "realtime", ""
        yield (i, moment, "realtime", "") if is_end else (moment, i, "realtime", "")
        after_end = is_end


def _cycles(edges: Iterable[_Edge]) -> Iterator[list[_Edge]]:
    """A short cycle of each strongly connected component, of the worst class that it holds."""
    try:
        networkx: Any = importlib.import_module("networkx")
    except ImportError as exc:
        message = "checking histories needs networkx: pip install 'agentmem-store[testing]'"
        raise MissingExtraError(message, extra="testing") from exc
    graph = networkx.DiGraph()
    for source, target, kind, key in edges:
        if source != target:
            graph.add_edge(source, target, **{kind: key})
    knots = [knot for knot in networkx.strongly_connected_components(graph) if len(knot) > 1]
    tangled = list(graph.edges(set().union(*knots), data=True))
    reported: set[_Node] = set()
    for extra in ((), ("realtime",)) if knots else ():
        for needed, back in (_G0, _G1C, _G_SINGLE, _G2_ITEM):
            allowed = {needed, *back, *extra}
            graph = networkx.DiGraph(e for e in tangled if not allowed.isdisjoint(e[2]))
            for knot in networkx.strongly_connected_components(graph):
                fresh = len(knot) > 1 and reported.isdisjoint(knot)
                if fresh and (cycle := _short_cycle(graph, knot, needed, (*back, *extra))):
                    reported |= knot
                    yield cycle


def _short_cycle(graph: Any, knot: set[_Node], needed: str, back: tuple[str, ...]) -> list[_Edge]:
    """A short cycle of one edge of kind ``needed`` and a way back; empty if none was found."""
    edges = [e for e in graph.edges(knot, data=True) if needed in e[2] and e[1] in knot]
    best: list[_Edge] = []
    for tries, visits in _SEARCHES:
        for source, target, labels in () if best else edges[:tries]:
            path = _path(graph, knot, target, source, back, visits)
            if path and (not best or len(path) + 1 < len(best)):
                best = [(source, target, needed, labels[needed]), *path]
            if len(best) == 2:
                return best
    return best


def _path(
    graph: Any, knot: set[_Node], start: _Node, goal: _Node, kinds: tuple[str, ...], visits: int
) -> list[_Edge]:
    """The path with the fewest transactions over edges of these kinds; empty if none was found."""
    steps: dict[_Node, _Edge] = {}
    length: dict[_Node, int] = {start: 0}
    queue = deque([start])
    while queue and visits and queue[0] != goal:
        node, visits = queue.popleft(), visits - 1
        longer = length[node] + isinstance(node, str)  # Moments are free.
        for target, labels in graph.adj[node].items():
            kind = next((kind for kind in kinds if kind in labels), None)
            if kind and target in knot and longer < length.get(target, longer + 1):
                length[target], steps[target] = longer, (node, target, kind, labels[kind])
                queue.append(target) if isinstance(node, str) else queue.appendleft(target)
    path: list[_Edge] = []
    while goal != start and goal in steps:
        path.append(steps[goal])
        goal = steps[goal][0]
    return path[::-1]
