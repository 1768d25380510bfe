"""How a process of the demo talks to the one that started it: JSON, a line a message."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn

__all__ = ["Channel"]


class Channel:
    """The child's end: tasks come in by standard input, events go out by standard output.

    The parent's end is `agentmem.demo.crew.Child`. When the parent is gone, input ends and
    output breaks, and either ends the child: no process outlives the demo.
    """

    def __init__(self) -> None:
        # A library that prints must not garble the messages: they get the descriptor for
        # themselves, and what is printed goes where errors go.
        self._out = os.dup(1)
        os.dup2(2, 1)

    def hear(self) -> dict[str, Any]:
        """The next message of the parent.

        Raises:
            EOFError: the parent is gone, or has no more to say.
        """
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        return message

    def tell(self, event: str, **fields: Any) -> None:
        """Sends an event; it has left this process when the call returns."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        while line:
            line = line[os.write(self._out, line) :]

    def step(self) -> None:
        """A piece of work is done, for the progress bar."""
        self.tell("step")

    def meet(self) -> None:
        """Waits until every agent of the race has come here.

        The agents of the demo do not think, so they meet instead: everyone has read before
        anyone writes. With a model's seconds between reading and writing it happens by itself.
        """
        self.tell("meet")
        self.hear()

    def hold(self) -> None:
        """Says that it is this process's turn, and waits; in here it is stopped (SIGSTOP)."""
        self.tell("holding")
        self.hear()

    def halt_in_the_middle(self) -> NoReturn:
        """Says that half is written, and waits for the kill."""
        self.tell("middle")
        while True:
            self.hear()
