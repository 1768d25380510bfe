"""Steps: what a request asks of leases, queues and once, besides reading and writing keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from agentmem.engines.rows import (
    Answer,
    Change,
    Look,
    Moment,
)
from agentmem.errors import FencedError

__all__ = ["HAS_BATCH_MARK", "NUMBER", "Desk", "SmallChange", "Step", "Subject", "fenced"]

Subject = tuple[str, str, str]
"""What a step is about: kind, scope, name. Steps with other subjects cannot touch each other."""

NUMBER: Final = Look("number")
"""The last number of the store's counter."""

HAS_BATCH_MARK: Final = "has_batch_mark"
"""The name of the look for the mark of a batch, by its attempt."""


class Desk(Protocol):
    """What a step is judged with.

    Attributes:
        moment: when the lock was had, on the clock of what runs out.
        now: the commit time, in microseconds since 1970 UTC.
    """

    moment: Moment
    now: int

    def number(self) -> int:
        """The next number of the store's counter: a token, a ticket, an id."""


class Step(Protocol):
    """One thing to do, judged under the store's lock, perhaps more than once.

    Attributes:
        subject: what it is about.
        writes: whether it changes something; False for what only checks.
        lasts: whether it must survive a loss of power, as the store was opened.
        size: about how many bytes it adds to a batch.
    """

    @property
    def subject(self) -> Subject:
        """See above."""

    @property
    def writes(self) -> bool:
        """See above."""

    @property
    def lasts(self) -> bool:
        """See above."""

    @property
    def size(self) -> int:
        """See above."""

    def looks(self) -> Sequence[Look]:
        """What it is judged by."""

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        """Sets what became of it, and returns the changes that make it so.

        They are made only if the whole request stands. Steps of one request are judged before any
        of them is done.

        Args:
            answers: to its looks, in their order.

        Raises:
            AgentMemError: the whole request is refused.
        """


class SmallChange:
    """What most steps are alike in: they change something that must last, and are small."""

    __slots__ = ()

    @property
    def writes(self) -> bool:
        """See `Step`."""
        return True

    @property
    def lasts(self) -> bool:
        """See `Step`."""
        return True

    @property
    def size(self) -> int:
        """See `Step`."""
        return 0


def fenced(what: str, token: int, current: int, ending: str) -> FencedError:
    """The error of who holds something no more.

    Args:
        what: as "the lease 'plan'".
        token: that it was held by.
        current: of who holds it now; 0: nobody.
        ending: what else can have become of it, as "released or broken".
    """
    now = f"was given to another since (token {current})" if current else f"was {ending}"
    return FencedError(
        f"{what} {now}; nothing was written under token {token}",
        token=token,
        current_token=current,
    )
