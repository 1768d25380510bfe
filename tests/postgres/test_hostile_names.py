"""Names, texts and values that would break out of SQL or of an array literal, if they could."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import agentmem
from agentmem.engines.postgres.wire import Statement, Wire
from tests import strategies
from tests.postgres.places import run, target
from tests.postgres_server import Server, server_url

RELAXED: dict[str, Any] = {"durability": "relaxed", "blind_writes": "allow"}
# Each breaks some naive way to write a name, a literal, an array, a row or a format.
TEXTS = (
    "'", "''", '"', '""', "\\", "\\\\", "\\'", '\\"', "{", "}", "{}", '{"a","b"}', "{{}}", ",",
    ",,", "NULL", "null", '"NULL"', "\\N", "\\x", "\\x00", "\\000", "$1", "$$", "$a$", "%s", "%%",
    "%(a)s", "?", ":a", "{s}", "{s}.store", ";", "'; DROP TABLE store; --", "/*", "*/", "--",
    "()", "(1,2)", "[1:2]={1,2}", "E'\\n'", "U&'\\0061'", " ", "  ", " a ", "\t", "\n", "\r\n",
    "\x0b", "\x0c", "\x01", "\x02", "\x1f", "\x7f", "\x85", "\u200b", "\u2028", "\u202e", "\ufeff",
    "\ufffd", "\uffff", "\U0001f9e0", "\U0010ffff", "e\u0301", "é", "ß", "İ", "a" * 900,
)  # fmt: skip
STORES = (
    'a"b', '"', '""', "a'b", "a;b", '"; DROP SCHEMA public CASCADE; --', "a b", " ", "a.b", "a\\b",
    "a\nb", "$1", "$$", "{s}", "{s}.store", "%s", "A", "select", "PG_x", "PUBLIC", "é", "\x01",
    "\U0010ffff", "a/b", "a?b=c", "a#b", "a&b", "a+b", "a%41", "x" * 63, "é" * 31 + "x",
)  # fmt: skip
REFUSED = (
    "", "x" * 64, "é" * 32, "pg_", "pg_catalog", "pg_toast", "pg_mine", "public",
    "information_schema", "a\x00b",
)  # fmt: skip


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return sorted(
            name for (name,) in connection.execute("SELECT nspname FROM pg_namespace").fetchall()
        )


@pytest.fixture
def empty(server: Server) -> Iterator[str]:
    """A database of the test's own, so that whatever escapes is seen."""
    run(server.url, "DROP DATABASE IF EXISTS hostile", "CREATE DATABASE hostile")
    yield server.url.replace("/postgres?", "/hostile?")
    run(server.url, "DROP DATABASE hostile WITH (FORCE)")


@pytest.mark.parametrize("name", STORES)
def test_a_store_may_be_called_anything_and_is_the_schema_of_that_name(
    empty: str, name: str
) -> None:
    before = schemas(empty)
    with agentmem.open(target(empty, name), **RELAXED) as store:
        store.put("k", name)
        assert store.increment("n").value == 1
        assert store.admin.stats()["entries"] == 2
        assert store.admin.verify().problems == []
    with agentmem.open(target(empty, name), **RELAXED) as again:
        assert again["k"] == name
    assert schemas(empty) == sorted([*before, name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_store_that_would_be_another_schema_is_refused(empty: str, name: str) -> None:
    before = schemas(empty)
    with pytest.raises(agentmem.InvalidValueError):
        agentmem.open(target(empty, name))
    assert schemas(empty) == before


@pytest.mark.parametrize("name", ["%ff", "%ed%a0%80", "%c0%80"])
def test_a_store_whose_name_is_no_utf8_is_refused(empty: str, name: str) -> None:
    before = schemas(empty)
    with pytest.raises(agentmem.InvalidValueError):
        agentmem.open(f"{empty}&store={name}")
    assert schemas(empty) == before


def test_stores_whose_names_differ_by_a_quote_are_two(empty: str) -> None:
    with (
        agentmem.open(target(empty, 'a"'), **RELAXED) as one,
        agentmem.open(target(empty, 'a""'), **RELAXED) as two,
    ):
        one.put("k", 1)
        assert "k" not in two


@pytest.fixture(scope="module")
def store() -> Iterator[agentmem.Store]:
    """A store whose own name is hostile, too."""
    name = "test_'\"\\{s}$1%s;"
    with agentmem.open(target(server_url(), name), **RELAXED) as store:
        yield store
    run(server_url(), 'DROP SCHEMA "test_\'""\\{s}$1%s;" CASCADE')


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_as_it_was_from_every_place(store: agentmem.Store, text: str) -> None:
    place: dict[str, Any] = {"namespace": (text, "below")}
    value = {"a": text, text: [text, None, text]}
    first = store.put(text, value, **place, agent=text, op_id=text, note=text, text=text)
    again = store.put(text, value, **place, agent=text, op_id=text, note=text, text=text)
    assert again == first, "the op_id was not found again"
    entry = store.get(text, **place)
    assert entry is not None
    assert (entry.key, entry.namespace, entry.value) == (text, (text, "below"), value)
    assert (entry.agent, entry.op_id, entry.text) == (text, text, text)
    assert store.log(op_id=text)[0].note == text
    assert [each.key for each in store.list(place["namespace"])] == [text]
    assert [each.key for each in store.list(place["namespace"], key_prefix=text)] == [text]
    assert store.get_many([text, text + "?"], **place) == {text: entry}
    assert store.count((text,), where={"a": text}) == 1
    assert store.count((text,), where={strategies.escape(text): {"$in": [[text, None, text]]}}) == 1
    store.audit.tag(text, note=text)
    assert [(tag.name, tag.note) for tag in store.audit.tags() if tag.name == text] == [
        (text, text)
    ]
    assert store.snapshot(at=text).get(text, **place) == entry
    # Two entries, so that they pass through arrays and not through the statement for one.
    with store.transaction(agent=text, op_id=text + "!", note=text, metadata={text: text}) as tx:
        tx.put(text, text, **place)
        tx.put(text + "!", text, **place)
        tx.append("list", text, namespace=(text,))
    commit = store.log(op_id=text + "!")[0]
    assert (commit.agent, commit.note, commit.metadata) == (text, text, {text: text})
    assert [each.value for each in store.list((text,))] == [[text], text, text]
    with pytest.raises(agentmem.ConflictError) as caught:
        store.put(text, 1, **place, expected_version=9)
    assert caught.value.conflicts[0].theirs == text
    store.clear((text,))
    assert store.count((text,)) == 0


def test_nothing_has_escaped_from_all_of_that(store: agentmem.Store) -> None:
    assert store.admin.verify().problems == []


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with psycopg.connect(server_url(), autocommit=True, client_encoding="utf8") as connection:
        yield Wire(connection)


texts = st.one_of(strategies.texts(max_size=20), st.sampled_from(TEXTS))
fixed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)


def asked(wire: Wire, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    return list(wire.run([(Statement(sql), values)])[0])


@fixed
@given(text=texts)
@example("")
def test_a_text_parameter_is_what_the_server_gets(wire: Wire, text: str) -> None:
    ((back, size, hexed),) = asked(
        wire, "SELECT $1::text, octet_length($1::text), convert_to($1::text, 'UTF8')", text
    )
    assert (back, size, hexed) == (text, len(text.encode()), text.encode())


@fixed
@given(column=st.lists(st.one_of(st.none(), texts), max_size=6))
@example([""])
@example(["", None, "NULL", "null", '"', "\\"])
@example([None])
def test_an_array_of_texts_is_what_the_server_gets(wire: Wire, column: list[str | None]) -> None:
    found = asked(
        wire, "SELECT x, x IS NULL FROM unnest($1::text[]) WITH ORDINALITY u(x, n)", column
    )
    assert found == [(each, each is None) for each in column]


@fixed
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
            st.one_of(st.none(), st.binary(max_size=40)),
            st.one_of(st.none(), texts),
        ),
        max_size=6,
    )
)
@example([(0, b"", ""), (-(2**63), b"\x00\\x\"'{},", "x"), (None, None, None)])
def test_rows_are_what_the_server_gets(wire: Wire, rows: list[tuple[Any, ...]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    sql = "SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[])"
    assert asked(wire, sql, *columns) == rows
    for number, data, text in rows:
        assert asked(wire, "SELECT $1::bigint, $2::bytea, $3::text", number, data, text) == [
            (number, data, text)
        ]


@settings(parent=fixed, max_examples=60)
@given(
    namespace=strategies.namespaces(), key=strategies.keys(), value=strategies.json_values(),
    note=st.one_of(st.none(), texts), agent=st.one_of(st.none(), texts.filter(bool)),
)  # fmt: skip
def test_whatever_may_be_written_is_read_as_it_was(
    store: agentmem.Store,
    namespace: tuple[str, ...],
    key: str,
    value: Any,
    note: str | None,
    agent: str | None,
) -> None:
    try:
        store.put(key, value, namespace=namespace, note=note, agent=agent)
    except (agentmem.InvalidValueError, agentmem.LimitExceededError):
        return
    entry = store.get(key, namespace=namespace)
    assert entry is not None
    assert (entry.key, entry.namespace, entry.agent) == (key, namespace, agent)
    assert json.dumps(entry.value, sort_keys=True) == json.dumps(value, sort_keys=True)
    assert store.log(limit=1)[0].note == note


@pytest.mark.parametrize(
    ("option", "value"),
    [("client_encoding", "LATIN1"), ("options", "-c client_encoding=LATIN1")],
)
def test_texts_are_utf8_whatever_encoding_the_target_asks_for(
    server: Server, option: str, value: str
) -> None:
    with (
        agentmem.open(target(server.url, "encoded", **{option: value}), **RELAXED) as store,
        agentmem.open(target(server.url, "encoded"), **RELAXED) as witness,
    ):
        store.put("é", "\U0001f9e0")
        assert witness["é"] == "\U0001f9e0"


def test_texts_are_utf8_whatever_encoding_the_environment_asks_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agentmem.open(target(server.url, "encoded"), **RELAXED) as witness:
        witness.put("other", "é")
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        with agentmem.open(target(server.url, "encoded"), **RELAXED) as store:
            assert store["other"] == "é"
            store.put("é", "\U0001f9e0")
        assert witness["é"] == "\U0001f9e0"


@pytest.mark.parametrize(("setting", "value"), [("bytea_output", "escape"), ("array_nulls", "off")])
def test_a_setting_that_would_change_what_is_written_is_refused(
    server: Server, setting: str, value: str
) -> None:
    url = target(server.url, options=f"-c {setting}={value}")
    with pytest.raises(agentmem.StorageError, match=f"{setting}={value}.*ALTER ROLE"):
        agentmem.open(url)
