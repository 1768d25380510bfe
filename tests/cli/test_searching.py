"""search, reindex, index."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import agentmem
from tests.cli.program import Program, on_terminal, without_colours

EMBEDDER = "tests.cli.test_searching:lengths"


def lengths(texts: list[str]) -> list[list[float]]:
    """An embedder for ``--embedder``."""
    return [[float(len(text)), 1.0] for text in texts]


def test_search_finds_entries_now_and_as_they_were(program: Program, store: agentmem.Store) -> None:
    store.put("flight", "We fly to Lisbon", namespace="team")
    store.put("flight", "We stay at home", namespace="team", overwrite=True)
    (hit,) = program.document("search", "Who stays at home?", "-n", "team", "--mode", "text")
    assert (hit["entry"]["key"], hit["entry"]["version"], hit["text_rank"]) == ("flight", 2, 1)
    shown = program.ok("search", "Lisbon", "--at", "1", "--mode", "text")
    assert "We fly to Lisbon" in shown
    assert program.document("search", "Lisbon", "--mode", "text") == []
    assert "hybrid, text or vector" in program.fails(2, "search", "x", "--mode", "magic")


def test_a_person_is_told_that_nothing_was_found_and_a_pipe_is_not(
    program: Program, store: agentmem.Store, path: Path
) -> None:
    assert program.ok("search", "Lisbon", "--mode", "text") == ""
    code, shown = on_terminal("search", "Lisbon", "--mode", "text", "--store", str(path))
    assert (code, without_colours(shown).strip()) == (0, "nothing was found")


def test_reindex_and_index_embed_what_there_is(program: Program, store: agentmem.Store) -> None:
    store.put_many({"a": "one", "b": "three"}, embed="deferred")
    assert program.document("reindex", "--embedder", EMBEDDER) == {"embedded": 2}
    assert program.ok("index") == "0 entries embedded; the index is up to date\n"
    for wrong in ("nowhere", "os:nothing"):
        assert f"--embedder {'is' if ':' not in wrong else wrong}" in program.fails(
            2, "reindex", "--embedder", wrong
        )


def test_reindex_finds_a_module_in_the_folder_that_one_stands_in(
    program: Program, store: agentmem.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", "one", embed="deferred")
    (tmp_path / "embedder_of_my_own.py").write_text("def halves(texts):\n    return [[1, 2]]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    embedded = program.document("reindex", "--embedder", "embedder_of_my_own:halves")
    assert embedded == {"embedded": 1}
