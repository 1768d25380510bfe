"""get, put, delete, list, count, increment, append."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

import agentmem
from tests.cli.program import Program, one_line


def test_put_prints_version_and_revision(program: Program, store: agentmem.Store) -> None:
    store.put("other", 1)
    assert program.ok("put", "plan", '{"days": 3}') == "plan: version 1, revision 2\n"
    entry = store.get("plan")
    assert entry is not None
    assert (entry.value, entry.agent) == ({"days": 3}, None)


def test_get_prints_the_value_on_one_line_of_json(program: Program) -> None:
    program.ok("put", "plan", '{"days": 3, "names": ["Ada", "Zoë"]}')
    assert program.ok("get", "plan") == '{"days": 3, "names": ["Ada", "Zoë"]}\n'


def test_json_of_get_and_put_is_the_whole_entry(program: Program) -> None:
    put = program.document(
        "put", "plan", "[1]", "-n", "team/a", "--agent", "bo", "--op-id", "x", "--ttl-s", "3600"
    )
    assert put == program.document("get", "plan", "-n", "team/a")
    times = {name: datetime.fromisoformat(put.pop(name)) for name in TIMES}
    assert put == {
        "namespace": ["team", "a"],
        "key": "plan",
        "version": 1,
        "revision": 1,
        "value": [1],
        "deleted": False,
        "purged": False,
        "agent": "bo",
        "op_id": "x",
    }
    assert (times["expires_at"] - times["committed_at"]).total_seconds() == 3600
    assert times["created_at"] == times["committed_at"]


TIMES = ("created_at", "committed_at", "expires_at")


@pytest.mark.parametrize("value", ["-5", "-0.5", "-1e3", "0", "null", '"-"', '"text"', "[]"])
def test_any_json_value_can_be_given(program: Program, value: str) -> None:
    program.ok("put", "k", value)
    assert json.loads(program.ok("get", "k")) == json.loads(value)


@pytest.mark.parametrize("text", ["plain words", "-", "5", "line\nline\n", "", "--flag", "-5"])
def test_a_string_goes_in_and_out_unchanged(
    program: Program, store: agentmem.Store, text: str
) -> None:
    if text == "-":
        program.ok("put", "k", "-s", "-", stdin="-")
    else:
        program.ok("put", "k", "-s", "--", text)
    assert store["k"] == text
    assert program.ok("get", "k", "-s") == text


def test_standard_input_is_read_whole(program: Program, store: agentmem.Store) -> None:
    program.ok("put", "k", "-", stdin='{"a":\n 1}\n')
    program.ok("put", "s", "-", "--string", stdin="a\nb\n")
    assert (store["k"], store["s"]) == ({"a": 1}, "a\nb\n")


def test_what_is_not_json_is_refused_and_told_how_to_give_a_string(program: Program) -> None:
    assert "add -s" in program.fails(6, "put", "k", "hello")
    assert program.fails(1, "get", "k")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("NaN", "no JSON number"),
        ("-Infinity", "No such option"),
        ("1e999", "inf is not JSON"),
        ("9223372036854775808", "64 bits"),
        ("1" * 5_000, "not JSON"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ('"\\u0000"', "NUL"),
        ('"\\ud800"', "not JSON|surrogate|Unicode|valid"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused(program: Program, value: str, why: str) -> None:
    result = program("put", "k", value)
    assert result.exit_code in (2, 6)
    assert any(part in result.stderr for part in why.split("|"))
    assert program.ok("list") == ""


def test_input_that_is_not_utf8_is_refused(program: Program) -> None:
    assert "not UTF-8" in program.fails(6, "put", "k", "-", stdin=b'"\xff"')


def test_an_unknown_option_is_not_taken_for_a_value(program: Program) -> None:
    result = program("put", "k", "--overwite")
    assert result.exit_code == 2
    assert "No such option: --overwite" in result.stderr
    assert program("put", "k", "1", "--overwite").exit_code == 2
    assert program("append", "k", "1", "--strin").exit_code == 2
    assert program.ok("list") == ""


def test_get_string_refuses_what_is_no_string(program: Program) -> None:
    program.ok("put", "k", "5")
    assert "no string" in program.fails(6, "get", "k", "-s")


def test_expected_version_guards_a_put_and_a_delete(program: Program) -> None:
    program.ok("put", "k", "1", "--expected-version", "0")
    program.ok("put", "k", "2", "--expected-version", "1")
    line = program.fails(3, "put", "k", "3", "--expected-version", "1")
    assert "from version 1, but is at version 2" in line
    assert "agentmem get --json" in line
    assert program.fails(3, "delete", "k", "--expected-version", "1")
    assert program.ok("get", "k") == "2\n"
    out = program.ok("delete", "k", "--expected-version", "2")
    assert out == "k: version 3, revision 3, deleted\n"


def test_a_put_merges_unless_told_not_to(program: Program) -> None:
    program.ok("merge", "set", "k", "union")
    program.ok("put", "k", '["a"]')
    program.ok("put", "k", '["a", "b"]', "--expected-version", "1")
    assert program.fails(3, "put", "k", '["a", "c"]', "--expected-version", "1", "--no-merge")
    out = program.ok("put", "k", '["a", "c"]', "--expected-version", "1")
    assert out == "k: version 3, revision 3, merged: union\n"
    assert json.loads(program.ok("get", "k")) == ["a", "b", "c"]


def test_a_blind_write_over_another_agent_warns_in_one_line(program: Program) -> None:
    program.ok("put", "k", "1", "--agent", "alice")
    result = program("put", "k", "2")
    assert (result.exit_code, result.stdout) == (0, "k: version 2, revision 2\n")
    line = one_line(result.stderr)
    assert line.startswith("warning: 'k' version 1 by 'alice' was replaced without being read")
    assert "--expected-version" in line
    assert "expected_version" not in line
    program.ok("put", "k", "3", "--agent", "bo", "--overwrite")


def test_the_agent_may_come_from_the_environment(program: Program, store: agentmem.Store) -> None:
    assert program("put", "k", "1", AGENTMEM_AGENT="carol").exit_code == 0
    entry = store.get("k")
    assert entry is not None
    assert entry.agent == "carol"


def test_an_op_id_applies_once(program: Program) -> None:
    first = program.ok("increment", "k", "5", "--op-id", "x")
    assert first == "k: version 1, revision 1, value 5\n"
    assert program.ok("increment", "k", "5", "--op-id", "x") == first
    line = program.fails(3, "increment", "k", "6", "--op-id", "x")
    assert "give each operation its own --op-id" in line


def test_increment_adds_numbers_of_either_sign(program: Program) -> None:
    program.ok("increment", "k")
    program.ok("increment", "k", "-3")
    assert program.ok("increment", "k", "0.5") == "k: version 3, revision 3, value -1.5\n"
    assert "a number" in program.fails(6, "increment", "k", '"x"')
    assert "a number" in program.fails(6, "increment", "k", "true")


def test_append_adds_json_or_strings(program: Program, store: agentmem.Store) -> None:
    program.ok("append", "k", "1", "-2", '{"a": null}')
    program.ok("append", "k", "-s", "one", "2")
    assert store["k"] == [1, -2, {"a": None}, "one", "2"]


def test_note_reaches_the_log(program: Program, store: agentmem.Store) -> None:
    program.ok("put", "k", "1", "--note", "because")
    program.ok("delete", "k", "--note", "done with it")
    assert [commit.note for commit in store.log()] == ["done with it", "because"]


@pytest.mark.parametrize("command", ["get", "delete"])
def test_an_absent_key_is_told_by_line_and_code(program: Program, command: str) -> None:
    line = program.fails(1, command, "k", "-n", "team")
    assert line == "'team/k' is absent: never written, deleted or expired"


def test_list_shows_entries_in_order_without_empty_columns(program: Program) -> None:
    program.ok("put", "b", '{"x": 1}')
    program.ok("put", "a", '"two words"')
    assert program.ok("list") == (
        'key  version  value\na    1        "two words"\nb    1        {"x": 1}\n'
    )


def test_list_never_shortens_a_value_in_a_pipe(program: Program, store: agentmem.Store) -> None:
    value = "long " * 10_000
    store.put("k", value)
    assert value in program.ok("list")
    assert value in program.ok("history", "k")


def test_list_is_limited_by_namespace_prefix_filter_and_number(
    program: Program, store: agentmem.Store
) -> None:
    for number in range(6):
        store.put(f"task-{number}", {"open": number % 2 == 0}, namespace="team/a")
    store.put("task-9", {"open": True}, namespace="team")
    store.put("note", {"open": True}, namespace="team/a")

    def keys(*options: str) -> list[str]:
        return [entry["key"] for entry in program.document("list", *options)]

    assert keys("-n", "team/a", "--key-prefix", "task", "--where", '{"open": true}') == [
        "task-0",
        "task-2",
        "task-4",
    ]
    assert keys("-n", "team", "--limit", "2") == ["task-9", "note"]
    assert keys("-n", "nobody") == []
    assert program.ok("count", "-n", "team/a", "--where", '{"open": false}') == "3\n"
    assert program.document("count", "--key-prefix", "task") == {"count": 7}


def test_reads_go_back_to_a_revision_a_tag_and_a_time(
    program: Program, store: agentmem.Store
) -> None:
    first = store.put("k", 1)
    store.audit.tag("start")
    store.put("k", 2)
    store.put("l", 2)
    assert first.committed_at is not None
    for at in ("1", "start", first.committed_at.isoformat()):
        assert program.ok("get", "k", "--at", at) == "1\n"
        assert program.ok("count", "--at", at) == "1\n"
        assert [entry["value"] for entry in program.document("list", "--at", at)] == [1]
    assert "as in 2026-01-31T12:00:00Z" in program.fails(6, "get", "k", "--at", "2026-01-31")
    assert "agentmem tags" in program.fails(6, "get", "k", "--at", "unknown")
    assert "not there yet" in program.fails(6, "get", "k", "--at", "99")
    assert "2026-99-99" in program.fails(6, "get", "k", "--at", "2026-99-99")


def test_a_filter_that_is_none_is_refused(program: Program) -> None:
    assert "--where is not JSON" in program.fails(6, "list", "--where", "open")
    assert "where" in program.fails(6, "list", "--where", '{"$nope": 1}')


@pytest.mark.parametrize(
    ("namespace", "labels"),
    [
        ("team/alice", ("team", "alice")),
        ('["team", "a/b"]', ("team", "a/b")),
        ("[draft]", ("[draft]",)),
        ('["[1]"]', ("[1]",)),
        ('["[\\"x\\"]"]', ('["x"]',)),
        ("", ()),
    ],
)
def test_a_namespace_is_named_by_path_or_by_its_labels(
    program: Program, store: agentmem.Store, namespace: str, labels: tuple[str, ...]
) -> None:
    program.ok("put", "k", "1", "-n", namespace)
    entry = store.get("k", namespace=labels)
    assert entry is not None
    [listed] = program.document("list", "-n", namespace)
    assert tuple(listed["namespace"]) == labels
    # What the table shows can be given back.
    if labels:
        shown = program.ok("list").splitlines()[1].rsplit("  k", 1)[0].strip()
        assert program.ok("get", "k", "-n", shown) == "1\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("put", "", "1"), "must not be empty"),
        (("put", "k" * 2_000, "1"), "at most 1024"),
        (("put", "k", "1", "-n", "a//b"), "must not be empty"),
        (("put", "k", "1", "-n", "/".join("abcdefghijklmnopq")), "at most 16"),
        (("put", "k", "1", "--ttl-s", "-1"), "positive"),
        (("put", "k", "1", "--ttl-s", "nan"), "positive"),
        (("put", "k", "1", "--op-id", ""), "non-empty"),
        (("put", "k", "1", "--overwrite", "--expected-version", "0"), "leave --expected-version"),
        (("put", "k", "[1]" + " " * 5_000_000 + "x"), "not JSON"),
    ],
)
def test_a_bad_argument_is_one_line_and_changes_nothing(
    program: Program, arguments: tuple[str, ...], why: str
) -> None:
    assert why in program.fails(6, *arguments)
    assert program.ok("log") == ""


@pytest.mark.parametrize("number", ["-1", "x", "1.5", str(2**63), "٣", "9" * 5_000])
def test_a_number_that_is_none_is_wrong_usage(program: Program, number: str) -> None:
    for arguments in (
        ("list", "--limit", number),
        ("put", "k", "1", "--expected-version", number),
        ("log", "--after", number),
        ("log", "--upto", number),
        ("diff", "k", "0", "--", number),
        ("resolve", "--take", "ours", "--", number),
    ):
        result = program(*arguments)
        assert result.exit_code == 2
        assert "whole number" in result.stderr
