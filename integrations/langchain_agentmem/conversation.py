"""The messages of one conversation, as entries of a store: numbers, ids, what is gone.

::

    chat/s1            head          {"first": 3, "next": 6, "cleared": 1}
    chat/s1/messages   000000000003  the oldest message that is left
                       000000000004
                       000000000005  the newest
    chat/s1/ids        <message id>  {"number": 5}

Numbers are given under the store's lock: every transaction that adds reads and writes the head, so
two that add at once conflict, and one of them runs again. So the order of the numbers is the order
of the commits, and within a commit that of its messages; and the newest page is found without
looking at the others.

What has a number below ``first`` is no part of the conversation, whether it is deleted by then or
not. Its id stays known, so that a retry does not bring it back; ids whose number is below
``cleared`` are forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agentmem import Entry, Snapshot, Transaction

__all__ = ["Addition", "Conversation", "Head", "Removal", "number_of"]

View = Snapshot | Transaction

_HEAD: Final = "head"
_DIGITS: Final = 12
_SWEEP: Final = 1_000  # entries that one transaction deletes of each kind
_PAGE: Final = 100  # messages that are read at once


@dataclass(frozen=True, slots=True)
class Head:
    """Which numbers are in use.

    Attributes:
        first: messages with lower numbers are gone.
        next: the number of the next message.
        cleared: ids of messages with lower numbers are forgotten.
    """

    first: int = 1
    next: int = 1
    cleared: int = 1


@dataclass(frozen=True, slots=True)
class Removal:
    """Takes a message away, or all; ``id`` is None for all."""

    id: str | None


@dataclass(frozen=True, slots=True)
class Addition:
    """Adds a message, or changes the one that has its id.

    Attributes:
        value: the message as JSON.
        text: what search sees; False: nothing.
    """

    value: dict[str, Any]
    text: str | bool

    @property
    def id(self) -> str | None:
        """The message's id; None if it has none."""
        return self.value["data"].get("id") or None


class Conversation:
    """Where the entries of one conversation lie, and what transactions do to them."""

    def __init__(self, labels: tuple[str, ...], embed: str) -> None:
        self._root = labels
        self._messages = (*labels, "messages")
        self._ids = (*labels, "ids")
        self._embed = embed

    # Reading.

    def head(self, view: View) -> Head:
        """The head; that of an empty conversation if there is none."""
        entry = view.get(_HEAD, namespace=self._root)
        return Head() if entry is None else Head(**entry.value)

    def all(self, view: View) -> list[Entry[Any]]:
        """The messages, oldest first."""
        return view.list(self._messages, after=(self._messages, _key(self.head(view).first - 1)))

    def newest_first(self, view: View, before: int | None = None) -> Iterator[Entry[Any]]:
        """The messages, page by page, newest first.

        Args:
            before: only those with lower numbers.
        """
        head = self.head(view)
        end = head.next if before is None else min(before, head.next)
        while end > head.first:
            start = max(head.first, end - _PAGE)
            keys = [_key(number) for number in range(start, end)]
            found = view.get_many(keys, namespace=self._messages, track=False)
            yield from (found[key] for key in reversed(keys) if key in found)
            end = start

    def oldest(self, view: View) -> Entry[Any] | None:
        """The oldest message; None if there is none."""
        after = (self._messages, _key(self.head(view).first - 1))
        found = view.list(self._messages, after=after, limit=1, track=False)
        return found[0] if found else None

    # Adding.

    def apply(self, tx: Transaction, changes: Sequence[Addition | Removal]) -> None:
        """Makes changes in their order; writes nothing if all of them were made before."""
        before = head = self.head(tx)
        numbers = self._numbers(tx, changes, head)
        for change in changes:
            if isinstance(change, Removal) and change.id is None:
                head = Head(head.next, head.next, head.next)
                numbers.clear()
            elif isinstance(change, Removal):
                self._remove(tx, numbers.get(change.id or ""), change.id, head)
            elif change.id in numbers:
                self._update(tx, numbers[change.id], change, head)
            else:
                self._add(tx, head.next, change)
                if change.id is not None:
                    numbers[change.id] = head.next
                head = replace(head, next=head.next + 1)
        if head != before:
            self._put_head(tx, head)

    def _numbers(
        self, tx: Transaction, changes: Iterable[Addition | Removal], head: Head
    ) -> dict[str | None, int]:
        ids = {change.id for change in changes if change.id is not None}
        found = tx.get_many(ids, namespace=self._ids)
        numbers = {id: entry.value["number"] for id, entry in found.items()}
        return {id: number for id, number in numbers.items() if number >= head.cleared}

    def _at(self, tx: Transaction, number: int, id: str | None, head: Head) -> Entry[Any] | None:
        """The message of that number, if it is there and has that id."""
        if number < head.first:
            return None
        entry = tx.get(_key(number), namespace=self._messages)
        return entry if entry is not None and entry.value["data"].get("id") == id else None

    def _add(self, tx: Transaction, number: int, change: Addition) -> None:
        self._put(tx, number, change)
        if change.id is not None:
            tx.put(change.id, {"number": number}, namespace=self._ids, text=False)

    def _update(self, tx: Transaction, number: int, change: Addition, head: Head) -> None:
        entry = self._at(tx, number, change.id, head)
        if entry is not None and _canonical(entry.value) != _canonical(change.value):
            self._put(tx, number, change)

    def _put(self, tx: Transaction, number: int, change: Addition) -> None:
        tx.put(
            _key(number), change.value, namespace=self._messages, text=change.text,
            embed=self._embed,
        )  # fmt: skip

    def _remove(self, tx: Transaction, number: int | None, id: str | None, head: Head) -> None:
        if number is not None and self._at(tx, number, id, head) is not None:
            tx.delete(_key(number), namespace=self._messages)

    def _put_head(self, tx: Transaction, head: Head) -> None:
        value = {"first": head.first, "next": head.next, "cleared": head.cleared}
        tx.put(_HEAD, value, namespace=self._root, text=False)

    # Taking away.

    def clear(self, tx: Transaction) -> None:
        """Takes all messages away, and forgets their ids."""
        head = self.head(tx)
        if head.cleared < head.next:
            self._put_head(tx, Head(head.next, head.next, head.next))

    def keep_from(self, tx: Transaction, first: int, system: Entry[Any] | None) -> None:
        """Takes away what comes before a message; ids stay known.

        Args:
            first: the number of the oldest message that stays.
            system: the message that stays in front of it; its number changes.
        """
        head = self.head(tx)
        if first <= head.first:
            return
        if system is not None:
            first -= 1
            if number_of(system) == first:
                return
            moved = Addition(system.value, False if system.text is None else system.text)
            self._add(tx, first, moved)
        self._put_head(tx, replace(head, first=first))

    def sweep(self, tx: Transaction) -> tuple[int, bool]:
        """Deletes entries that are no part of the conversation any more.

        Returns: how many messages it deleted, and whether there may be more to delete.
        """
        head = self.head(tx)
        messages = tx.list(self._messages, limit=_SWEEP, track=False)
        gone = [entry.key for entry in messages if number_of(entry) < head.first]
        for key in gone:
            tx.delete(key, namespace=self._messages)
        ids = (
            tx.list(
                self._ids, where={"number": {"$lt": head.cleared}}, limit=_SWEEP, track=False
            )
            if head.cleared == head.first
            else []
        )  # fmt: skip
        for entry in ids:
            tx.delete(entry.key, namespace=self._ids)
        return len(gone), max(len(gone), len(ids)) == _SWEEP


def number_of(entry: Entry[Any]) -> int:
    """The number of a message."""
    return int(entry.key)


def _key(number: int) -> str:
    return f"{number:0{_DIGITS}d}"


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
