"""Merge strategies as the store keeps them: a pattern and the name of a built-in, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from agentmem.engines.rows import (
    StrategyRow,
)
from agentmem.merge.registry import StoredStrategy
from agentmem.merge.strategy import Strategy
from agentmem.namespaces import Pattern

__all__ = ["parse_strategies", "pattern_text", "strategy_text"]


def pattern_text(pattern: Pattern) -> str:
    """A pattern as it is stored: the JSON list of its parts."""
    return orjson.dumps(pattern.parts).decode()


def strategy_text(strategy: Strategy) -> str:
    """A strategy as it is stored: its spec as JSON."""
    return strategy.spec_text


def parse_strategies(rows: Iterable[StrategyRow]) -> list[StoredStrategy]:
    """The stored strategies of a store."""
    # Imported here: most commits meet no conflict, and need no strategy.
    from agentmem.merge import strategy_from_spec

    found = []
    for row in rows:
        parts: list[Any] = orjson.loads(row.pattern)
        text = "/".join(part.lstrip("\x00") for part in parts)
        pattern = Pattern(tuple(parts), text)
        strategy = strategy_from_spec(orjson.loads(row.spec))
        found.append(StoredStrategy(text, pattern, strategy, row.position))
    return found
