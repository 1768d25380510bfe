"""Writing calls that commit at once: what a store can do besides transactions."""

from __future__ import annotations

from builtins import list as List  # noqa: N812  # as in the views
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

from agentmem import writes
from agentmem.course import Course, asked, drive, refuse_async
from agentmem.engines.rows import (
    Place,
)
from agentmem.model import MISSING, Entry
from agentmem.records import entry_of
from agentmem.request import BLIND, Write
from agentmem.scope import missing
from agentmem.single import CommitOptions, Single
from agentmem.views import View

__all__ = ["WritingView"]


class WritingView(View):
    """A view of the present that can be written, one commit a call.

    Every call takes, besides its own arguments, those of `CommitOptions`.
    """

    __slots__ = ()

    def put(
        self,
        key: str,
        value: object,
        *,
        namespace: object = None,
        expected_version: int | None = None,
        merge: bool = True,
        overwrite: bool = False,
        text: str | bool | None = None,
        vector: object = None,
        embed: str = "now",
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Sets a key, commits at once, and returns the new entry.

        Args:
            key: the key.
            value: JSON, or a pydantic model, which is dumped.
            namespace: None is the root.
            expected_version: the version that the value was made from; 0: the key must be
                absent. Without it the put is blind: it replaces whatever is there, and warns
                (`BlindWriteWarning`, after the commit) if that was another agent's.
            merge: if the version has moved, let the key's merge hook or strategy merge; False
                is a strict compare-and-set.
            overwrite: replace whatever is there, without a warning.
            text: what search sees; None: the strings in the value; False: nothing.
            vector: what search compares; None: the embedder of the store, if it has one, makes
                it from the text, before the commit takes its lock.
            embed: ``"deferred"`` commits at once, and leaves the vector to the indexer: the entry
                is found by its words before, by its meaning then.
            ttl_s: seconds from the commit on after which the key is absent; None: never.
            commit: who and why; see `CommitOptions`.

        Raises:
            ConflictError: the key is not at `expected_version`, and nothing could merge.
            InvalidValueError, LimitExceededError: an argument is not allowed.
            EmbedderError: the embedder failed, or the vector does not belong in the namespace.
            OperationMismatchError: the op_id was used for another request.
            IndeterminateCommitError: the storage or the connection failed during COMMIT.
        """
        base = writes.base_of(expected_version, overwrite=overwrite, otherwise=BLIND)
        write = writes.put(
            value, base=base, merge=merge, text=text, ttl_s=ttl_s, limits=self._core.limits,
            vector=vector, embed=embed,
        )  # fmt: skip
        write.warn = not overwrite
        place = self._writable(namespace, key, "append")
        single = Single(self._core, self._scope, **commit)
        return self._written(place, single.one("put", place, write))

    def put_many(
        self,
        items: object,
        *,
        namespace: object = None,
        overwrite: bool = False,
        embed: str = "now",
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> List[Entry[Any]]:
        """Sets many keys in one commit: a mapping of keys to values, or (key, value) pairs.

        Returns: the entries, in order of their keys. Blind, as `put` without a version.
        """
        found: dict[Place, Write] = {}
        for key, value in writes.pairs(items):
            write = writes.put(
                value, base=BLIND, merge=False, text=None, ttl_s=ttl_s, limits=self._core.limits,
                embed=embed,
            )  # fmt: skip
            write.warn = not overwrite
            found[self._writable(namespace, key, "append")] = write
        if not found:
            return []
        return Single(self._core, self._scope, **commit).run("put_many", found)

    def add(
        self,
        value: object,
        *,
        namespace: object = None,
        similar: float | None = None,
        text: str | bool | None = None,
        vector: object = None,
        embed: str = "now",
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Puts a value under a new key; keys sort in the order in which they were made.

        Args:
            similar: a cosine such as 0.95: if the namespace, or one below it, has an entry whose
                vector is at least so near, that is returned, and nothing is written. Decided
                atomically: of many agents that add the same at once, one does.
            text, vector, embed, ttl_s: as `put`.

        Raises:
            EmbedderError: as `put`; with `similar` also if there is neither vector nor embedder.
        """
        if similar is not None:
            arguments = {"text": text, "vector": vector, "embed": embed, "ttl_s": ttl_s}
            least = writes.similarity(similar)
            return Single(self._core, self._scope, **commit).add_similar(
                value, namespace, least, arguments
            )
        write = writes.put(
            value, base=0, merge=False, text=text, ttl_s=ttl_s, limits=self._core.limits,
            vector=vector, embed=embed,
        )  # fmt: skip
        place = self._writable(namespace, writes.new_key(), "append")
        single = Single(self._core, self._scope, **commit)
        return self._written(place, single.add(place, write))

    def delete(
        self,
        key: str,
        *,
        namespace: object = None,
        expected_version: int | None = None,
        merge: bool = True,
        overwrite: bool = False,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any] | None:
        """Deletes a key. Returns the tombstone; None if the key was absent (nothing is written).

        Arguments and errors as `put`.
        """
        base = writes.base_of(expected_version, overwrite=overwrite, otherwise=BLIND)
        write = writes.deletion(base, merge=merge)
        write.warn = not overwrite
        place = self._writable(namespace, key, "write")
        return Single(self._core, self._scope, **commit).one("delete", place, write)

    def touch(
        self,
        key: str,
        ttl_s: float | None,
        *,
        namespace: object = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Moves the expiry of a present key, without a new version; None: never expires.

        Raises:
            KeyMissingError: the key is absent.
        """
        moved = writes.touch(ttl_s)
        place = self._writable(namespace, key, "write")
        return Single(self._core, self._scope, **commit).touch(place, moved)

    def increment(
        self,
        key: str,
        by: float = 1,
        *,
        namespace: object = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Adds to a number, atomically; an absent key starts at 0. Never conflicts."""
        single = Single(self._core, self._scope, **commit)
        return self._atomic(single, "increment", namespace, key, by, "write")

    def append(
        self,
        key: str,
        *items: object,
        namespace: object = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Appends items to a list, atomically; an absent key starts at []. Never conflicts."""
        single = Single(self._core, self._scope, **commit)
        return self._atomic(single, "append", namespace, key, items, "append")

    def add_to_set(
        self,
        key: str,
        *items: object,
        namespace: object = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Appends those items that the list does not hold, atomically. Never conflicts."""
        single = Single(self._core, self._scope, **commit)
        return self._atomic(single, "add_to_set", namespace, key, items, "append")

    def patch(
        self,
        key: str,
        merge_patch: object,
        *,
        namespace: object = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any]:
        """Applies a JSON merge patch (RFC 7396), atomically; an absent key starts at {}."""
        single = Single(self._core, self._scope, **commit)
        return self._atomic(single, "patch", namespace, key, merge_patch, "write")

    def update(
        self,
        key: str,
        fn: Callable[[Any], Any],
        *,
        namespace: object = None,
        default: object = MISSING,
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any] | None:
        """Reads a value, changes it by ``fn`` and writes it; never loses another's update.

        Args:
            fn: value -> new value, or `agentmem.DELETE`. Run again if the key moved meanwhile,
                so it must have no effects of its own.
            default: the value that `fn` gets if the key is absent.
            ttl_s: as `put`; None leaves the expiry as it is.

        Returns: the new entry; with a known op_id the first one, and `fn` is not run.

        Raises:
            KeyMissingError: the key is absent, and there is no default.
        """
        refuse_async(fn, "update")
        updating = self.updating(
            key, fn, namespace=namespace, default=default, ttl_s=ttl_s, **commit
        )
        return drive(updating)

    def updating(
        self,
        key: str,
        fn: Callable[[Any], Any],
        *,
        namespace: object = None,
        default: object = MISSING,
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> Course[Entry[Any] | None]:
        """As `update`."""
        return self.changing(
            key, partial(asked, fn), namespace=namespace, default=default, ttl_s=ttl_s, **commit
        )

    def changing(
        self,
        key: str,
        change: Callable[[Any], Course[Any]],
        *,
        namespace: object = None,
        default: object = MISSING,
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> Course[Entry[Any] | None]:
        """As `update`, by a course of value -> new value."""
        place = self._writable(namespace, key, "write")
        ttl_us = writes.ttl_microseconds(ttl_s)
        single = Single(self._core, self._scope, **commit)
        return single.update(place, change, default, ttl_us)

    def _written(self, place: Place, entry: Entry[Any] | None) -> Entry[Any]:
        """What a put returns: what it wrote; the tombstone if it was merged into a delete."""
        if entry is not None:
            return entry
        row = self._core.engine.point(place, None).row
        if row is None:
            raise missing(self._scope, place)
        return entry_of(row, self._scope)

    def _writable(self, namespace: object, key: object, needed: str) -> Place:
        place = self._scope.place(namespace, key)
        self._scope.check(place, needed)
        return place

    def _atomic(
        self,
        single: Single,
        operation: str,
        namespace: object,
        key: str,
        operand: object,
        needed: str,
    ) -> Entry[Any]:
        place = self._writable(namespace, key, needed)
        return self._written(
            place,
            single.one(operation, place, writes.atomic(operation, operand, self._core.limits)),
        )
