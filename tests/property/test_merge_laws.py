"""The laws of the merge strategies, on arbitrary JSON and on values of their own kind.

MISSING and DELETE are drawn like values: absence is a state that merges meet, too.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from agentmem import merge
from agentmem.merge.lines import LineMatcher
from agentmem.model import DELETE, MISSING, Conflict, Entry
from agentmem.values import canonical
from tests.strategies import json_objects, json_values, numbers, texts

MODEL: Final = merge.model(
    {"a": "union", "b": merge.counter, "n": "maximum", "t": "text"}, otherwise="json"
)
# Agrees: no field in it counts the same change on both sides twice.
AGREEING_MODEL: Final = merge.model({"a": merge.union, "n": merge.maximum, "t": merge.text})
TAKES_A_SIDE: Final = (merge.theirs, merge.ours, merge.escalate)
MERGES: Final = (
    *(each for each in merge.BUILTINS.values() if each not in TAKES_A_SIDE),
    MODEL,
)
REFUSED: Final = "unmergeable"


def lists() -> SearchStrategy[list[Any]]:
    """Lists that share elements, some of them equal in Python and different in JSON."""
    elements = st.sampled_from((1, 1.0, True, 0, False, None, "a", "b", [1], [True], {"a": 1}))
    return st.lists(elements, max_size=5).map(copy.deepcopy)


def some_lines() -> SearchStrategy[str]:
    """Texts of few different lines, with and without an end of the last one."""
    line = st.sampled_from(("a\n", "b\n", "c\n", "\n", "a\r\n", "\u2028\n"))
    last = st.sampled_from(("", "a", "b"))
    return st.builds(lambda before, end: "".join(before) + end, st.lists(line, max_size=6), last)


def objects() -> SearchStrategy[dict[str, Any]]:
    """Objects with the fields of MODEL, of the right types and of wrong ones."""
    fields = {"a": lists(), "b": numbers(), "n": numbers(), "t": some_lines(), "x": numbers()}
    right = st.fixed_dictionaries({}, optional=fields)
    return right | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(fields, json_values(max_leaves=4))
    )


def _members(inner: SearchStrategy[Any], *, min_size: int) -> SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from("abc"), inner, min_size=min_size, max_size=3)


# Large enough for two sides to change different places; most sides do change something.
leaves = st.integers(0, 2)
trees = _members(_members(_members(leaves, min_size=1) | leaves, min_size=1) | leaves, min_size=2)
edits = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(0, 4) | st.just(DELETE)),
    min_size=1,
    max_size=3,
)


def edited(tree: dict[str, Any], changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """The tree with leaves set or removed; a path is a text of one-letter names."""
    copied = copy.deepcopy(tree)
    for path, value in changes:
        place: Any = copied
        for name in path[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict) and value is not DELETE:
            place[path[-1]] = value
        elif isinstance(place, dict) and len(place) > 1:
            place.pop(path[-1], None)
    return copied


related_trees = st.builds(
    lambda base, *sides: (base, *(edited(base, side) for side in sides)), trees, edits, edits
)


def _with_lines(lines: list[str], changes: dict[int, str]) -> str:
    return "".join(changes.get(number, line) for number, line in enumerate(lines))


_line = st.sampled_from(("a\n", "b\n", "c\n", "\n", "d\ne\n", ""))
_line_changes = st.dictionaries(st.integers(0, 9), _line, min_size=1, max_size=2)
related_texts = st.builds(
    lambda lines, *sides: tuple(_with_lines(lines, side) for side in ({}, *sides)),
    st.lists(_line, min_size=10, max_size=10),
    _line_changes,
    _line_changes,
)


OWN_KIND: Final[dict[str, SearchStrategy[Any]]] = {
    "counter": numbers(),
    "union": lists(),
    "append": lists(),
    "maximum": numbers() | texts(max_size=3),
    "minimum": numbers() | texts(max_size=3),
    "json": json_objects(max_leaves=3),
    "text": some_lines(),
    "model": objects(),
}


def values_for(strategy: merge.Strategy) -> SearchStrategy[Any]:
    """Mostly what the strategy is for, else anything."""
    return st.one_of(OWN_KIND[strategy.name], OWN_KIND[strategy.name], json_values(max_leaves=4))


def present_or_not(strategy: merge.Strategy) -> SearchStrategy[tuple[Any, Any, Any]]:
    """(base, theirs, ours), with absence among them."""
    side = st.one_of(values_for(strategy), values_for(strategy), st.just(DELETE))
    base = side.map(lambda value: MISSING if value is DELETE else value)
    unrelated = st.tuples(base, side, side)
    # Objects and texts that have nothing to do with each other are hardly ever merged.
    related = {"json": related_trees, "text": related_texts}
    return related.get(strategy.name, unrelated) | unrelated


def text_of(value: Any) -> bytes:
    """Equal exactly for equal JSON, and for absence on both sides."""
    return b"absent" if value is DELETE or value is MISSING else canonical(value)


def attempt(strategy: merge.Strategy, base: Any, theirs: Any, ours: Any) -> bytes | str:
    try:
        return text_of(strategy.merge(base, theirs, ours))
    except merge.Unmergeable:
        return REFUSED


# Each runs for every strategy.
per_strategy = settings(max_examples=50)
every_merge = pytest.mark.parametrize("strategy", MERGES, ids=lambda each: each.name)
commuting = pytest.mark.parametrize(
    "strategy",
    [merge.counter, merge.union, merge.maximum, merge.minimum, merge.json, merge.text],
    ids=lambda each: each.name,
)


@every_merge
@per_strategy
@given(data=st.data())
def test_what_one_side_left_alone_is_taken_from_the_other(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    base, changed, _ = data.draw(present_or_not(strategy))
    assert text_of(strategy.merge(base, copy.deepcopy(base), changed)) == text_of(changed)
    assert text_of(strategy.merge(base, changed, copy.deepcopy(base))) == text_of(changed)


@every_merge
@per_strategy
@given(data=st.data())
def test_one_and_true_and_one_point_zero_are_changes(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    alike = st.permutations((1, 1.0, True))
    base, changed, _ = data.draw(alike)
    wrap = data.draw(
        st.sampled_from((lambda v: v, lambda v: [v], lambda v: {"a": [v]}, lambda v: {"n": v}))
    )
    assert text_of(strategy.merge(wrap(base), wrap(base), wrap(changed))) == text_of(wrap(changed))
    assert text_of(strategy.merge(wrap(base), wrap(changed), wrap(base))) == text_of(wrap(changed))


@pytest.mark.parametrize("strategy", TAKES_A_SIDE, ids=lambda each: each.name)
@per_strategy
@given(data=st.data())
def test_a_strategy_that_takes_a_side_always_takes_it(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    base, theirs, ours = data.draw(present_or_not(merge.json))
    outcome = strategy.resolve_values(base, theirs, ours)
    winner, loser = (ours, theirs) if strategy is merge.ours else (theirs, ours)
    assert text_of(outcome.value) == text_of(winner)
    loses = text_of(loser) not in (text_of(winner), text_of(base))
    assert (outcome.keeps_loser, outcome.parks) == (
        loses and strategy is not merge.escalate,
        loses and strategy is merge.escalate,
    )


@commuting
@per_strategy
@given(data=st.data())
def test_it_does_not_matter_who_came_first(strategy: merge.Strategy, data: st.DataObject) -> None:
    base, theirs, ours = data.draw(present_or_not(strategy))
    first = attempt(strategy, base, theirs, ours)
    assert first == attempt(strategy, base, ours, theirs)


@pytest.mark.parametrize(
    "strategy",
    [merge.union, merge.maximum, merge.minimum, merge.json, merge.text, AGREEING_MODEL],
    ids=lambda each: each.name,
)
@per_strategy
@given(data=st.data())
def test_the_same_change_on_both_sides_is_one_change(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    base, changed, _ = data.draw(present_or_not(strategy))
    same = strategy.merge(base, changed, copy.deepcopy(changed))
    assert text_of(same) == text_of(changed)


@every_merge
@per_strategy
@given(data=st.data())
def test_a_delete_merges_with_nothing_but_an_unchanged_key(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    base, changed = data.draw(st.tuples(values_for(strategy), values_for(strategy)))
    assert strategy.merge(base, DELETE, DELETE) is DELETE
    assert strategy.merge(base, DELETE, base) is DELETE
    assert strategy.merge(base, base, DELETE) is DELETE
    assume(canonical(base) != canonical(changed))
    assert attempt(strategy, base, DELETE, changed) == REFUSED
    assert attempt(strategy, base, changed, DELETE) == REFUSED


@every_merge
@per_strategy
@given(data=st.data())
def test_a_merge_changes_none_of_its_arguments(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    three = data.draw(present_or_not(strategy))
    before = [text_of(each) for each in three]
    attempt(strategy, *three)
    assert [text_of(each) for each in three] == before


@every_merge
@per_strategy
@given(data=st.data())
def test_a_conflict_is_merged_as_its_values_are(
    strategy: merge.Strategy, data: st.DataObject
) -> None:
    base, theirs, ours = data.draw(present_or_not(strategy))
    conflict = Conflict(
        namespace=("team",),
        key="plan",
        base=None if base is MISSING else base,
        theirs=theirs,
        ours=ours,
        base_entry=None if base is MISSING else Entry(("team",), "plan", 1, 1, base),
        theirs_entry=None if theirs is DELETE else Entry(("team",), "plan", 2, 2, theirs),
    )
    try:
        found: bytes | str = text_of(strategy(conflict))
    except merge.Unmergeable:
        found = REFUSED
    assert found == attempt(strategy, base, theirs, ours)


small = st.integers(-1000, 1000)


@given(base=small, added=st.lists(small, max_size=6))
def test_a_counter_counts_every_change_from_one_base(base: int, added: list[int]) -> None:
    total: Any = base
    for by in added:
        total = merge.counter.merge(base, total, base + by)
    assert total == base + sum(added)
    assert type(total) is int


@given(lists(), lists(), lists())
def test_a_union_is_the_three_way_merge_of_sets(
    base: list[Any], theirs: list[Any], ours: list[Any]
) -> None:
    texts_of = [list(map(canonical, each)) for each in (base, theirs, ours)]
    assume(len({tuple(each) for each in texts_of}) == 3)
    old, left, right = map(set, texts_of)
    merged = [canonical(each) for each in merge.union.merge(base, theirs, ours)]
    assert set(merged) == (old & left & right) | (left - old) | (right - old)
    assert len(set(merged)) == len(merged)
    kept, added = merged[: len(old & left & right)], merged[len(old & left & right) :]
    assert kept == [each for each in dict.fromkeys(texts_of[0]) if each in kept]
    assert added == sorted(added)


@given(lists(), lists(), lists())
def test_append_keeps_all_that_theirs_has_and_all_that_was_appended(
    base: list[Any], theirs: list[Any], suffix: list[Any]
) -> None:
    merged = merge.append.merge(base, theirs, base + suffix)
    assert canonical(merged) == canonical(theirs + suffix)


@given(base=lists(), theirs=lists(), ours=lists())
def test_append_refuses_what_does_not_only_append(
    base: list[Any], theirs: list[Any], ours: list[Any]
) -> None:
    assume(canonical(ours[: len(base)]) != canonical(base))
    assume(canonical(theirs) != canonical(base))
    assert attempt(merge.append, base, theirs, ours) == REFUSED


@given(st.tuples(numbers(), numbers(), numbers()) | st.tuples(texts(), texts(), texts()))
def test_maximum_and_minimum_keep_the_larger_and_the_smaller(three: tuple[Any, Any, Any]) -> None:
    base, theirs, ours = three
    assume(len({canonical(each) for each in three}) == 3)
    largest, smallest = merge.maximum.merge(*three), merge.minimum.merge(*three)
    assert {canonical(largest), canonical(smallest)} == {canonical(theirs), canonical(ours)}
    if isinstance(base, str):
        assert largest.encode() > smallest.encode()
    else:
        assert largest >= smallest


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Path → leaf; an object that is empty is a leaf, else its members are."""
    if isinstance(value, dict) and value:
        return {
            inner: leaf
            for name, member in value.items()
            for inner, leaf in _leaves(member, (*path, name)).items()
        }
    return {path: value}


@settings(max_examples=200)
@given(related_trees)
def test_json_keeps_each_change_of_a_leaf(three: tuple[Any, Any, Any]) -> None:
    base, theirs, ours = three
    old, left, right = _leaves(base), _leaves(theirs), _leaves(ours)
    try:
        merged = _leaves(merge.json.merge(base, theirs, ours))
    except merge.Unmergeable:
        # Refused only for a reason: some change of the one meets some change of the other.
        assert any(
            _meets(mine, their)
            and (mine != their or _nodes(ours).get(mine) != _nodes(theirs).get(their))
            for mine in _changed(_nodes(base), _nodes(ours))
            for their in _changed(_nodes(base), _nodes(theirs))
        )
        return
    for side in (left, right):
        for path in _changed(old, side):
            assert merged.get(path, "gone") == side.get(path, "gone")
    for path in old.keys() - _changed(old, left) - _changed(old, right):
        assert merged[path] == old[path]


def _nodes(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """As `_leaves`, and every path to an object: that an object is gone is a change, too."""
    if not isinstance(value, dict):
        return {path: value}
    members = (_nodes(member, (*path, name)).items() for name, member in value.items())
    return {path: "object", **{inner: node for each in members for inner, node in each}}


def _changed(old: dict[Any, Any], new: dict[Any, Any]) -> set[tuple[str, ...]]:
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}


def _meets(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


@given(
    st.lists(st.sampled_from(("a", "b", "")), min_size=1, max_size=30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from(("", "\n")),
)
def test_text_keeps_changes_of_lines_that_do_not_touch(
    words: list[str], first: int, second: int, end: str
) -> None:
    # Numbered, so that no line can be taken for another.
    lines = [f"{number} {word}" for number, word in enumerate(words)]
    first, second = first % len(lines), second % len(lines)
    assume(abs(first - second) > 1)

    def changed(*numbers: int) -> str:
        return (
            "\n".join(
                f"new {number}\nnew" if number in numbers else line
                for number, line in enumerate(lines)
            )
            + end
        )

    merged = merge.text.merge(changed(), changed(first), changed(second))
    assert merged == changed(first, second)


@given(related_texts | st.tuples(some_lines(), some_lines(), some_lines()))
def test_text_invents_no_lines(three: tuple[str, str, str]) -> None:
    base, theirs, ours = three
    try:
        merged = merge.text.merge(base, theirs, ours)
    except merge.Unmergeable:
        return
    known = {line for each in (base, theirs, ours) for line in each.split("\n")}
    assert set(merged.split("\n")) <= known


@given(st.data())
def test_the_line_matcher_gives_equal_blocks_in_order(data: st.DataObject) -> None:
    letters = "abcdefgh"[: data.draw(st.integers(1, 8))]
    left, right = (data.draw(st.lists(st.sampled_from(letters), max_size=14)) for _ in "12")
    blocks = LineMatcher(None, left, right).get_matching_blocks()
    end_left = end_right = 0
    for i, j, length in blocks:
        assert i >= end_left
        assert j >= end_right
        assert left[i : i + length] == right[j : j + length]
        end_left, end_right = i + length, j + length
    assert blocks[-1] == (len(left), len(right), 0)
    assert all(length for _, _, length in blocks[:-1])


@given(st.permutations(list("abcdefgh")), st.permutations(list("abcdefgh")))
def test_the_line_matcher_finds_the_longest_order_of_single_lines(
    left: list[str], right: list[str]
) -> None:
    matched = sum(length for _, _, length in LineMatcher(None, left, right).get_matching_blocks())
    longest = [0] * len(left)
    for index, line in enumerate(left):
        before = [
            longest[earlier]
            for earlier in range(index)
            if right.index(left[earlier]) < right.index(line)
        ]
        longest[index] = 1 + max(before, default=0)
    # Common ends are taken first, as in Bazaar; with them the longest order can be missed.
    if left[0] != right[0] and left[-1] != right[-1]:
        assert matched == max(longest)


specs = st.recursive(
    st.sampled_from(list(merge.BUILTINS)),
    lambda inner: st.builds(
        lambda fields, otherwise: {"model": {"fields": fields, "otherwise": otherwise}},
        st.dictionaries(texts(min_size=1, max_size=2), inner, max_size=3),
        inner,
    ),
    max_leaves=5,
)


@given(specs)
def test_a_strategy_is_its_spec(spec: Any) -> None:
    strategy = merge.strategy_from_spec(spec)
    assert strategy.spec == spec
    assert merge.strategy_from_spec(strategy) is strategy
    for twin in (merge.strategy_from_spec(spec), pickle.loads(pickle.dumps(strategy))):  # noqa: S301  # own bytes
        assert twin == strategy
        assert hash(twin) == hash(strategy)
        assert (twin.keeps_loser, twin.parks) == (strategy.keeps_loser, strategy.parks)


@given(data=st.data())
def test_a_model_merges_each_field_that_both_changed_by_its_strategy(data: st.DataObject) -> None:
    base, theirs, ours = (data.draw(objects()) for _ in range(3))
    assume(len({canonical(each) for each in (base, theirs, ours)}) == 3)
    fields = {"a": merge.union, "b": merge.counter, "n": merge.maximum, "t": merge.text}
    by_field = {
        name: attempt(
            fields.get(name, merge.json),
            base.get(name, MISSING),
            theirs.get(name, DELETE),
            ours.get(name, DELETE),
        )
        for name in theirs | ours
    }
    merged = attempt(MODEL, base, theirs, ours)
    if REFUSED in by_field.values():
        assert merged == REFUSED
    else:
        members = {name: text for name, text in by_field.items() if text != b"absent"}
        whole = MODEL.merge(base, theirs, ours)
        assert {name: canonical(value) for name, value in whole.items()} == members
