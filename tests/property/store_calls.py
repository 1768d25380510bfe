"""The part of the store machine that commits with every call."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import agentmem
from agentmem import (
    ConflictError,
    Entry,
    InvalidValueError,
    KeyMissingError,
    OperationMismatchError,
    Store,
    Transaction,
)
from tests.contract.conftest import BACKENDS, Backend
from tests.property.store_model import (
    BLIND,
    DELETED,
    Model,
    Place,
    Tx,
    Verdict,
    Version,
    Write,
    spell,
)
from tests.property.store_vocabulary import (
    EPOCH,
    FOLDER,
    KEYS,
    MET,
    NAMESPACES,
    STRATEGIES,
    agents,
    bases,
    call,
    described,
    handles,
    moment,
    op_ids,
    outcome,
    pairs,
    places,
    seen,
    steps,
    ttls,
    values,
)


class SingleCalls(RuleBasedStateMachine):
    """Two store objects on one target, the model, and every call that commits at once.

    Attributes:
        backend: the engine under test.
    """

    backend: Backend = BACKENDS["sqlite"]

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentmem-machine-", dir=FOLDER))
        self.target = self.backend.target(self.folder, "team")
        self.model = Model(STRATEGIES)
        self.stores = [self.open(), self.open()]
        for label, strategy in STRATEGIES.items():
            self.stores[0].set_merge(f"{label}/**", strategy)
        self.shown: list[list[tuple[Any, ...]]] = [[]]
        for place, value in MET.items():
            self.put(0, (place, value), "absent", True, None, None, None, None)

    def open(self) -> Store:
        return agentmem.open(
            self.target,
            durability="relaxed",
            blind_writes="allow",
            clock=lambda: EPOCH + timedelta(seconds=self.model.now),
        )

    def teardown(self) -> None:
        if not hasattr(self, "stores"):
            return
        try:
            self.check_log()
            assert self.stores[0].admin.verify().problems == []
        finally:
            for store in self.stores:
                store.close()
            self.backend.remove({self.target})
            shutil.rmtree(self.folder)

    def check_log(self) -> None:
        """Every version of every key, and every commit, is there as it was made."""
        for place, versions in self.model.versions.items():
            history = self.stores[1].history(place[1], namespace=place[0])
            assert [seen(entry) for entry in history] == [
                described(place, version) for version in reversed(versions)
            ]
        times = [commit.committed_at for commit in self.stores[0].log()]
        assert times == [moment(time) for time in reversed(self.model.times)]

    # What every single call shares.

    def single(
        self,
        run: Callable[[str | None], Any],
        tx: Tx,
        op_id: str | None,
        fingerprint: Any,
        agent: str | None = None,
    ) -> list[tuple[Place, Version]] | None:
        """Runs a call that commits at once, as the model says it must end.

        Returns: what it wrote; None if it was refused or replayed.
        """
        known = self.model.operations.get(op_id) if op_id is not None else None
        if known is not None:
            _revision, used, result = known
            if used == fingerprint:
                assert outcome(run(op_id)) == result or result == "nothing"
            else:
                with pytest.raises(OperationMismatchError):
                    run(op_id)
            return None
        verdict, final = self.model.judge(tx)
        if verdict is not Verdict.COMMIT:
            error = InvalidValueError if verdict is Verdict.INVALID else ConflictError
            with pytest.raises(error):
                run(op_id)
            return None
        result: Any = outcome(run(op_id))
        revision, made = self.model.apply(final, agent=agent, op_id=op_id)
        if made or result == []:
            assert result in ([described(place, version) for place, version in made], "count")
        elif result != "count":
            # A put that was merged into a delete returns what is there no more.
            result = "nothing"
        if op_id is not None:
            assert revision is not None
            self.model.operations[op_id] = (revision, fingerprint, result)
        self.note()
        return made

    def note(self) -> None:
        """Keeps what each new revision shows at its commit time."""
        while len(self.shown) <= self.model.revision:
            revision = len(self.shown)
            state = self.model.state(revision, self.model.times[revision - 1])
            self.shown.append([described(*each) for each in state.items()])

    def one(self, place: Place, write: Write) -> Tx:
        tx = self.model.begin(serializable=False)
        tx.writes[place] = write
        return tx

    # Single calls.

    @rule(
        handle=handles,
        pair=pairs,
        expected=bases,
        merge=st.sampled_from((True, True, False)),
        ttl=ttls,
        text=st.sampled_from((None, None, False, "given")),
        agent=agents,
        op_id=op_ids,
    )
    def put(
        self,
        handle: int,
        pair: tuple[Place, Any],
        expected: str,
        merge: bool,
        ttl: int | None,
        text: Any,
        agent: str | None,
        op_id: str | None,
    ) -> None:
        place, value = pair
        base = self.expected(place, expected)
        options: dict[str, Any] = {"namespace": place[0], "ttl_s": ttl, "text": text}
        options |= {"merge": merge, "agent": agent, "overwrite": expected == "overwrite"}
        options["expected_version"] = None if base == BLIND else base
        write = Write(
            value, base=base, merge=merge, ttl=ttl, text=text or None, hidden=text is False
        )
        self.single(
            lambda op: self.stores[handle].put(
                place[1],
                value,
                op_id=op,
                **options,
            ),
            self.one(place, write),
            op_id,
            ("put", place, spell(value), ttl, text),
            agent,
        )

    def expected(self, place: Place, kind: str) -> int:
        row = self.model.seen(place)
        versions = self.model.versions.get(place, [])
        return {
            "blind": BLIND,
            "overwrite": BLIND,
            "seen": row.number if row else 0,
            "absent": 0,
            "older": max(len(versions) - 1, 0),
        }[kind]

    @rule(
        handle=handles,
        place=places,
        expected=bases.filter(lambda kind: kind != "overwrite"),
        op_id=op_ids,
    )
    def delete(self, handle: int, place: Place, expected: str, op_id: str | None) -> None:
        base = self.expected(place, expected)
        self.single(
            lambda op: self.stores[handle].delete(
                place[1],
                namespace=place[0],
                expected_version=None if base == BLIND else base,
                op_id=op,
            ),
            self.one(place, Write(base=base)),
            op_id,
            ("delete", place),
        )

    @rule(handle=handles, place=places, step=steps, op_id=op_ids)
    def atomic(self, handle: int, place: Place, step: tuple[str, Any], op_id: str | None) -> None:
        self.single(
            lambda op: call(self.stores[handle], step, place, op_id=op),
            self.one(place, Write(steps=(step,))),
            op_id,
            (place, step[0], spell(step[1])),
        )

    @rule(
        handle=handles,
        namespace=st.sampled_from(NAMESPACES),
        many=st.dictionaries(st.sampled_from(KEYS), values, min_size=1),
        ttl=ttls,
        op_id=op_ids,
    )
    def put_many(
        self,
        handle: int,
        namespace: tuple[str, ...],
        many: dict[str, Any],
        ttl: int | None,
        op_id: str | None,
    ) -> None:
        tx = self.model.begin(serializable=False)
        for key, value in many.items():
            tx.writes[namespace, key] = Write(value, base=BLIND, ttl=ttl)
        self.single(
            lambda op: self.stores[handle].put_many(many, namespace=namespace, ttl_s=ttl, op_id=op),
            tx,
            op_id,
            ("put_many", namespace, [(key, spell(value)) for key, value in many.items()], ttl),
        )

    @rule(handle=handles, value=values)
    def add(self, handle: int, value: Any) -> None:
        entry = self.stores[handle].add(value, namespace="log")
        place = (("log",), entry.key)
        assert place not in self.model.versions
        _revision, ((_place, version),) = self.model.apply({place: Write(value)})
        assert seen(entry) == described(place, version)
        self.note()

    @rule(handle=handles, namespace=st.sampled_from(NAMESPACES[1:]))
    def clear(self, handle: int, namespace: tuple[str, ...]) -> None:
        tx = self.model.begin(serializable=False)
        doomed = [
            place
            for place in self.model.state(tx.revision, tx.instant)
            if place[0][: len(namespace)] == namespace
        ]
        tx.writes = {place: Write() for place in doomed}
        made = self.single(lambda op: self.stores[handle].clear(namespace), tx, None, None)
        assert made is not None
        assert len(made) == len(doomed)

    @rule(
        handle=handles,
        place=places,
        change=st.one_of(values, st.just(DELETED)),
        default=st.one_of(st.just(DELETED), values),
        ttl=ttls,
        op_id=op_ids,
    )
    def update(
        self,
        handle: int,
        place: Place,
        change: Any,
        default: Any,
        ttl: int | None,
        op_id: str | None,
    ) -> None:
        row = self.model.seen(place)
        given: list[Any] = []

        def run(op: str | None) -> Any:
            options = {} if default is DELETED else {"default": default}
            return self.stores[handle].update(
                place[1],
                lambda value: given.append(value) or new,  # type: ignore[func-returns-value]  # notes it
                namespace=place[0],
                ttl_s=ttl,
                op_id=op,
                **options,
            )

        new = agentmem.DELETE if change is DELETED else change
        if op_id not in self.model.operations and row is None and default is DELETED:
            with pytest.raises(KeyMissingError):
                run(op_id)
            assert given == []
            return
        number = row.number if row else 0
        write = Write(change, base=number, merge=False, ttl=ttl, keep=True)
        made = self.single(run, self.one(place, write), op_id, ("update", place))
        before = default if row is None else row.value
        assert [spell(each) for each in given] == ([] if made is None else [spell(before)])

    @rule(handle=handles, place=places, ttl=ttls, op_id=op_ids)
    def touch(self, handle: int, place: Place, ttl: int | None, op_id: str | None) -> None:
        def run(op: str | None) -> Entry[Any]:
            return self.stores[handle].touch(place[1], ttl, namespace=place[0], op_id=op)

        absent = self.model.seen(place) is None
        if op_id not in self.model.operations and absent:
            with pytest.raises(KeyMissingError):
                run(op_id)
            return
        if op_id in self.model.operations:
            self.single(run, self.model.begin(), op_id, ("touch", place, ttl))
            return
        entry = run(op_id)
        self.model.touch(place, ttl)
        version = self.model.seen(place)
        assert version is not None
        assert seen(entry) == described(place, version)
        assert entry.expires_at == moment(version.expires_at)
        revision, _made = self.model.apply({}, op_id=op_id)
        if op_id is not None:
            self.model.operations[op_id] = (revision or 0, ("touch", place, ttl), outcome(entry))
        self.note()

    @rule(handle=handles, source=places, goal=places, op_id=op_ids)
    def transact(self, handle: int, source: Place, goal: Place, op_id: str | None) -> None:
        row = self.model.seen(source)
        copied = spell(row.value if row else None)

        def copy(tx: Transaction) -> Any:
            entry = tx.get(source[1], namespace=source[0])
            tx.put(goal[1], entry.value if entry else None, namespace=goal[0])
            return [entry.value if entry else None]

        known = self.model.operations.get(op_id or "")
        result = self.stores[handle].transact(copy, op_id=op_id)
        if known is not None:
            if known[1] is None or known[1][0] != "touch":
                assert spell(result) == (known[2] if known[1] is None else "null")
            return
        assert spell(result) == f"[{copied}]"
        revision, _made = self.model.apply({goal: Write(row.value if row else None)}, op_id=op_id)
        if op_id is not None:
            self.model.operations[op_id] = (revision or 0, None, spell(result))
        self.note()
