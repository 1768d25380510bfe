"""What each merge strategy makes of an example, and what it refuses, in which words."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Annotated, Any, Final, Optional

import pytest
from pydantic import BaseModel, ConfigDict, Field

from agentmem import merge
from agentmem.errors import AgentMemError, InvalidValueError, MissingExtraError
from agentmem.model import DELETE, MISSING, Conflict, Entry


def entry(value: Any, version: int = 1) -> Entry[Any]:
    return Entry(("team",), "plan", version, version, value)


@pytest.mark.parametrize(
    ("strategy", "base", "theirs", "ours", "merged"),
    [
        (merge.counter, 10, 12, 9, 11),
        (merge.counter, MISSING, 2, 3, 5),
        (merge.counter, 0, 5, 5, 10),
        (merge.counter, 0.1, 0.2, 0.3, 0.4),
        (merge.counter, 1, 2.0, 2, 3.0),
        (merge.counter, 2**62, 2**63 - 1, 2**62 - 1, 2**63 - 2),
        (merge.counter, 1e308, 1.5e308, 1.2e308, 1.7e308),
        (merge.union, ["a", "b"], ["a", "z"], ["a", "b", "c"], ["a", "c", "z"]),
        (merge.union, MISSING, ["b"], ["a", "b"], ["a", "b"]),
        (merge.union, [1, 1, 2], [1, 2, 3], [1, 2, True], [1, 2, 3, True]),
        (merge.append, ["a"], ["a", "b"], ["a", "c"], ["a", "b", "c"]),
        (merge.append, ["a"], [], ["a", "c"], ["c"]),
        (merge.append, ["a"], ["a", "b"], ["a", "b"], ["a", "b", "b"]),
        (merge.append, MISSING, [1], [2, 3], [1, 2, 3]),
        (merge.maximum, 1, 3, 2, 3),
        (merge.maximum, 9, 3, 2, 3),
        (merge.maximum, 0, 1.0, 1, 1.0),
        (merge.maximum, "a", "\uffff", "\U0001f9e0", "\U0001f9e0"),
        (merge.minimum, 9, 3, 2.5, 2.5),
        (merge.minimum, MISSING, "b", "a", "a"),
        (merge.theirs, 1, 2, 3, 2),
        (merge.theirs, 1, DELETE, 3, DELETE),
        (merge.theirs, 1, 1, 3, 1),
        (merge.ours, 1, 2, 3, 3),
        (merge.ours, 1, 2, DELETE, DELETE),
        (merge.escalate, 1, 2, 3, 2),
        (merge.escalate, 1, 2, DELETE, 2),
    ],
)
def test_a_strategy_merges(
    strategy: merge.Strategy, base: Any, theirs: Any, ours: Any, merged: Any
) -> None:
    found = strategy.merge(base, theirs, ours)
    assert (found, repr(found)) == (merged, repr(merged))


@pytest.mark.parametrize(
    ("strategy", "base", "theirs", "ours", "message"),
    [
        (merge.counter, 1, True, 2, "counter: theirs is a boolean, not a number"),
        (merge.counter, None, 1, 2, "counter: base is null, not a number"),
        (merge.counter, 0, 2**63 - 1, 1, "counter: the sum does not fit in 64 bits"),
        (merge.counter, 0, -(2**63), -1, "counter: the sum does not fit in 64 bits"),
        (merge.counter, 0, 1.7e308, 1.6e308, "counter: the sum does not fit in 64 bits"),
        (merge.union, [], [1], {"a": 1}, "union: ours is an object, not a list"),
        (merge.union, "ab", ["a"], ["b"], "union: base is a string, not a list"),
        (merge.append, "a", "ab", "ac", "append: base is a string, not a list"),
        (
            merge.append,
            ["a", "b"],
            ["a", "b", "c"],
            ["a"],
            "append: ours changed or removed elements of base; it may only append to it",
        ),
        (
            merge.maximum,
            1,
            2,
            "3",
            (
                "maximum: theirs is a number and ours is a string; "
                "only two numbers or two strings have an order"
            ),
        ),
        (
            merge.minimum,
            1,
            True,
            None,
            (
                "minimum: theirs is a boolean and ours is null; "
                "only two numbers or two strings have an order"
            ),
        ),
        (merge.text, "a", "b", 3, "text: ours is a number, not a string"),
        (merge.text, ["a"], "b", "c", "text: base is a list, not a string"),
        (merge.text, MISSING, "b", "c", "text: both sides created it, with different texts"),
        (merge.json, 1, DELETE, 2, "json: theirs deleted what ours changed"),
        (merge.union, [1], [2], DELETE, "union: ours deletes what theirs changed"),
    ],
)
def test_a_refusal_says_which_side_and_what_it_met(
    strategy: merge.Strategy, base: Any, theirs: Any, ours: Any, message: str
) -> None:
    with pytest.raises(merge.Unmergeable) as caught:
        strategy.merge(base, theirs, ours)
    assert str(caught.value) == message


def test_unmergeable_is_no_error_of_agentmem_and_shows_its_public_module() -> None:
    assert not issubclass(merge.Unmergeable, AgentMemError)
    assert merge.Unmergeable.__module__ == "agentmem"
    assert str(merge.Unmergeable("the tone differs")) == "the tone differs"


# --- conflicts -----------------------------------------------------------------------------


def test_a_conflict_without_a_base_entry_has_no_base() -> None:
    conflict = Conflict((), "k", None, [1], [2], base_entry=None, theirs_entry=entry([1]))
    assert merge.union(conflict) == [1, 2]


def test_null_at_base_is_a_value_and_not_absence() -> None:
    conflict = Conflict((), "k", None, [1], [2], base_entry=entry(None), theirs_entry=entry([1], 2))
    with pytest.raises(merge.Unmergeable, match="base is null"):
        merge.union(conflict)


def test_theirs_is_null_with_an_entry_and_absent_without() -> None:
    null = Conflict((), "k", 1, None, 1, base_entry=entry(1), theirs_entry=entry(None, 2))
    assert merge.json(null) is None
    absent = Conflict((), "k", 1, None, 1, base_entry=entry(1), theirs_entry=None)
    assert merge.json(absent) is DELETE


def test_a_key_that_came_and_went_again_takes_ours() -> None:
    conflict = Conflict((), "k", None, DELETE, [2])
    assert merge.union(conflict) == [2]


@pytest.mark.parametrize("kind", ["read", "scan"])
def test_what_was_only_read_is_never_merged(kind: str) -> None:
    conflict = Conflict((), "k", 1, 2, None, entry(1), entry(2, 2), kind=kind)
    with pytest.raises(merge.Unmergeable, match="only read"):
        merge.ours(conflict)


@pytest.mark.parametrize(
    ("strategy", "theirs", "ours", "keeps_loser", "parks"),
    [
        (merge.theirs, 2, 3, True, False),
        (merge.ours, 2, 3, True, False),
        (merge.escalate, 2, 3, False, True),
        (merge.escalate, 2, 2, False, False),
        (merge.escalate, 2, 1, False, False),
        (merge.ours, 1, 3, False, False),
        (merge.counter, 2, 3, False, False),
    ],
)
def test_a_loser_is_kept_only_where_a_change_was_dropped(
    strategy: merge.Strategy, theirs: Any, ours: Any, keeps_loser: bool, parks: bool
) -> None:
    conflict = Conflict((), "k", 1, theirs, ours, entry(1), entry(theirs, 2))
    outcome = strategy.resolve(conflict)
    assert (outcome.keeps_loser, outcome.parks) == (keeps_loser, parks)
    assert outcome.value == strategy(conflict)


# --- json ----------------------------------------------------------------------------------

TRIP: Final = {"days": 3, "city": "Rome", "budget": {"food": 10}, "stops": ["a"]}


def test_json_merges_changes_of_different_paths() -> None:
    theirs = {"days": 4, "city": "Rome", "budget": {"food": 10, "art": 5}, "stops": ["a"]}
    ours = {"days": 3, "budget": {"food": 12}, "stops": ["a", "b"]}
    merged = {"days": 4, "budget": {"food": 12, "art": 5}, "stops": ["a", "b"]}
    assert merge.json.merge(TRIP, theirs, ours) == merged


def test_json_takes_the_same_change_of_a_path_once() -> None:
    theirs = TRIP | {"days": 4, "budget": {"food": 11}}
    ours = TRIP | {"city": "Pisa", "budget": {"food": 11}}
    assert merge.json.merge(TRIP, theirs, ours) == theirs | {"city": "Pisa"}


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (
            {"budget": {"food": 11}},
            {"budget": {"food": True}},
            "at $.budget.food: json: both sides changed it, theirs to a number, ours to a boolean",
        ),
        (
            {"stops": ["a", "b"]},
            {"stops": ["a", "c"]},
            "at $.stops: json: both sides changed it, theirs to a list, ours to a list",
        ),
        (
            {"budget": DELETE},
            {"budget": {"food": 11}},
            "at $.budget: json: theirs deleted what ours changed",
        ),
        (
            {"budget": {"art": 1}},
            {"budget": {"food": 11}},
            "at $.budget.food: json: theirs deleted what ours changed",
        ),
        (
            {"city": {"name": "Rome"}},
            {"city": {"in": "Italy"}},
            "at $.city: json: both sides changed it, theirs to an object, ours to an object",
        ),
    ],
)
def test_json_names_the_path_that_both_changed(theirs: Any, ours: Any, message: str) -> None:
    sides = [
        {name: value for name, value in {**TRIP, **side}.items() if value is not DELETE}
        for side in (theirs, ours)
    ]
    with pytest.raises(merge.Unmergeable) as caught:
        merge.json.merge(TRIP, *sides)
    assert str(caught.value) == message


def test_json_merges_objects_that_both_sides_created() -> None:
    assert merge.json.merge(MISSING, {"a": 1, "c": {"x": 1}}, {"b": 2, "c": {"y": 2}}) == {
        "a": 1,
        "b": 2,
        "c": {"x": 1, "y": 2},
    }


# --- text ----------------------------------------------------------------------------------

POEM: Final = "one\ntwo\nthree\nfour\nfive"


def test_text_merges_changes_of_different_lines() -> None:
    theirs = POEM.replace("two\n", "two\ntwo and a half\n")
    ours = POEM.replace("four", "4")
    assert merge.text.merge(POEM, theirs, ours) == "one\ntwo\ntwo and a half\nthree\n4\nfive"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_text_keeps_the_end_of_the_last_line(end: str) -> None:
    merged = merge.text.merge(
        POEM + end, POEM.replace("one", "1") + end, POEM.replace("five", "5") + end
    )
    assert merged == "1\ntwo\nthree\nfour\n5" + end


def test_text_takes_a_new_end_of_the_last_line_from_the_side_that_added_it() -> None:
    assert merge.text.merge(POEM, POEM.replace("one", "1"), POEM + "\n") == (
        "1\ntwo\nthree\nfour\nfive\n"
    )


def test_text_knows_no_line_end_but_the_newline() -> None:
    base = "a\u2028b\x0cc\n"
    assert merge.text.merge(base + "x\ny\n", "0\n" + base + "x\ny\n", base + "x\nz\n") == (
        "0\n" + base + "x\nz\n"
    )


def test_text_refuses_changes_of_the_same_line_and_says_where() -> None:
    with pytest.raises(merge.Unmergeable) as caught:
        merge.text.merge(POEM, POEM.replace("three", "3"), POEM.replace("three", "III"))
    assert str(caught.value) == "text: both sides changed the same or adjacent lines, at line 3"


def test_text_refuses_changes_of_adjacent_lines() -> None:
    with pytest.raises(merge.Unmergeable):
        merge.text.merge(POEM, POEM.replace("three", "3"), POEM.replace("four", "4"))


def test_text_merges_long_texts_with_many_equal_lines() -> None:
    lines = [line for number in range(900) for line in (f"paragraph {number}\n", "\n")]
    theirs, ours, both = lines.copy(), lines.copy(), lines.copy()
    theirs[100] = both[100] = "changed by them\n"
    ours[102] = both[102] = "changed by us\n"
    merged = merge.text.merge("".join(lines), "".join(theirs), "".join(ours))
    assert merged == "".join(both)


def test_text_gives_up_on_repeated_lines_before_it_costs_much() -> None:
    base = "a\nb\n" * 20_000
    theirs = "b\na\nc\n" * 13_000
    ours = "b\nx\na\n" * 13_000
    with pytest.raises(merge.Unmergeable):  # within the time limit that every test has
        merge.text.merge(base, theirs, ours)


def test_lines_that_there_was_no_time_to_match_count_as_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs, ours = "zero\n" + POEM + "\nsix", POEM.replace("three", "3")
    assert merge.text.merge(POEM + "\n", theirs, ours + "\n") == "zero\n" + ours + "\nsix"
    monkeypatch.setattr("agentmem.merge.lines._MAX_STEPS", 0)
    monkeypatch.setattr("agentmem.merge.lines._MAX_STEPS_PER_LINE", 0)
    with pytest.raises(merge.Unmergeable):
        merge.text.merge(POEM + "\n", theirs, ours + "\n")


def test_text_names_the_command_that_installs_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "merge3", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentmem-store\[text\]'") as caught:
        merge.text.merge(POEM, POEM + "\nsix", "zero\n" + POEM)
    assert caught.value.extra == "text"
    assert merge.text.merge(POEM, POEM, "six") == "six"


# --- model ---------------------------------------------------------------------------------


def test_a_model_merges_each_field_by_its_own_strategy() -> None:
    strategy = merge.model({"tags": "union", "edits": merge.counter})
    base = {"tags": ["a"], "edits": 1, "title": "x", "meta": {"p": 1}}
    theirs = {"tags": ["a", "b"], "edits": 2, "title": "y", "meta": {"p": 2}}
    ours = {"tags": ["c"], "edits": 3, "title": "x", "meta": {"p": 1, "q": 1}}
    assert strategy.merge(base, theirs, ours) == {
        "tags": ["b", "c"],
        "edits": 4,
        "title": "y",
        "meta": {"p": 2, "q": 1},
    }


def test_a_model_counts_the_same_change_of_a_counter_twice() -> None:
    strategy = merge.model({"edits": "counter"})
    assert strategy.merge({"edits": 1}, {"edits": 2}, {"edits": 2}) == {"edits": 3}


def test_a_model_removes_a_field_that_one_side_removed() -> None:
    strategy = merge.model({"tags": "union"})
    base = {"tags": [1], "n": 1}
    assert strategy.merge(base, {"n": 1}, {"tags": [1], "n": 2}) == {"n": 2}


def test_a_model_names_the_field_that_could_not_be_merged() -> None:
    strategy = merge.model({"a": merge.model({"b": "union"})})
    with pytest.raises(merge.Unmergeable) as caught:
        strategy.merge({"a": {"b": []}}, {"a": {"b": [1]}}, {"a": {"b": 2}})
    assert str(caught.value) == "at $.a.b: union: ours is a number, not a list"
    assert caught.value.path == ("a", "b")


def test_a_model_names_the_path_below_a_field() -> None:
    with pytest.raises(merge.Unmergeable, match=r"^at \$\.a\.b: json: both sides changed it"):
        merge.model({}).merge({"a": {"b": 0}}, {"a": {"b": 1}}, {"a": {"b": 2}})


def test_a_model_is_for_objects() -> None:
    with pytest.raises(merge.Unmergeable, match="ours is a list; all have to be objects"):
        merge.model({}).merge({}, {"a": 1}, [])


def test_a_field_that_takes_a_side_loses_nothing_where_only_the_other_changed_it() -> None:
    strategy = merge.model({"a": "theirs", "b": "escalate"})
    outcome = strategy.resolve_values({"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1})
    assert outcome == merge.Outcome({"a": 2, "b": 2})


def test_a_model_parks_ours_only_where_an_escalated_field_was_changed_by_both() -> None:
    strategy = merge.model({"a": "theirs", "b": "escalate"})
    assert (strategy.keeps_loser, strategy.parks) == (True, True)
    base = {"a": 1, "b": 1}
    parked = strategy.resolve_values(base, {"a": 1, "b": 2}, {"a": 1, "b": 3})
    assert parked == merge.Outcome({"a": 1, "b": 2}, keeps_loser=False, parks=True)
    kept = strategy.resolve_values(base, {"a": 2, "b": 1}, {"a": 3, "b": 1})
    assert kept == merge.Outcome({"a": 2, "b": 1}, keeps_loser=True, parks=False)


# --- specs ---------------------------------------------------------------------------------


def test_a_spec_is_plain_json_and_fresh_each_time() -> None:
    assert merge.union.spec == "union"
    strategy = merge.model({"tags": merge.union, "n": "maximum"}, otherwise="theirs")
    expected = {"model": {"fields": {"tags": "union", "n": "maximum"}, "otherwise": "theirs"}}
    assert strategy.spec == expected
    strategy.spec["model"]["fields"].clear()
    assert strategy.spec == expected
    assert merge.strategy_from_spec(expected) == strategy


def test_otherwise_is_json_if_a_spec_does_not_say() -> None:
    assert merge.strategy_from_spec({"model": {"fields": {}}}) == merge.model({})


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("onion", "$"),
        ("model", "$"),
        (None, "$"),
        (["union"], "$"),
        ({"json": {}}, "$"),
        ({"model": {}}, "$"),
        ({"model": {"fields": {}, "else": "json"}}, "$"),
        ({"model": {"fields": []}}, "$.model.fields"),
        ({"model": {"fields": {"tags": "onion"}}}, "$.model.fields.tags"),
        ({"model": {"fields": {}, "otherwise": 3}}, "$.model.otherwise"),
    ],
)
def test_an_unknown_spec_is_refused_with_the_known_names(spec: Any, path: str) -> None:
    with pytest.raises(InvalidValueError, match="known are counter, union, append") as caught:
        merge.strategy_from_spec(spec)
    assert caught.value.path == path


def test_a_spec_of_endless_models_is_refused() -> None:
    spec: Any = "json"
    for _ in range(1000):
        spec = {"model": {"fields": {"a": spec}}}
    with pytest.raises(InvalidValueError, match="nested deeper than 16 levels"):
        merge.strategy_from_spec(spec)


def test_a_model_refuses_an_unknown_strategy_at_once() -> None:
    with pytest.raises(InvalidValueError, match="onion"):
        merge.model({"tags": "onion"})


def test_strategies_have_short_reprs_and_are_immutable() -> None:
    assert repr(merge.union) == "merge.union"
    assert repr(merge.model({"a": "union"})) == (
        "merge.Strategy({'model': {'fields': {'a': 'union'}, 'otherwise': 'json'}})"
    )
    assert merge.Strategy.__module__ == "agentmem.merge"
    with pytest.raises(AttributeError):
        merge.union.name = "other"  # type: ignore[misc]  # the point of the test
    assert copy.deepcopy(merge.union) is merge.union
    assert merge.union != merge.counter
    assert merge.union != "union"


def test_builtins_are_all_strategies_that_need_no_fields() -> None:
    names = "counter union append maximum minimum json text theirs ours escalate"
    assert list(merge.BUILTINS) == names.split()
    assert all(getattr(merge, name) is each for name, each in merge.BUILTINS.items())


# --- pydantic ------------------------------------------------------------------------------


class Author(BaseModel):
    names: Annotated[list[str], merge.union] = []
    email: str | None = None


class Note(BaseModel):
    tags: Annotated[list[str], merge.union]
    edits: Annotated[int, Field(ge=0), merge.counter] = 0
    log: Annotated[list[str], merge.append] | None = None
    best: Optional[Annotated[float, merge.maximum]] = None  # noqa: UP045  # both spellings
    body: Annotated[str, merge.text] = Field(default="", alias="text")
    plain: dict[str, int] = {}
    elements: list[Annotated[int, merge.counter]] = []
    author: Author | None = None
    reply: Note | None = None


def test_the_annotations_of_a_pydantic_model_are_its_strategies() -> None:
    assert merge.strategies_of(Note) == merge.model(
        {
            "tags": "union",
            "edits": "counter",
            "log": "append",
            "best": "maximum",
            "body": "text",
            "author": merge.model({"names": "union"}),
        }
    )


def test_annotations_do_not_disturb_pydantic() -> None:
    note = Note.model_validate({"tags": ["a"], "text": "hello", "best": 2})
    theirs = note.model_copy(update={"tags": ["a", "b"], "edits": 1})
    ours = note.model_copy(update={"tags": ["c"], "edits": 2, "author": Author(names=["Ada"])})
    merged = merge.strategies_of(Note).merge(
        *(each.model_dump(mode="json") for each in (note, theirs, ours))
    )
    assert merged == {
        **note.model_dump(mode="json"),
        "tags": ["b", "c"],
        "edits": 3,
        "author": {"names": ["Ada"], "email": None},
    }
    assert "names" in Author.model_json_schema()["properties"]


def test_a_model_that_is_stored_by_alias_is_merged_by_alias() -> None:
    class Aliased(BaseModel):
        model_config = ConfigDict(serialize_by_alias=True)
        tags: Annotated[list[str], merge.union] = Field(default=[], serialization_alias="t")
        edits: Annotated[int, merge.counter] = Field(default=0, alias="e")
        best: Annotated[int, merge.maximum] = 0

    strategy = merge.strategies_of(Aliased)
    assert strategy == merge.model({"t": "union", "e": "counter", "best": "maximum"})
    assert set(Aliased().model_dump(mode="json")) == {"t", "e", "best"}


def test_a_subclass_inherits_the_strategies() -> None:
    class Longer(Author):
        pages: Annotated[int, merge.minimum]

    assert merge.strategies_of(Longer) == merge.model({"names": "union", "pages": "minimum"})


def test_a_field_with_two_strategies_is_refused() -> None:
    class Torn(BaseModel):
        tags: Annotated[list[str], merge.union] | Annotated[None, merge.append] = None

    with pytest.raises(InvalidValueError, match=r"Torn\.tags .* append, union"):
        merge.strategies_of(Torn)


def test_only_a_pydantic_class_has_strategies() -> None:
    with pytest.raises(TypeError, match="no pydantic model class"):
        merge.strategies_of(dict)
    with pytest.raises(TypeError, match="no pydantic model class"):
        merge.strategies_of(Author())  # type: ignore[arg-type]  # the point of the test


def test_importing_merge_imports_neither_pydantic_nor_merge3() -> None:
    code = (
        "import sys, agentmem.merge; "
        "assert not {'pydantic', 'merge3', 'difflib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
