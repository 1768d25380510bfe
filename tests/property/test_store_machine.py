"""The whole store against a model of plain dicts.

Hypothesis drives two store objects on one target, a clock, up to three open transactions and any
number of kept snapshots, and after every step compares everything that can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

import agentmem
from agentmem import ConflictError, InvalidValueError, KeyMissingError, Snapshot, Transaction
from tests.contract.conftest import BACKENDS
from tests.property.store_calls import SingleCalls
from tests.property.store_model import (
    BLIND,
    DELETED,
    Place,
    Refused,
    Scan,
    Tx,
    Verdict,
    Write,
    applied,
    order,
    spell,
)
from tests.property.store_vocabulary import (
    EPOCH,
    KEYS,
    NAMESPACES,
    actions,
    call,
    described,
    handles,
    moment,
    op_ids,
    rounds,
    seen,
)


@dataclass
class Open:
    """A transaction that is under way."""

    handle: int
    tx: Transaction
    model: Tx


@dataclass
class Kept:
    """A snapshot that is kept, and what it showed when it was made."""

    handle: int
    snapshot: Snapshot
    shown: list[tuple[Any, ...]]


class StoreMachine(SingleCalls):
    """See the module."""

    @initialize()
    def open_nothing(self) -> None:
        self.open_txs: dict[int, Open] = {}
        self.kept: list[Kept] = []
        self.tags: dict[str, int] = {}

    # Transactions.

    @rule(
        slot=st.integers(0, 2),
        handle=handles,
        serializable=st.sampled_from((True, True, False)),
        op_id=op_ids,
        work=st.lists(actions, min_size=1, max_size=5),
        end=st.sampled_from(("stay", "stay", "commit", "repair", "roll back")),
    )
    def transaction(
        self,
        slot: int,
        handle: int,
        serializable: bool,
        op_id: str | None,
        work: list[tuple[Any, ...]],
        end: str,
    ) -> None:
        """Goes on with the transaction of a slot, or begins one."""
        if slot not in self.open_txs:
            self.open_txs[slot] = self.begun(handle, serializable, op_id)
        each = self.open_txs[slot]
        self.work(each, work)
        if end != "stay":
            self.end(slot, end)

    @rule(handle=handles, rounds=st.lists(rounds, min_size=1, max_size=3))
    def race(self, handle: int, rounds: list[tuple[Any, ...]]) -> None:
        """Transactions from begin to end, and what others do meanwhile."""
        for serializable, before, between, after, how in rounds:
            slot = -1
            self.open_txs[slot] = each = self.begun(handle, serializable, None)
            self.work(each, before)
            for number, todo in between:
                self.meanwhile(1 - handle, each, number, todo)
            self.work(each, after)
            self.end(slot, how)

    def work(self, each: Open, todo: list[tuple[Any, ...]]) -> None:
        for kind, *arguments in todo:
            getattr(self, f"tx_{kind}")(each, *arguments)

    def meanwhile(self, handle: int, each: Open, number: int, todo: tuple[str, Any]) -> None:
        """Another does something to a key, most often one that the transaction has met."""
        found = [place for scan in each.model.scans for place in scan.found]
        met = sorted({*each.model.reads, *each.model.writes, *found}, key=order)
        place = met[number] if number < len(met) else (NAMESPACES[number % 5], KEYS[0])
        kind, argument = todo
        if kind == "advance":
            self.advance(argument)
        elif kind == "atomic":
            self.atomic(handle, place, argument, None)
        elif kind == "put":
            self.put(handle, (place, argument), "blind", True, None, None, None, None)
        else:
            self.delete(handle, place, "blind", None)

    def begun(self, handle: int, serializable: bool, op_id: str | None) -> Open:
        tx = self.stores[handle].transaction(
            op_id=op_id, isolation="serializable" if serializable else "snapshot"
        )
        known = self.model.operations.get(op_id or "")
        assert (tx.applied.revision if tx.applied else None) == (known[0] if known else None)
        model = self.model.begin(serializable=serializable, op_id=op_id)
        assert tx.revision == model.revision
        return Open(handle, tx, model)

    def tx_get(self, each: Open, place: Place, track: bool) -> None:
        entry = each.tx.get(place[1], namespace=place[0], track=track)
        value = self.model.read(each.model, place, track=track)
        assert spell(entry.value if entry else DELETED) == spell(value)
        if entry is not None:
            own = place in each.model.writes
            row = self.model.at(place, each.model.revision, each.model.instant)
            assert entry.pending == own
            assert entry.version == (None if own or row is None else row.number)

    def tx_list(
        self, each: Open, namespace: Any, prefix: str, where: Any, limit: int | None
    ) -> None:
        found = each.tx.list(namespace, key_prefix=prefix, where=where[0], limit=limit)
        scan = Scan(namespace, prefix, where[1], presence=False)
        expected = self.model.scan(each.model, scan, limit)
        assert [((entry.namespace, entry.key), spell(entry.value)) for entry in found] == [
            (place, spell(value)) for place, value in expected
        ]

    def tx_count(self, each: Open, namespace: Any, prefix: str, where: Any) -> None:
        count = each.tx.count(namespace, key_prefix=prefix, where=where[0])
        scan = Scan(namespace, prefix, where[1], presence=True)
        assert count == len(self.model.scan(each.model, scan, None))

    def tx_write(self, each: Open, pair: tuple[Place, Any], base: str, ttl: int | None) -> None:
        place, value = pair
        write = Write(value, ttl=None if value is DELETED else ttl)
        options: dict[str, Any] = {"namespace": place[0]}
        if base == "overwrite":
            options["overwrite"] = True
            write.base = BLIND
        elif base != "snapshot":
            write.base = options["expected_version"] = self.expected(place, base)
        if value is DELETED:
            each.tx.delete(place[1], **options)
        else:
            each.tx.put(place[1], value, ttl_s=ttl, **options)
        self.model.fold(each.model, place, write)

    def tx_atomic(self, each: Open, place: Place, step: tuple[str, Any]) -> None:
        own = each.model.writes.get(place)
        try:
            applied((step,), self.model.own(each.model, place))
        except Refused:
            # On an own value it is refused at once; else only the commit could tell.
            if own is not None and not own.steps:
                with pytest.raises(InvalidValueError):
                    call(each.tx, step, place)
            return
        call(each.tx, step, place)
        self.model.fold(each.model, place, Write(steps=(step,)))

    def tx_touch(self, each: Open, place: Place, ttl: int | None) -> None:
        own = each.model.writes.get(place)
        if self.model.read(each.model, place) is DELETED:
            with pytest.raises(KeyMissingError):
                each.tx.touch(place[1], ttl, namespace=place[0])
            return
        each.tx.touch(place[1], ttl, namespace=place[0])
        if own is not None and not own.steps:
            own.ttl = ttl
        else:
            each.model.touches[place] = ttl

    @rule(slot=st.integers(0, 2), how=st.sampled_from(("commit", "repair")))
    def end(self, slot: int, how: str) -> None:
        """Ends the transaction of a slot, if there is one."""
        each = self.open_txs.pop(slot, None)
        if each is None:
            return
        if how == "roll back":
            each.tx.rollback()
            return
        model = each.model
        known = self.model.operations.get(model.op_id or "")
        if known is not None:
            commit = each.tx.commit()
            assert (commit.replayed, commit.revision) == (True, known[0])
            return
        verdict, final = self.model.judge(model)
        conflicted = self.try_commit(each, verdict)
        if conflicted and how == "repair":
            each.tx.rebase(accept=each.tx.stale())
            self.model.rebase(model)
            verdict, final = self.model.judge(model)
            assert verdict is not Verdict.CONFLICT
            if not all(map(self.model.seen, model.touches)):
                # A touch of what is gone conflicts for ever: see the xfail in test_repair.
                each.tx.rollback()
                return
            conflicted = self.try_commit(each, verdict)
            assert not conflicted
        if conflicted or verdict is Verdict.INVALID:
            each.tx.rollback()
            return
        # Touch comes first, so that an atomic operation keeps what it set, whatever their order.
        revision, made = self.model.apply(final, op_id=model.op_id, touches=model.touches)
        assert self.committed == (
            revision,
            [(place, version.number) for place, version in made],
        )
        if model.op_id is not None:
            self.model.operations[model.op_id] = (revision or 0, None, "null")
        self.note()

    def try_commit(self, each: Open, verdict: Verdict) -> bool:
        """Commits as the verdict says; returns whether it met a conflict."""
        self.committed: Any = None
        if verdict is Verdict.INVALID:
            with pytest.raises(InvalidValueError):
                each.tx.commit()
            return False
        try:
            commit = each.tx.commit()
        except ConflictError:
            assert verdict is not Verdict.COMMIT
            return True
        assert verdict is not Verdict.CONFLICT
        changes = [((change.namespace, change.key), change.version) for change in commit.changes]
        self.committed = (commit.revision, changes)
        return False

    # Time, snapshots, store objects.

    @rule(seconds=st.integers(1, 4))
    def advance(self, seconds: int) -> None:
        self.model.now += seconds

    @rule(
        handle=handles,
        what=st.sampled_from(("keep", "keep", "tag", "tag", "reopen")),
        name=st.sampled_from("tu"),
        back=st.integers(0, 5),
    )
    def look_after(self, handle: int, what: str, name: str, back: int) -> None:
        if what == "keep":
            state = self.model.state(self.model.revision, self.model.now)
            shown = [described(*each) for each in state.items()]
            self.kept = [*self.kept[-5:], Kept(handle, self.stores[handle].snapshot(), shown)]
        elif what == "tag":
            revision = max(self.model.revision - back, 0)
            self.stores[handle].audit.tag(name, at=revision)
            self.tags[name] = revision
        else:
            self.stores[handle].close()
            self.stores[handle] = self.open()
            self.open_txs = {
                slot: each for slot, each in self.open_txs.items() if each.handle != handle
            }
            self.kept = [each for each in self.kept if each.handle != handle]

    @rule(
        handle=handles,
        by=st.sampled_from(("revision", "tag", "time")),
        name=st.sampled_from("tu"),
        back=st.integers(0, 12),
    )
    def read_the_past(self, handle: int, by: str, name: str, back: int) -> None:
        store = self.stores[handle]
        if by == "revision":
            revision = max(self.model.revision - back, 0)
            self.check(store.snapshot(at=revision), self.shown[revision])
        elif by == "time":
            instant = self.model.now - back
            revision = self.model.revision_at(instant)
            snapshot = store.snapshot(at=EPOCH + timedelta(seconds=instant))
            assert snapshot.revision == revision
            state = self.model.state(revision, instant)
            self.check(snapshot, [described(*each) for each in state.items()])
        elif name in self.tags:
            self.check(store.snapshot(at=name), self.shown[self.tags[name]])
        else:
            with pytest.raises(agentmem.RevisionError):
                store.snapshot(at=name)

    def check(self, view: Any, shown: list[tuple[Any, ...]]) -> None:
        assert [seen(entry) for entry in view.list()] == shown
        assert view.count() == len(shown)
        namespaces = {each[0] for each in shown}
        assert view.namespaces() == sorted(namespaces, key=lambda each: order((each, "")))

    # After every step.

    @invariant()
    def the_present_is_that_of_the_model(self) -> None:
        state = self.model.state(self.model.revision, self.model.now)
        shown = [described(*each) for each in state.items()]
        for store in self.stores:
            assert store.revision == self.model.revision
            self.check(store, shown)
        for namespace in NAMESPACES:
            inside = [each for each in shown if each[0] == namespace]
            found = self.stores[0].get_many(KEYS, namespace=namespace)
            assert sorted(map(seen, found.values()), key=lambda at: order(at[:2])) == inside
        for (namespace, key), version in self.model.versions.items():
            entry = self.stores[1].get(key, namespace=namespace)
            row = state.get((namespace, key))
            assert (seen(entry) if entry else None) == (
                described((namespace, key), row) if row else None
            )
            if entry is not None:
                assert entry.expires_at == moment(version[-1].expires_at)

    @invariant()
    def kept_snapshots_show_what_they_showed(self) -> None:
        for each in self.kept:
            self.check(each.snapshot, each.shown)


StoreMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50)
TestStoreMachine = pytest.mark.slow(StoreMachine.TestCase)


class PostgresStoreMachine(StoreMachine):
    """The same on PostgreSQL: fewer examples, as each call is a round trip or two."""

    backend = BACKENDS["postgres"]


PostgresStoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=50)
TestPostgresStoreMachine = pytest.mark.slow(PostgresStoreMachine.TestCase)
