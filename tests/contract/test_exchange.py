"""Exports as lines of JSON and back, between stores of every pair of engines."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem.chain import commit_hash, fields_of
from agentmem.exchange import exporting, lines, loading, reading
from agentmem.history import copy as copying
from tests.contract.conftest import ManualClock, StoreMaker
from tests.contract.test_copy import Pair, engine_of, everything, fill, pair

__all__ = ["pair"]

Documents = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_PAGE_COMMITS", 5)
    monkeypatch.setattr(exporting, "_PAGE_ROWS", 3)
    monkeypatch.setattr(copying, "_PAGE_COMMITS", 4)
    monkeypatch.setattr(copying, "_PAGE_ROWS", 3)


def exported(store: agentmem.Store, **options: Any) -> bytes:
    stream = io.BytesIO()
    store.admin.export(stream, **options)
    return stream.getvalue()


def documents(text: bytes) -> Documents:
    return [json.loads(line) for line in text.splitlines()]


def lines_of(found: Documents) -> bytes:
    """Documents as a file, with a closing line that fits."""
    body = [json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in found]
    digest = exporting.blake2b(b"".join(body[1:-1]), digest_size=32).hexdigest()
    end = {"type": "end", "lines": len(body) - 2, "hash": digest}
    return b"".join(body[:-1]) + json.dumps(end).encode() + b"\n"


def load(store: agentmem.Store, text: bytes, **options: Any) -> agentmem.Loaded:
    return store.admin.load(io.BytesIO(text), **options)


def fill_with_vectors(store: agentmem.Store, clock: ManualClock) -> None:
    fill(store, clock)
    store.put("east", "x", namespace="places", vector=[1.0, 0.0, 0.5], ttl_s=900)
    store.put("west", "y", namespace="places", vector=[-1.0, 0.25, 0.0])
    store.put("west", "z", namespace="places", vector=[-1.0, 0.5, 0.0], overwrite=True)


# Whole histories.


def test_a_history_is_the_same_after_a_round_trip(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill_with_vectors(source, clock)
    text = exported(source)

    loaded = load(target, text)

    assert everything(target) == everything(source)
    assert target.admin.verify().problems == []
    assert (loaded.kind, loaded.revision, loaded.commits) == (
        "history",
        source.revision,
        source.revision,
    )
    assert loaded.entries == sum(len(rows) for _commit, rows in engine_of(source).chain(0, 10_000))
    again = exported(target)
    first, *rest = again.splitlines(keepends=True)
    # But for whose it is, every byte is the same.
    assert rest == text.splitlines(keepends=True)[1:]
    ours, theirs = json.loads(first), json.loads(text.splitlines()[0])
    assert (ours.pop("store_id"), theirs.pop("store_id")) == (
        engine_of(target).store_id,
        engine_of(source).store_id,
    )
    assert ours == theirs
    for query in ([1.0, 0.0, 0.5], "x"):
        for store in (source, target):
            assert [hit.entry.key for hit in store.search(query, namespace="places")]


def test_the_loaded_store_works_on_as_the_first_would(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    load(target, exported(source))
    assert target.transact(lambda tx: 1 // 0, op_id="scan")["found"] > 0
    version = target.get("n", namespace="notes").version
    merged = target.put("n", ["a", "d"], namespace="notes", expected_version=version - 1)
    assert merged.version == version + 1
    assert target.snapshot("start").count() == 1


def test_an_empty_history_is_loaded(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.set_merge("notes/*", "union")
    assert load(target, exported(source)).revision == 0
    assert target.merges() == source.merges()


def test_a_file_is_compressed_by_its_name_private_and_always_the_same(
    store: agentmem.Store, clock: ManualClock, tmp_path: Path
) -> None:
    fill(store, clock)
    plain, packed, again = (tmp_path / name for name in ("a.jsonl", "a.jsonl.gz", "b.jsonl.gz"))
    made = store.admin.export(plain)
    store.admin.export(packed)
    store.admin.export(again)
    assert plain.read_bytes() == exported(store) == gzip.decompress(packed.read_bytes())
    assert packed.read_bytes() == again.read_bytes()
    assert {os.stat(path).st_mode & 0o7777 for path in (plain, packed)} == {0o600}
    position = engine_of(store).position()
    assert (made.kind, made.revision, made.hash) == ("history", position.revision, position.hash)
    assert made.lines == len(plain.read_bytes().splitlines())
    with pytest.raises(agentmem.StorageError, match="is there already"):
        store.admin.export(plain)
    store.put("k", 1)
    store.admin.export(plain, overwrite=True)
    assert plain.read_bytes() == exported(store)


def test_what_is_compressed_is_told_by_its_bytes(pair: Pair, tmp_path: Path) -> None:
    source, target = pair.source(), pair.target()
    source.put("k", "ü")
    (tmp_path / "renamed").write_bytes(gzip.compress(exported(source)))
    assert target.admin.load(tmp_path / "renamed").commits == 1
    assert target["k"] == "ü"


def test_what_is_written_meanwhile_is_not_exported(
    pair: Pair, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair.source(), pair.target()
    other = pair.source()
    fill(source, clock)
    revision = source.revision
    log = engine_of(source).chain(0, 10_000)

    def write(_what: str, done: int, _total: int) -> None:
        other.put("meanwhile", done, overwrite=True)
        other.audit.tag(f"at-{done}")
        other.put("n", [done], namespace="notes", agent="eva", expected_version=1)  # is merged

    text = exported(source, progress=write)
    conflicts = [each for each in documents(text) if each.get("type") == "conflict"]
    assert "eva" not in {each.get("agent") for each in conflicts}
    load(target, text)
    assert target.revision == revision < source.revision
    assert engine_of(target).chain(0, 10_000) == log
    assert {tag.name for tag in target.audit.tags()} == {"start", "now"}
    assert {each.agent for each in source.audit.conflicts("merged")} == {"ann", "eva"}
    assert {each.agent for each in target.audit.conflicts("merged")} == {"ann"}


def test_vectors_that_are_made_meanwhile_are_not_exported(pair: Pair) -> None:
    source, target = pair.source(embedder=_letters), pair.target()
    source.put("first", "has one")
    for number in range(8):
        source.put(f"k{number}", f"number {number}", embed="deferred")

    text = exported(source, progress=lambda *_told: source.admin.index())

    assert source.revision > 9
    found = [each["entry_id"] for each in documents(text) if each.get("type") == "vector"]
    assert found == [1]
    load(target, text)
    assert target.admin.stats()["vectors"] == 1


def test_purged_entries_stay_purged(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    source.put("secret", "the password", op_id="secret")
    source.put("secret", "another", overwrite=True)
    source.delete("secret")
    source.put("later", 1)
    source.admin.purge("secret", agent="eva", note="asked for")
    text = exported(source)
    assert b"the password" not in text
    load(target, text)
    assert everything(target) == everything(source)
    assert target.admin.verify().problems == []
    assert exported(target).splitlines()[1:] == text.splitlines()[1:]
    (row,) = engine_of(target).purges()
    assert (row.key, row.agent, row.note, row.finished) == ("secret", "eva", "asked for", 1)


def test_compacted_history_is_loaded_as_it_is(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    for number in range(6):
        source.put("k", number, overwrite=True)
    source.audit.untag("start")
    source.delete("k")
    source.admin.compact(keep_revision=source.revision - 2)
    source.put("k", "again")
    text = exported(source)
    assert documents(text)[-2]["type"] == "floor"
    load(target, text)
    assert everything(target) == everything(source)
    assert exported(target).splitlines()[1:] == text.splitlines()[1:]
    found = documents(text)
    _lose(found, "entry", -1)
    with pytest.raises(agentmem.InvalidValueError, match="are missing"):
        load(pair.target("other"), lines_of(found))


def test_a_copy_that_is_run_again_says_that_a_purge_has_yet_to_be_run(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put("secret", "the password")
    load(target, exported(source))
    source.admin.purge("secret")
    source.put("later", 1)
    load(target, exported(source))
    (row,) = engine_of(target).purges()
    assert (row.key, row.finished) == ("secret", 0)
    target.admin.purge("secret")
    assert {row.finished for row in engine_of(target).purges()} == {1}
    assert b"the password" not in exported(target)


# Again, and into what is not empty.


def test_a_repeated_load_changes_nothing_and_a_later_export_brings_the_rest(
    pair: Pair, clock: ManualClock
) -> None:
    source, target = pair.source(), pair.target()
    fill_with_vectors(source, clock)
    first = exported(source)
    load(target, first)
    assert load(target, first).commits == 0
    source.put("later", 1)
    source.touch("later", ttl_s=5)
    source.audit.tag("later")
    assert load(target, exported(source)).commits == 1
    assert everything(target) == everything(source)
    with pytest.raises(agentmem.HistoryReplacedError):
        load(target, first)


def test_a_load_that_was_interrupted_goes_on(
    pair: Pair, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair.source(), pair.target()
    fill_with_vectors(source, clock)
    text = exported(source)

    class StopError(Exception):
        pass

    def stop(what: str, done: int, _total: int) -> None:
        if what == "copying" and done > 12:
            raise StopError

    with pytest.raises(StopError):
        load(target, text, progress=stop)
    assert 0 < target.revision < source.revision
    assert target.admin.verify().problems == []
    load(target, text)
    assert everything(target) == everything(source)
    assert exported(target).splitlines()[1:] == text.splitlines()[1:]


def test_vectors_that_came_late_are_loaded_by_a_later_run(pair: Pair) -> None:
    source, target = pair.source(embedder=_letters), pair.target()
    source.put("a", "deferred", embed="deferred")
    source.put("b", "now")
    first = exported(source)
    load(target, first)
    assert exported(target).splitlines()[1:] == first.splitlines()[1:]
    source.admin.index()
    second = exported(source)
    load(target, second)
    assert exported(target).splitlines()[1:] == second.splitlines()[1:]
    fresh = pair.target("fresh")
    load(fresh, second)
    assert exported(fresh).splitlines()[1:] == second.splitlines()[1:]
    rows = [each for each in documents(second) if each.get("type") == "vector"]
    assert [row.get("late") for row in rows] == [3, None]


def _letters(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


def test_a_store_with_another_history_is_refused(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put("k", 1)
    target.put("k", 2)
    before = everything(target)
    with pytest.raises(agentmem.HistoryReplacedError, match="history of its own"):
        load(target, exported(source))
    assert everything(target) == before


# Wrong lines. Nothing is ever written.


def _lose(found: Documents, kind: str, at: int = 0) -> None:
    del found[[i for i, each in enumerate(found) if each.get("type") == kind][at]]


def _set(kind: str, name: str, value: Any, at: int = 0) -> Callable[[Documents], None]:
    def change(found: Documents) -> None:
        row = [each for each in found if each.get("type") == kind][at]
        if value is ...:
            del row[name]
        else:
            row[name] = value

    return change


def _swap(found: Documents) -> None:
    first, second = [i for i, each in enumerate(found) if each.get("type") == "commit"][2:4]
    found[first], found[second] = found[second], found[first]


def _repeat(found: Documents) -> None:
    found.insert(3, dict(found[2]))


def _after_the_end(found: Documents) -> None:
    found.insert(-1, next(each for each in found if each.get("type") == "commit"))


def _first(name: str, value: Any) -> Callable[[Documents], None]:
    def change(found: Documents) -> None:
        found[0][name] = value

    return change


_WRONG: Final = {
    "another hash": (_first("hash", "00" * 32), "does not end where the first line says"),
    "another time": (_first("committed_at", 7), "does not end where the first line says"),
    "a later end": (_first("revision", 999), "is missing before it"),
    "a hash of something": (_first("hash", 7), "hash is not in hexadecimal"),
    "a value": (_set("entry", "value", {"v": "a lie"}), "digest does not fit"),
    "a text": (_set("entry", "text", "a lie"), "digest does not fit"),
    "no salt": (_set("entry", "salt", ...), "salt is missing"),
    "an agent": (_set("commit", "agent", "mallory", 3), "hash does not fit"),
    "a time": (_set("commit", "committed_at", 1, 3), "lies before"),
    "digests": (_set("commit", "digests", "AAAA", 1), "digests are not those"),
    "no commit": (lambda found: _lose(found, "commit", 2), "is none of the entries|revision is"),
    "the last commit": (lambda found: _lose(found, "commit", -1), "is missing|revision"),
    "no entry": (lambda found: _lose(found, "entry", 3), "are missing"),
    "two swapped": (_swap, "follows revision|none of the entries"),
    "one twice": (_repeat, "does not follow"),
    "behind the end": (_after_the_end, "stands after the end of the log"),
    "no number": (_set("entry", "version", "2"), "version is no integer"),
    "a bool": (_set("entry", "version", True), "version is no integer"),
    "too large": (_set("entry", "created_at", 2**63), "created_at is no integer"),
    "NUL": (_set("entry", "key", "a\x00b"), "key holds NUL"),
    "NUL in a value": (_set("entry", "value", ["a\x00"]), "value .*NUL"),
    "no key": (_set("entry", "key", ...), "key is missing"),
    "an empty label": (_set("entry", "namespace", [""]), "namespace is no namespace"),
    "no labels": (_set("entry", "namespace", "a/b"), "namespace is no list"),
    "no base64": (_set("commit", "attempt", "!"), "attempt is no base64"),
    "a new name": (_set("entry", "colour", 1), "'colour' is not known here"),
    "a new kind": (_set("tag", "type", "banner"), "'banner' is not known here"),
    "no kind": (_set("tag", "type", ...), "'None' is not known here"),
    "a kind that is a list": (_set("tag", "type", ["commit"]), "is not known here"),
    "a tag of the future": (_set("tag", "revision", 999), "is none of the log"),
    "a conflict twice": (_set("conflict", "id", 1, 1), "does not follow"),
    "a set": (_set("vector_set", "dimension", 7), "not those of its dimension"),
    "a space": (_set("vector_space", "set_id", 7), "that of no set"),
    "a vector of another": (_set("vector", "entry_id", 1), "entry_id is none"),
    "a read of another": (_set("read", "revision", 1), "revision is not"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path, clock = tmp_path_factory.mktemp("whole") / "whole.db", ManualClock()
    with agentmem.open(path, clock=clock, embedder=None, durability="relaxed") as store:
        fill_with_vectors(store, clock)
        return exported(store)


@pytest.mark.parametrize("what", _WRONG)
def test_a_wrong_line_is_named_and_nothing_is_written(
    tmp_path: Path, whole: bytes, what: str
) -> None:
    change, reason = _WRONG[what]
    found = documents(whole)
    change(found)
    with agentmem.open(tmp_path / "to.db", embedder=None, durability="relaxed") as target:
        with pytest.raises(
            agentmem.InvalidValueError, match=rf"line \d+: .*({reason}).*nothing was written"
        ):
            load(target, lines_of(found))
        assert target.revision == 0
        assert target.merges() == []
        load(target, whole)


def chained(found: Documents) -> Documents:
    """The documents with hashes that fit, as only a forger would make them."""
    previous = b""
    for each in found:
        if each.get("type") == "commit":
            row = lines.COMMIT.row(each)
            previous = commit_hash(previous, fields_of(row), row.digests)
            each["hash"] = b64encode(previous).decode()
    found[0]["hash"] = previous.hex()
    return found


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("op_id", "op ", "op_id was used by an earlier commit"),
        ("first_entry_id", 1, "first_entry_id does not follow"),
        ("committed_at", 1, "committed_at lies before"),
    ],
)
def test_a_history_that_cannot_be_is_refused_whatever_its_hashes(
    tmp_path: Path, whole: bytes, name: str, value: Any, reason: str
) -> None:
    found = documents(whole)
    assert lines_of(chained(documents(whole))).splitlines()[0] == json.dumps(found[0]).encode()
    [each for each in found if each.get("type") == "commit"][1][name] = value
    with (
        agentmem.open(tmp_path / "to.db", embedder=None, durability="relaxed") as target,
        pytest.raises(agentmem.InvalidValueError, match=reason),
    ):
        load(target, lines_of(chained(found)))


def test_wrong_lines_are_named_by_their_number(tmp_path: Path, whole: bytes) -> None:
    rows = whole.splitlines(keepends=True)
    with agentmem.open(tmp_path / "to.db", embedder=None, durability="relaxed") as target:
        for number, text, reason in (
            (7, b"{broken\n", "is not JSON"),
            (9, b"[1]\n", "is no JSON object"),
            (4, b'{"type": "entry", "id": NaN}\n', "is not JSON"),
            (5, b'{"type": "entry", "key": "\\ud800"}\n', "is not JSON"),
        ):
            damaged = [*rows[: number - 1], text, *rows[number:]]
            with pytest.raises(agentmem.InvalidValueError, match=f"line {number}: {reason}"):
                load(target, b"".join(damaged))
        assert target.revision == 0


def test_every_way_of_cutting_a_file_off_is_noticed(tmp_path: Path, whole: bytes) -> None:
    ends = [0, 1, 50, *range(100, len(whole) - 1, len(whole) // 12), len(whole) - 1]
    packed = gzip.compress(whole, mtime=0)
    with agentmem.open(tmp_path / "to.db", embedder=None, durability="relaxed") as target:
        for text in (
            *(whole[:end] for end in ends),
            *(packed[: len(packed) * part // 10] for part in range(10)),
            whole.replace(whole.splitlines(keepends=True)[-1], b""),
        ):
            with pytest.raises((agentmem.CorruptionError, agentmem.InvalidValueError)):
                load(target, text)
        with pytest.raises(agentmem.CorruptionError, match="cut off"):
            load(target, whole[:-20])
        with pytest.raises(agentmem.CorruptionError, match="cut off"):
            load(target, packed[:-20])
        rows = whole.splitlines(keepends=True)
        without = b"".join(line for line in rows if b'"type":"tag"' not in line)
        with pytest.raises(agentmem.CorruptionError, match="not those that were written"):
            load(target, without)
        with pytest.raises(agentmem.InvalidValueError, match="stands after the end"):
            load(target, whole + b"\n")
        with pytest.raises(agentmem.CorruptionError, match="damaged"):
            load(target, packed[:40] + b"xxxxxxxx" + packed[48:])
        assert target.revision == 0


def test_what_is_no_export_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agentmem.open(tmp_path / "to.db", embedder=None, durability="relaxed") as target:
        for text in (b"", b"\n", b"[]\n", b'{"agentmem": "recipe"}\n', b"SQLite format 3\x00"):
            with pytest.raises(agentmem.InvalidValueError, match="no export of agentmem"):
                load(target, text)
        newer = b'{"agentmem": "history", "format": 2}\n'
        with pytest.raises(agentmem.InvalidValueError, match="upgrade"):
            load(target, newer)
        with pytest.raises(agentmem.InvalidValueError, match="revision is no whole number"):
            load(target, b'{"agentmem": "history", "format": 1, "revision": -1}\n')
        with pytest.raises(agentmem.StorageError, match="No such file"):
            target.admin.load(tmp_path / "nowhere.jsonl")
        monkeypatch.setattr(reading, "_MAX_LINE_BYTES", 1_000)
        target.put("k", "x" * 1_000)
        with pytest.raises(agentmem.InvalidValueError, match="line 3: is longer than"):
            load(target, exported(target))


# The entries of one revision.


def state_of(store: agentmem.Store) -> list[tuple[Any, ...]]:
    return [(e.namespace, e.key, e.value, e.text, e.expires_at) for e in store.list()]


def test_the_entries_of_one_revision_go_into_any_store(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill_with_vectors(source, clock)
    source.audit.tag("then")
    before = state_of(source)
    source.put("after", 1)
    source.delete("west", namespace="places")
    target.put("mine", 1, namespace="other")

    text = exported(source, at="then")
    found = documents(text)
    assert {each.get("type") for each in found[1:]} == {"state", "end"}
    loaded = load(target, text, agent="loader", note="from a file")

    assert state_of(target) == sorted([*before, (("other",), "mine", 1, None, None)])
    assert (loaded.kind, loaded.commits, loaded.entries) == ("entries", 1, len(before))
    commit = target.log(limit=1)[0]
    assert (commit.agent, commit.note) == ("loader", "from a file")
    (hit,) = target.search([-1.0, 0.5, 0.0], namespace="places", k=1)
    assert hit.entry.key == "west"
    again = load(target, text)
    assert (again.commits, again.entries, again.repeated) == (0, 0, len(before))
    assert target.revision == 2


def test_one_file_is_applied_once_even_if_it_was_interrupted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_BATCH_ENTRIES", 4)
    source, target = pair.source(), pair.target()
    source.put_many({f"k{number:02}": number for number in range(10)})
    text = exported(source, at=1)

    class StopError(Exception):
        pass

    def stop(_what: str, done: int, total: int) -> None:
        assert total == 10
        if done >= 8:
            raise StopError

    with pytest.raises(StopError):
        load(target, text, progress=stop)
    assert target.revision == 2
    loaded = load(target, text)
    assert (loaded.commits, loaded.entries, loaded.repeated) == (1, 2, 8)
    assert state_of(target) == state_of(source)
    assert target.revision == 3


def test_keys_that_are_there_are_refused_kept_or_replaced(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put_many({"a": 1, "b": 2, "c": 3})
    target.put("b", "mine", agent="ann")
    text = exported(source, at=1)
    with pytest.raises(agentmem.ConflictError, match=r"'b' is there already; nothing was written"):
        load(target, text)
    assert target.revision == 1
    with pytest.raises(agentmem.InvalidValueError, match="existing"):
        load(target, text, existing="merge")
    loaded = load(target, text, existing="keep")
    assert (loaded.entries, loaded.kept) == (2, 1)
    assert [entry.value for entry in target.list()] == [1, "mine", 3]
    other = pair.target("other")
    other.put("b", "mine", agent="ann")
    assert load(other, text, existing="replace").entries == 3
    assert other["b"] == 2
    assert [each.value for each in other.history("b")] == [2, "mine"]


def test_a_key_of_a_later_batch_that_is_there_refuses_all(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_BATCH_ENTRIES", 2)
    source, target = pair.source(), pair.target()
    source.put_many({"a": 1, "b": 2, "c": 3, "d": 4})
    target.put("d", "mine")
    with pytest.raises(agentmem.ConflictError, match="'d' is there already"):
        load(target, exported(source, at=1))
    assert [entry.key for entry in target.list()] == ["d"]


def test_what_has_expired_meanwhile_is_not_loaded(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    source.put("short", 1, ttl_s=10)
    source.put("long", 1, ttl_s=100)
    text = exported(source, at=2)
    clock.advance(20)
    loaded = load(target, text)
    if engine_of(target).name == "postgres" and loaded.expired == 0:
        pytest.skip("the server's clock is its own")
    assert (loaded.entries, loaded.expired) == (1, 1)
    assert target.get("long").expires_at == source.get("long").expires_at


def test_entries_that_the_store_would_not_take_are_named(tmp_path: Path) -> None:
    with agentmem.open(tmp_path / "a.db", embedder=None) as source:
        source.put_many({"a": 1, "b": "x" * 2_000})
        text = exported(source, at=1)
    found = documents(text)
    small = agentmem.Limits(max_value_bytes=100)
    with (
        agentmem.open(tmp_path / "b.db", embedder=None, limits=small) as target,
        pytest.raises(agentmem.InvalidValueError, match="line 3: value of 2002 bytes"),
    ):
        load(target, text)
    with agentmem.open(tmp_path / "b.db", embedder=None) as target:
        found[1], found[2] = found[2], found[1]
        with pytest.raises(agentmem.InvalidValueError, match="line 3: the key does not follow"):
            load(target, lines_of(found))
        assert target.revision == 0


def test_a_revision_that_cannot_be_read_is_refused(store: agentmem.Store) -> None:
    for at, error in ((5, agentmem.FutureRevisionError), ("nowhere", agentmem.RevisionError)):
        with pytest.raises(error):
            exported(store, at=at)


def test_nothing_of_it_is_for_scoped_views(store: agentmem.Store) -> None:
    with pytest.raises(agentmem.AccessDeniedError):
        store.scoped("team").admin.export(io.BytesIO())


def test_every_table_of_a_store_is_exported_or_follows_from_what_is(make_store: StoreMaker) -> None:
    """Who adds a table says here what becomes of it in an export."""
    if make_store.backend.name != "sqlite":
        pytest.skip("both engines have the same tables: tests/postgres compares them")
    from agentmem.engines.sqlite.driver import driver

    make_store()
    connection = driver.connect(make_store.target())
    tables = {
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if not name.startswith(("search_", "_sqlite", "sqlite_", "agentmem_"))
    }
    connection.close()
    exported_tables = {
        "commits", "conflicts", "entries", "merge_strategies", "operation_results",
        "pending_vectors", "purges", "reads", "tags", "vector_sets", "vector_spaces", "vectors",
    }  # fmt: skip
    derived = {"generations", "heads", "log_marks", "store", "tallies"}
    of_the_moment = {
        "batch_marks", "cursors", "lease_waiters", "leases", "once_records", "task_operations",
        "tasks",
    }  # fmt: skip
    assert tables - of_the_moment == exported_tables | derived


_KILLED: Final = """
import os, signal, sys
import agentmem
from agentmem.exchange import loading
from agentmem.history import copy

loading._BATCH_ENTRIES, copy._PAGE_COMMITS = 3, 3
target, path, deadly = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0

def die(what, done, total):
    global calls
    calls += what in ("copying", "loading")
    if calls == deadly:
        os.kill(os.getpid(), signal.SIGKILL)

with agentmem.open(target, embedder=None) as store:
    store.admin.load(path, progress=die)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [None, 7], ids=["history", "entries"])
def test_a_load_that_is_killed_goes_on_where_it_was(
    make_store: StoreMaker, tmp_path: Path, at: int | None
) -> None:
    path = tmp_path / "from.jsonl"
    with agentmem.open(tmp_path / "from.db", embedder=None, durability="relaxed") as source:
        for number in range(7):
            source.put_many({f"k{number}{letter}": number for letter in "ab"})
        source.admin.export(path, at=at)
        target = make_store()
        for deadly in (1, 1, 1, 100):
            command = [sys.executable, "-c", _KILLED, make_store.target(), str(path), str(deadly)]
            status = subprocess.run(command, check=False, timeout=120).returncode
            assert target.admin.verify().problems == []
            if status == 0:
                break
            assert status == -signal.SIGKILL
        assert status == 0
        assert state_of(target) == state_of(source)
        assert {entry.version for entry in target.list()} == {1}
        assert target.revision == (7 if at is None else 5)
