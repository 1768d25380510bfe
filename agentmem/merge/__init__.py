"""Merge strategies: ``from agentmem import merge``, then ``merge.union``.

=========  ==================================================================================
counter    numbers: both differences
union      lists as sets: additions and removals of both sides
append     lists that only grow: both ends, theirs first
maximum    the larger of two numbers or strings
minimum    the smaller
json       objects, path by path; a leaf may be changed by one side only
text       text, line by line (diff3; needs ``pip install 'agentmem-store[text]'``)
model      objects, a strategy for each field; `strategies_of` a pydantic model
theirs     what is there stays; ours stays on record
ours       ours replaces what is there, which stays on record
escalate   what is there stays; ours is parked as an open conflict for a person
=========  ==================================================================================

A key that one side left as it was is taken from the other side; a delete merges with nothing
but an unchanged key. ``theirs``, ``ours`` and ``escalate`` take their side, a delete too.
Where both sides cannot be kept, the writer gets `agentmem.ConflictError`.
"""

from agentmem.merge.builtin import (
    append,
    counter,
    escalate,
    maximum,
    minimum,
    ours,
    theirs,
    union,
)
from agentmem.merge.json_merge import json
from agentmem.merge.model import BUILTINS, model, strategies_of, strategy_from_spec
from agentmem.merge.strategy import Outcome, Strategy, Unmergeable
from agentmem.merge.text import text

__all__ = [
    "BUILTINS",
    "Outcome",
    "Strategy",
    "Unmergeable",
    "append",
    "counter",
    "escalate",
    "json",
    "maximum",
    "minimum",
    "model",
    "ours",
    "strategies_of",
    "strategy_from_spec",
    "text",
    "theirs",
    "union",
]
