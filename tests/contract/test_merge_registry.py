"""Which hook or stored strategy a key has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import pytest

from agentmem import merge
from agentmem.limits import Limits
from agentmem.merge.registry import Match, MergeRegistry, StoredStrategy
from agentmem.model import Conflict
from agentmem.namespaces import Pattern

KEY = (("notes", "team"), "plan")


def pattern(text: str) -> Pattern:
    return Pattern.parse(text, Limits())


def stored(text: str, strategy: merge.Strategy, position: int = 1) -> StoredStrategy:
    return StoredStrategy(text, pattern(text), strategy, position)


def hook(conflict: Conflict) -> Any:
    return [conflict.theirs, conflict.ours]


def found(match: Match | None) -> str:
    assert match is not None
    return match.name


def test_a_key_without_hook_and_strategy_has_no_match() -> None:
    registry = MergeRegistry()
    assert registry.match(*KEY, []) is None
    registry.add_hook(pattern("other/**"), hook, "other")
    assert registry.match(*KEY, [stored("notes/x", merge.union)]) is None
    assert not registry.has_any(*KEY)


def test_a_python_hook_is_called_as_it_is() -> None:
    registry = MergeRegistry()
    registry.add_hook(pattern("notes/**"), hook, "both")
    match = registry.match(*KEY)
    assert match == Match("both", hook)
    assert match is not None
    assert match.merge is hook
    assert (match.strategy, match.builtin) == (None, False)


def test_a_strategy_is_builtin_wherever_it_was_registered() -> None:
    registry = MergeRegistry()
    assert registry.match(*KEY, [stored("**", merge.union)]) == Match(
        "union", merge.union, merge.union
    )
    registry.add_hook(pattern("**"), merge.counter, "ignored: a strategy has a name")
    match = registry.match(*KEY)
    assert match == Match("counter", merge.counter, merge.counter)
    assert match is not None
    assert match.builtin


MOST_SPECIFIC_FIRST = (
    "notes/team/plan",
    "notes/*/plan",
    "notes/**/plan",
    "notes/**",
    "*/*/*",
    "**",
)


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("local", [True, False])
def test_more_literal_parts_win_then_fewer_double_stars(
    order: tuple[int, ...], local: bool
) -> None:
    for first in range(len(MOST_SPECIFIC_FIRST) - 3):
        texts = MOST_SPECIFIC_FIRST[first : first + 4]
        registry, kept = MergeRegistry(), []
        for position, index in enumerate(order):
            if local:
                registry.add_hook(pattern(texts[index]), hook, texts[index])
            else:
                strategy = list(merge.BUILTINS.values())[index]
                kept.append(stored(texts[index], strategy, position))
        expected = texts[0] if local else next(iter(merge.BUILTINS))
        assert found(registry.match(*KEY, kept)) == expected


def test_a_more_specific_stored_strategy_wins_over_a_hook_and_the_other_way_round() -> None:
    registry = MergeRegistry()
    registry.add_hook(pattern("notes/**"), hook, "local")
    assert found(registry.match(*KEY, [stored("notes/team/*", merge.union)])) == "union"
    assert found(registry.match(*KEY, [stored("**", merge.union)])) == "local"


def test_of_equally_specific_patterns_the_later_wins() -> None:
    registry = MergeRegistry()
    registry.add_hook(pattern("notes/*/*"), hook, "first")
    registry.add_hook(pattern("*/team/*"), hook, "second")
    assert found(registry.match(*KEY)) == "second"
    kept = [stored("*/team/*", merge.union, 7), stored("notes/*/*", merge.counter, 3)]
    assert found(MergeRegistry().match(*KEY, kept)) == "union"


def test_on_a_tie_a_hook_wins_over_a_stored_strategy() -> None:
    registry = MergeRegistry()
    registry.add_hook(pattern("notes/**"), hook, "local")
    assert found(registry.match(*KEY, [stored("notes/**", merge.union, 99)])) == "local"


def test_a_hook_replaces_one_with_the_same_pattern() -> None:
    registry = MergeRegistry()
    for number in range(100):
        registry.add_hook(pattern("notes/**"), hook, f"hook {number}")
    assert registry.patterns() == (pattern("notes/**"),)
    assert found(registry.match(*KEY)) == "hook 99"


def test_patterns_with_one_text_under_different_prefixes_are_two() -> None:
    registry = MergeRegistry()
    registry.add_hook(Pattern.parse("**", Limits(), ("notes",)), hook, "notes")
    registry.add_hook(Pattern.parse("**", Limits(), ("other",)), hook, "other")
    assert found(registry.match(*KEY)) == "notes"
    assert found(registry.match(("other",), "k")) == "other"


def test_has_any_agrees_with_match() -> None:
    registry = MergeRegistry()
    registry.add_hook(pattern("notes/**"), hook, "local")
    assert registry.has_any(*KEY)
    assert not registry.has_any((), "plan")
    assert registry.has_any((), "plan", [stored("plan", merge.union)])


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="a merge hook is a function, not str"):
        MergeRegistry().add_hook(pattern("**"), "union", "union")  # type: ignore[arg-type]  # the point


def test_no_registration_is_lost_among_threads() -> None:
    registry = MergeRegistry()
    with ThreadPoolExecutor(8) as threads:
        for number in range(400):
            threads.submit(registry.add_hook, pattern(f"n{number}/**"), hook, f"hook {number}")
    assert len(registry.patterns()) == 400
    assert all(found(registry.match((f"n{n}",), "k")) == f"hook {n}" for n in range(400))
