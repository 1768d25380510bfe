"""The packages for frameworks rest on what a store offers, not on what it is made of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentmem
from agentmem import adapting

PACKAGES = Path(__file__).parents[2] / "integrations"
CLASSES = (
    agentmem.Store, agentmem.Transaction, agentmem.Snapshot, agentmem.Lease, agentmem.Queue,
    agentmem.Task, agentmem.Feed,
)  # fmt: skip

# Modules that are made of the parts of a store, each with the reason.
MADE_OF_PARTS = {
    "langgraph_agentmem/checkpoint_commit.py": "the write of a checkpoint, and no more",
    "langgraph_agentmem/checkpoint_rows.py": "the reads of a checkpoint, as rows",
}


def private_names() -> set[str]:
    """What objects of agentmem keep to themselves."""
    classes = [each for kind in CLASSES for each in kind.__mro__[:-1]]
    names = {name for each in classes for name in (*vars(each), *getattr(each, "__slots__", ()))}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def private_uses(source: str) -> Iterator[str]:
    names = private_names()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in names:
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls"):
                yield f"line {node.lineno}: {owner}.{node.attr}"


@pytest.mark.parametrize(
    "module",
    sorted({str(path.relative_to(PACKAGES)) for path in PACKAGES.rglob("*.py")} - {*MADE_OF_PARTS}),
)
def test_no_module_reaches_into_a_store(module: str) -> None:
    assert list(private_uses((PACKAGES / module).read_text(encoding="utf-8"))) == []


def test_a_use_of_what_is_private_is_found() -> None:
    found = list(private_uses("def f(store, tx):\n    store._core.run()\n    tx._context.pop()\n"))
    assert found == ["line 2: store._core", "line 3: tx._context"]


def test_views_of_one_opening_are_the_same_if_they_may_do_the_same(tmp_path: Path) -> None:
    path = tmp_path / "team.db"
    with agentmem.open(path, embedder=None) as store, agentmem.open(path, embedder=None) as other:
        same = adapting.is_same_view
        assert same(store, store.scoped(agent="ann"))
        assert same(store.scoped("team"), store.scoped("team"))
        for view in (
            other,
            store.scoped("team"),
            store.scoped(access="read"),
            store.scoped(access={"**": "write"}),
        ):
            assert not same(store, view)
        assert adapting.is_whole(store)
        assert adapting.is_whole(store.scoped(agent="ann"))
        assert not adapting.is_whole(store.scoped(access="read"))


def test_the_row_of_a_key_is_that_of_its_entry(store: agentmem.Store) -> None:
    place = ("team\x01", "k")
    assert adapting.row_now(store, place) is None
    entry = store.put("k", {"n": 1}, namespace="team")
    row = adapting.row_now(store, place)
    assert row is not None
    assert (row.version, row.value) == (entry.version, '{"n":1}')
    store.delete("k", namespace="team")
    assert adapting.row_now(store, place) is None
    store.close()
    with pytest.raises(agentmem.ClosedError):
        adapting.row_now(store, place)


def test_the_embedder_is_that_of_the_view(store: agentmem.Store) -> None:
    assert adapting.embedder_of(store) is None
    view = store.with_embedder(lambda texts: [[float(len(text)), 1.0] for text in texts])
    embedder = adapting.embedder_of(view)
    assert embedder is not None
    assert adapting.embedder_of(view.scoped("team")) is embedder
