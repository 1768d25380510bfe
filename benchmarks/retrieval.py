"""How much of what answers a question a search finds, on recorded conversations.

``python -m benchmarks.retrieval FILE`` reads JSON lines, each a conversation::

    {
        "turns": [{"id": "D1:3", "speaker": "Ann", "text": "..."}, ...],
        "qa": [{"question": "...", "evidence": ["D1:3"]}, ...],
    }

Each turn is stored as ``speaker: text``, each question is asked, and recall@k is the share of its
evidence that is among the first k, averaged over the questions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import agentmem

_MODES: Final = ("text", "vector", "hybrid")


def conversations(path: Path) -> Iterator[dict[str, Any]]:
    """The conversations of a file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def recalls(conversation: dict[str, Any], k: int) -> Iterator[dict[str, float]]:
    """Recall of each question of a conversation, by mode."""
    with agentmem.open(":memory:", embedder="local") as store:
        turns = {turn["id"]: f"{turn['speaker']}: {turn['text']}" for turn in conversation["turns"]}
        store.put_many(turns)
        snap = store.snapshot()
        for question in conversation["qa"]:
            evidence = set(question["evidence"]) & turns.keys()
            if evidence:
                found = {}
                for mode in _MODES:
                    hits = snap.search(question["question"], mode=mode, k=k)
                    there = evidence & {hit.entry.key for hit in hits}
                    found[mode] = len(there) / len(evidence)
                yield found


def main() -> None:
    """Prints a line for each mode."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description="Measures recall on conversations."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="conversations, as JSON lines")
    parser.add_argument("--k", type=int, default=10, metavar="N", help="recall@N (default: 10)")
    options = parser.parse_args()
    found = [each for one in conversations(options.file) for each in recalls(one, options.k)]
    if not found:
        sys.exit(f"{options.file} holds no question with evidence")
    for mode in _MODES:
        mean = sum(each[mode] for each in found) / len(found)
        print(f"{mode:<8} recall@{options.k} {mean:.3f}  ({len(found)} questions)")


if __name__ == "__main__":
    main()
