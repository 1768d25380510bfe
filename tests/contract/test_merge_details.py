"""What a hook tells of a merge stays on the conflict's record, wherever that goes, until purged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentmem
from agentmem.kept import details_in, kept_text, ours_in
from agentmem.merge import Outcome
from agentmem.values import canonical

DETAILS = {"asked": "sesame-asked", "said": ["sesame-said"]}


def _merge(store: agentmem.Store, outcome: Any, ours: object = "ours") -> None:
    store.merge_hook("n")(lambda _conflict: outcome)
    store.put("n", "base", agent="ann")
    store.put("n", "theirs", expected_version=1, agent="ann")
    if ours is agentmem.DELETE:
        store.delete("n", expected_version=1, agent="bob")
    else:
        store.put("n", ours, expected_version=1, agent="bob")


def test_details_are_on_record_beside_what_was_wanted(store: agentmem.Store) -> None:
    _merge(store, Outcome("both", details=DETAILS))
    (record,) = store.audit.conflicts()
    assert (record.status, record.ours, record.details) == ("merged", "ours", DETAILS)
    assert store["n"] == "both"


@pytest.mark.parametrize("ours", ["ours", None, agentmem.DELETE, {"$merge": {"details": 1}}])
def test_a_parked_change_is_resolved_as_it_was_wanted_and_keeps_its_details(
    store: agentmem.Store, ours: object
) -> None:
    _merge(store, Outcome("theirs", parks=True, details=DETAILS), ours)
    (record,) = store.audit.conflicts("open")
    assert record.details == DETAILS
    assert record.ours == (None if ours is agentmem.DELETE else ours)
    store.audit.resolve(record.id, "ours", note="by hand")
    entry = store.get("n")
    assert (entry is None) == (ours is agentmem.DELETE)
    assert entry is None or entry.value == ours
    (record,) = store.audit.conflicts("resolved")
    assert (record.details, record.note) == (DETAILS, "by hand")


def test_a_value_that_looks_like_kept_details_is_a_value(store: agentmem.Store) -> None:
    odd = {"$merge": {"ours": 1, "details": {"forged": True}}}
    _merge(store, "both", odd)
    (record,) = store.audit.conflicts()
    assert (record.ours, record.details) == (odd, None)


@pytest.mark.parametrize(
    "ours", [None, '"x"', "null", '{"$merge":1}', '{"$merge":{"details":null}}']
)
@pytest.mark.parametrize("details", [None, '{"a":1}', "0"])
def test_every_pair_comes_back(ours: str | None, details: str | None) -> None:
    kept = kept_text(ours, details)
    assert ours_in(kept) == ours
    assert details_in(kept) == (None if details is None else json.loads(details))
    assert kept is None or canonical(json.loads(kept)).decode() == kept


def test_details_that_are_no_json_are_a_bug_of_the_hook(store: agentmem.Store) -> None:
    with pytest.raises(agentmem.MergeError, match="details"):
        _merge(store, Outcome("both", details={1, 2}))


def test_purge_erases_details(store: agentmem.Store) -> None:
    _merge(store, Outcome("both", details=DETAILS))
    store.admin.purge("n")
    (record,) = store.audit.conflicts()
    assert (record.ours, record.details) == (None, None)


def test_details_go_with_an_export(store: agentmem.Store, tmp_path: Path) -> None:
    _merge(store, Outcome("both", details=DETAILS))
    store.admin.export(tmp_path / "out.jsonl")
    with agentmem.open(tmp_path / "copy.db") as copy:
        copy.admin.load(tmp_path / "out.jsonl")
        (record,) = copy.audit.conflicts()
        assert (record.ours, record.details) == ("ours", DETAILS)
        assert copy.admin.verify().problems == []
        command = [sys.executable, "-m", "agentmem", "conflicts", "--json"]
        command += ["--store", str(tmp_path / "copy.db")]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(shown.stdout)[0]["details"] == DETAILS
