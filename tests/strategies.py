"""The one Hypothesis vocabulary of the project: what users may give, and what they may not.

Names and texts prefer characters that break naive code: separators of the stored encoding, SQL
and pattern wildcards, quotes, escapes, characters outside of the basic plane, and characters
whose order differs between UTF-8 and UTF-16. Sizes stay small; limits have tests of their own.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = [
    "HOSTILE",
    "escape",
    "invalid_values",
    "json_objects",
    "json_values",
    "keys",
    "labels",
    "namespaces",
    "numbers",
    "paths",
    "scalars",
    "texts",
    "wheres",
]

HOSTILE: Final = (
    "/\x01\x02\x03%_'\"`*?[].\\${}:-;# \n\t\x7f0Éß"
    "\u0301\u200d\u2028\u202e\ufeff\uffff\U0001f9e0\U0010ffff"
)
"""Valid in labels, keys and texts, each with a way to break something.

U+FFFF and U+1F9E0 sort by code point (and in UTF-8) the other way round than in UTF-16; U+0301
combines with the letter before it.
"""

# Few, so that paths hit fields; hostile, so that a path must be escaped to hit some of them.
_FIELDS: Final = ("a", "b", "n", "0", "1", "01", "a.b", "$gt", "$x", "\\", "\\.", "é", "%")
_EDGES: Final = (0, 1, -1, 2, 2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
_COMPARISONS: Final = ("$gt", "$gte", "$lt", "$lte")


def texts(*, min_size: int = 0, max_size: int = 12) -> SearchStrategy[str]:
    """Unicode text without NUL and lone surrogates; sizes are in characters."""
    valid = st.characters(codec="utf-8", exclude_characters="\x00")
    return st.one_of(
        st.text("abe" + HOSTILE, min_size=min_size, max_size=max_size),
        st.text(valid, min_size=min_size, max_size=max_size),
    )


def labels() -> SearchStrategy[str]:
    """Labels of a namespace; few common ones, so that namespaces meet and nest."""
    return st.one_of(st.sampled_from(("a", "b", "team")), texts(min_size=1, max_size=6))


def namespaces(*, max_depth: int = 4) -> SearchStrategy[tuple[str, ...]]:
    """Namespaces as tuples of labels, the root among them."""
    return st.lists(labels(), max_size=max_depth).map(tuple)


def keys() -> SearchStrategy[str]:
    """Keys; few common ones, so that writes meet."""
    return st.one_of(st.sampled_from(("a", "b", "plan")), texts(min_size=1, max_size=6))


def numbers() -> SearchStrategy[int | float]:
    """Integers of signed 64 bits and finite floats, near each other and near the edges."""
    edges = st.sampled_from(_EDGES)
    return st.one_of(
        st.integers(-3, 3),
        edges,
        st.integers(-(2**63), 2**63 - 1),
        edges.map(float),
        st.sampled_from((-0.0, 0.5, 1e308, 5e-324)),
        st.floats(allow_nan=False, allow_infinity=False),
    )


def scalars() -> SearchStrategy[Any]:
    """Null, booleans, numbers and texts."""
    return st.one_of(st.none(), st.booleans(), numbers(), texts(max_size=4))


def _fields() -> SearchStrategy[str]:
    return st.one_of(st.sampled_from(_FIELDS), texts(max_size=4))


def json_values(*, max_leaves: int = 12) -> SearchStrategy[Any]:
    """JSON that a store accepts, freshly built for each example."""
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_fields(), inner, max_size=4),
        max_leaves=max_leaves,
    )


def json_objects(*, max_leaves: int = 6) -> SearchStrategy[dict[str, Any]]:
    """Objects of JSON that a store accepts."""
    return st.dictionaries(_fields(), json_values(max_leaves=max_leaves), max_size=5)


def escape(name: str) -> str:
    """A name as it is written in a path."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$")


def paths() -> SearchStrategy[str]:
    """Paths of a ``where``, most of them to fields that `json_values` likes."""
    names = st.one_of(st.sampled_from(_FIELDS), texts(min_size=1, max_size=3))
    return st.lists(names, min_size=1, max_size=3).map(lambda path: ".".join(map(escape, path)))


def operators() -> SearchStrategy[dict[str, Any]]:
    """Operator mappings, as they stand under a path."""
    values = json_values(max_leaves=4)
    members = st.lists(values, max_size=4)
    single = st.one_of(
        st.dictionaries(st.sampled_from(("$eq", "$ne")), values, min_size=1),
        st.dictionaries(st.sampled_from(_COMPARISONS), numbers(), min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(_COMPARISONS), texts(max_size=3), min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(("$in", "$nin")), members, min_size=1),
        st.fixed_dictionaries({"$exists": st.booleans()}),
    )
    return st.recursive(single, lambda inner: st.fixed_dictionaries({"$not": inner}), max_leaves=2)


def wheres() -> SearchStrategy[dict[str, Any]]:
    """Expressions that `Filter.parse` accepts."""
    # A mapping without "$" names is a value; one with some of them would be read as operators.
    values = json_values(max_leaves=4).filter(
        lambda value: not isinstance(value, dict) or not any(name[:1] == "$" for name in value)
    )
    conditions = st.dictionaries(paths(), values | operators(), max_size=3)

    def combine(inner: SearchStrategy[dict[str, Any]]) -> SearchStrategy[dict[str, Any]]:
        clauses = st.lists(inner, min_size=1, max_size=3)
        logical = st.fixed_dictionaries(
            {}, optional={"$and": clauses, "$or": clauses, "$not": inner}
        )
        return st.builds(lambda plain, nested: {**plain, **nested}, conditions, logical)

    return st.recursive(conditions, combine, max_leaves=6)


def _cyclic_list(item: Any) -> list[Any]:
    cycle = [item]
    cycle.append(cycle)
    return cycle


def _cyclic_object(item: Any) -> dict[str, Any]:
    cycle = {"a": item}
    cycle["self"] = [cycle]
    return cycle


def invalid_values() -> SearchStrategy[Any]:
    """What no store accepts, alone or inside of lists and objects."""
    around = texts(max_size=3)
    bad_texts = st.builds(
        lambda before, bad, after: before + bad + after,
        around,
        st.sampled_from(("\x00", "\ud800", "\udfff", "\udc00\ud83d")),
        around,
    )
    bad_names = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=3), bad_texts
    )
    bad = st.one_of(
        st.sampled_from((math.nan, math.inf, -math.inf)),
        st.integers(min_value=2**63) | st.integers(max_value=-(2**63) - 1),
        st.binary(max_size=4),
        st.binary(max_size=4).map(bytearray),
        st.sets(st.integers(-3, 3), max_size=3),
        st.frozensets(st.integers(-3, 3), max_size=3),
        st.builds(object),
        st.just(1j),
        st.just(Decimal(1)),
        bad_texts,
        st.builds(_cyclic_list, scalars()),
        st.builds(_cyclic_object, scalars()),
        st.dictionaries(bad_names, scalars(), min_size=1, max_size=2),
    )
    return st.recursive(
        bad,
        lambda inner: st.one_of(
            st.builds(
                lambda before, it, after: [*before, it, *after],
                st.lists(scalars(), max_size=2),
                inner,
                st.lists(scalars(), max_size=2),
            ),
            st.builds(
                lambda others, name, it: {**others, name: it},
                json_objects(max_leaves=2),
                _fields(),
                inner,
            ),
        ),
        max_leaves=2,
    )
