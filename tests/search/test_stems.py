"""On SQLite, the stems that words are looked for by are kept, and are those of the words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentmem
from agentmem.engines.base import Engine
from agentmem.engines.sqlite import text

WORDS = ["rive", "日 本", "本 日", "river", "rivet", "rivers", "budget", "budgeting", "x" * 500]
TEXTS = ["日本 trip", "本日 trip", "a river", "a rivet", "budgets", "x" * 500]
# Which word each text holds, by their places above.
HELD = [{1}, {2}, {3, 5}, {4}, {6, 7}, {8}]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.delattr(text._local, "scratch", raising=False)
    with agentmem.open(tmp_path / "store.db", embedder=None) as store:
        store.put("a", "of other things")
        yield store._core.engine


def held(engine: Engine) -> list[set[int]]:
    """By asking for one word after another."""
    scores = [engine.text_scores([word], TEXTS) for word in WORDS]
    return [{word for word, each in enumerate(scores) if each[at]} for at in range(len(TEXTS))]


def test_a_word_that_was_asked_for_before_finds_what_it_found(engine: Engine) -> None:
    assert held(engine) == HELD
    assert held(engine) == HELD
    assert "rivers" in text._scratch()._stems


def test_few_stems_are_kept_and_none_of_long_words(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_MAX_STEMS", 3)
    for _ in range(2):
        assert held(engine) == HELD
        assert list(text._scratch()._stems) == ["rivers", "budget", "budgeting"]
