"""What all tools of a toolkit work with: a part of a store, who acts, how long results are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentmem import AccessDeniedError, AgentMemError, Commit, Difference, Entry, Store, Transaction
from agentmem.history.diff import differences
from agentmem.model import MISSING
from langchain_agentmem.budget import Budget
from langchain_agentmem.invocation import Invocation
from langchain_agentmem.paths import Place, path_of, place_of, spelled
from langchain_agentmem.reads import Known, Reads, newer, visible

__all__ = ["Answer", "Desk"]

_MAX_CITED = 50


@dataclass(slots=True)
class Answer:
    """What a tool says.

    Attributes:
        text: for the model.
        refused: nothing was done, and the text says why and what to do.
        facts: for programs, JSON: the artifact of the tool's message.
        reads: what the agent knows from it, by path in the view.
    """

    text: str
    refused: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, Known] = field(default_factory=dict)


class Desk:
    """A scoped view of a store, with what is said about its keys.

    Args:
        view: the part of the store that the tools see; they cannot leave it.
        agent: who acts, where that is fixed.
        budget: of one result.
        claim_s: for how many seconds a task is claimed.
    """

    def __init__(
        self, view: Store, agent: str | None, budget: Budget, claim_s: float = 600.0
    ) -> None:
        self.view = view
        self.agent = agent
        self.budget = budget
        self.claim_s = claim_s
        # Graphs keep versions by where the view lies.
        self.store_id = view.store_id
        self._prefix = spelled(view.prefix)
        self.limits = view.limits

    def rooted(self, path: str) -> str:
        """A path from the root of the store."""
        return f"{self._prefix}/{path}" if self._prefix else path

    def inside(self, rooted: str) -> str | None:
        """A path in this view; None if it lies outside."""
        if not self._prefix:
            return rooted
        path = rooted.removeprefix(f"{self._prefix}/")
        return None if path == rooted else path

    def state_of(self, answer: Answer) -> Reads:
        """What an answer adds to the state of a graph."""
        if not answer.reads:
            return {}
        return {self.store_id: {self.rooted(path): pair for path, pair in answer.reads.items()}}

    def known(self, call: Invocation, path: str) -> Known:
        """What the calling agent has read and was told of a key; None where nothing is kept."""
        read, told = call.known.get(self.rooted(path), (None, None))
        return [read, told]

    # Reading.

    def get(self, place: Place) -> Entry[Any] | None:
        """The entry of a key; None if it is absent."""
        labels, key = place
        return self.view.get(key, namespace=labels)

    def readable(self, keys: Iterable[str], labels: tuple[str, ...]) -> dict[str, Entry[Any]]:
        """The entries of keys; those that this view may not read are left out.

        What an agent knows may come from tools with another access.
        """
        keys = list(keys)
        try:
            return self.view.get_many(keys, namespace=labels)
        except AccessDeniedError:
            if len(keys) == 1:
                return {}
            alone = [self.readable([key], labels) for key in keys]
            return {key: entry for found in alone for key, entry in found.items()}

    def may_read(self, place: Place) -> bool:
        """Whether this view may read a key."""
        labels, key = place
        try:
            self.view.get(key, namespace=labels)
        except AccessDeniedError:
            return False
        return True

    def absent_as_of(self, place: Place) -> int:
        """What is known of a key that was read and is absent; see `reads`."""
        labels, key = place
        latest = self.view.history(key, namespace=labels, limit=1)
        return -(latest[0].version or 0) if latest else 0

    def seen(self, entry: Entry[Any]) -> dict[str, Known]:
        """That the whole value of an entry is put before the agent in a tool's result."""
        return {path_of(entry): [entry.version, entry.version]}

    def changes(self, place: Place, base: int, entry: Entry[Any] | None) -> list[Difference] | None:
        """What differs from a version to an entry; None if the version is not there any more."""
        labels, key = place
        now = MISSING if entry is None else entry.value
        if visible(base) == 0:
            return differences(MISSING, now)
        try:
            before = self.view.audit.version(key, base, namespace=labels)
        except AgentMemError:  # compacted or purged: there is nothing to compare with
            return None
        if before.purged is not None:
            return None
        return differences(MISSING if before.deleted else before.value, now)

    # Writing.

    def commit(
        self,
        call: Invocation,
        act: Callable[[Transaction], None],
        request: Mapping[str, Any],
    ) -> Commit:
        """Commits what a function writes, once for this call.

        Args:
            act: is not run if the call is a replay.
            request: the arguments of the call; another request under its op_id is refused.

        Raises: as `Transaction.commit`, and what `act` raises.
        """
        with self.view.transaction(
            agent=self.who(call),
            op_id=call.op_id,
            metadata=call.metadata,
            fingerprint=_fingerprint(call, request),
        ) as tx:
            if tx.applied is None:
                act(tx)
                self._cite(tx, call)
            return tx.commit()

    def result(self, call: Invocation, request: Mapping[str, Any]) -> Any:
        """What `keep` has kept for this call; None: nothing."""
        with self.view.transaction(op_id=call.op_id, fingerprint=_fingerprint(call, request)) as tx:
            if tx.applied is not None:
                return tx.commit().result
            tx.rollback()
        return None

    def keep(self, call: Invocation, request: Mapping[str, Any], result: Any) -> Any:
        """Commits a result, JSON, for replays of this call; returns the first one."""
        return self.view.transact(
            lambda tx: result,
            agent=self.who(call),
            op_id=call.op_id,
            metadata=call.metadata,
            fingerprint=_fingerprint(call, request),
        )

    def who(self, call: Invocation) -> str | None:
        """The agent of a call; None leaves it to the store."""
        return self.agent or call.agent

    def _cite(self, tx: Transaction, call: Invocation) -> None:
        """Keeps with the commit what the agent knows of keys that are there.

        It is what the model was shown, so what it wrote may come of it, whatever has become of it
        since. It is not judged: a tool call fails for the key that it writes, not for every key
        that the agent has ever read.
        """
        for rooted, (_read, told) in list(call.known.items())[-_MAX_CITED:]:
            path, seen = self.inside(rooted), visible(told)
            if path is None or not seen:
                continue
            labels, key = place_of(path)
            entry = self.readable([key], labels).get(key)
            # A version that is not there yet: the state is of a store that was replaced since.
            if entry is not None and seen <= (entry.version or 0):
                tx.cite(key, seen, namespace=labels)

    def wrote(self, call: Invocation, entry: Entry[Any], *, whole: bool) -> dict[str, Known]:
        """What the agent knows after its own write.

        Args:
            whole: it gave or was shown the whole value. Else it knows of its own change, and of
                the version only if it knew the one before.
        """
        path = path_of(entry)
        version = entry.version or 0
        if entry.deleted:
            version = -version
        if whole:
            return {path: [version, version]}
        read, told = self.known(call, path)
        if told is not None and abs(told) + 1 == abs(version):
            return {path: [read, newer(told, version)]}
        return {}


def _fingerprint(call: Invocation, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """What tells the request from another under the same operation id."""
    return {"tool": call.tool, "arguments": dict(request)} if call.op_id is not None else None
