"""Random histories go out as lines and come back the same, through both engines."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import agentmem
from tests import strategies
from tests.contract.conftest import BACKENDS, ManualClock
from tests.contract.test_copy import everything

_numbers = itertools.count()
_AGENTS: Final = (None, "ann", "bob", "zoë 🙂")
_MERGES: Final = ("union", "counter", "text", "json", "escalate", "append")


def _labels() -> SearchStrategy[Any]:
    return st.none() | strategies.texts(min_size=1)


def _steps() -> SearchStrategy[tuple[Any, ...]]:
    places = st.tuples(strategies.namespaces(max_depth=2), strategies.keys())
    values = strategies.json_values(max_leaves=4)
    ttls = st.none() | st.integers(1, 200)
    agents = st.sampled_from(_AGENTS)
    return st.one_of(
        st.tuples(
            st.just("put"), places, values, ttls, agents, st.none() | st.integers(0, 4),
            st.none() | st.just(False) | strategies.texts(), _labels(), _labels(),
        ),
        st.tuples(st.just("delete"), places),
        st.tuples(st.just("increment"), places, agents),
        st.tuples(st.just("touch"), places, ttls),
        st.tuples(st.just("wait"), st.integers(0, 300)),
        st.tuples(st.just("transact"), st.lists(places, max_size=3), values, _labels()),
        st.tuples(st.just("tag"), strategies.texts(min_size=1), agents, _labels()),
        st.tuples(st.just("merge"), st.sampled_from(_MERGES)),
        st.tuples(st.just("resolve"), st.sampled_from(("ours", "theirs"))),
        st.tuples(st.just("vector"), st.sampled_from("ab"), st.floats(-2, 2, width=32)),
    )  # fmt: skip


def _do(store: agentmem.Store, clock: ManualClock, step: tuple[Any, ...]) -> None:
    name, *rest = step
    if name == "put":
        (namespace, key), value, ttl_s, agent, version, text, op_id, note = rest
        store.put(
            key, value, namespace=namespace, ttl_s=ttl_s, agent=agent, expected_version=version,
            text=text, op_id=op_id, note=note, metadata={"n": value}, overwrite=version is None,
        )  # fmt: skip
    elif name == "delete":
        store.delete(rest[0][1], namespace=rest[0][0])
    elif name == "increment":
        store.increment(rest[0][1], namespace=rest[0][0], agent=rest[1])
    elif name == "touch":
        store.touch(rest[0][1], rest[1], namespace=rest[0][0])
    elif name == "wait":
        clock.advance(rest[0])
    elif name == "transact":
        places, value, op_id = rest

        def work(tx: agentmem.Transaction) -> Any:
            tx.list("team", limit=2)
            for namespace, key in places:
                tx.get(key, namespace=namespace)
            tx.put("found", value, namespace="team")
            return value

        store.transact(work, op_id=op_id)
    elif name == "tag":
        store.audit.tag(rest[0], agent=rest[1], note=rest[2])
    elif name == "merge":
        store.set_merge("**", rest[0])
    elif name == "resolve":
        store.audit.resolve(store.audit.conflicts("open")[0].id, rest[0])
    else:
        store.put(rest[0], 1, namespace="space", vector=[rest[1], 1.0], overwrite=True)


@contextmanager
def _stores(folder: Path, clock: ManualClock, *names: str) -> Iterator[list[agentmem.Store]]:
    targets = [BACKENDS[name].target(folder, f"{name}-{next(_numbers)}") for name in names]
    opened: list[agentmem.Store] = []
    try:
        for target in targets:
            options: dict[str, Any] = {"durability": "relaxed", "embedder": None, "clock": clock}
            opened.append(agentmem.open(target, blind_writes="allow", **options))
        yield opened
    finally:
        for store in opened:
            store.close()
        for name, target in zip(names, targets, strict=True):
            BACKENDS[name].remove({target})


def _export(store: agentmem.Store) -> bytes:
    stream = io.BytesIO()
    store.admin.export(stream)
    return stream.getvalue()


def _body(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)[1:]  # without whose store it was


@settings(max_examples=25)
@given(st.lists(_steps(), max_size=30))
def test_a_history_goes_from_a_file_to_a_server_and_back_byte_by_byte(
    steps: list[tuple[Any, ...]],
) -> None:
    clock = ManualClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        _stores(Path(folder), clock, "sqlite", "postgres", "sqlite") as (first, server, last),
    ):
        for step in steps:
            # What a step cannot do, it tells; conflicts go on record.
            with suppress(agentmem.AgentMemError, IndexError):
                _do(first, clock, step)
        out = _export(first)
        server.admin.load(io.BytesIO(out))
        between = _export(server)
        last.admin.load(io.BytesIO(between))

        assert _body(between) == _body(out)
        assert _body(_export(last)) == _body(out)
        assert everything(last) == everything(first)
        assert server.admin.verify().problems == []
        assert [e.key for e in last.list()] == [e.key for e in server.list()]
