"""The processes of the demo, as the one that starts them sees them."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

__all__ = ["Child", "ChildFailedError", "Crew"]

Message = dict[str, Any]

_SILENCE_S: Final = 120.0
_READ_BYTES: Final = 65_536
_SHOWN_ERROR_BYTES: Final = 4_000
# Not the folder that the demo was started in, but exactly the modules that it runs from.
_COMMAND: Final = (sys.executable, "-P", "-m", "agentmem.demo.workers")


class ChildFailedError(Exception):
    """A process of the demo failed, so the demo has no result.

    Attributes:
        child: its name.
        details: its traceback, or what it wrote to standard error.
    """

    child: str
    details: str

    def __init__(self, message: str = "", *, child: str = "", details: str = "") -> None:
        super().__init__(message)
        self.child = child
        self.details = details


class Child:
    """One process, and the pipes to it.

    Attributes:
        name: whose process it is now.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the child
        self._partial = b""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(_import_path())}
        # A group of its own: Ctrl-C reaches the parent alone, which then ends its children.
        self._process = subprocess.Popen(  # noqa: S603  # this package, by this interpreter
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=environment,
            process_group=0,
        )
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._in, self._out = self._process.stdin, self._process.stdout

    def fileno(self) -> int:
        """The descriptor that its events come from."""
        return self._out.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Gives it a task, or an answer.

        Raises:
            ChildFailedError: it is dead.
        """
        try:
            self._in.write(json.dumps(message).encode() + b"\n")
        except BrokenPipeError as error:
            self.rest()  # raises what it may have said about it
            raise self.failed() from error

    def read(self) -> list[Message] | None:
        """What has come, once there is something; None: it is dead.

        Raises:
            ChildFailedError: it says that it failed.
        """
        piece = os.read(self.fileno(), _READ_BYTES)
        if not piece:
            return None
        *lines, self._partial = (self._partial + piece).split(b"\n")
        messages: list[Message] = [json.loads(line) for line in lines]
        for message in messages:
            if message["event"] == "failed":
                raise self.failed(message["error"])
        return messages

    def first(self) -> list[Message]:
        """Waits for the first thing that it says.

        Raises:
            ChildFailedError: it died, or said nothing for too long.
        """
        messages: list[Message] = []
        while not messages:
            _ready([self])
            messages = self.heard()
        return messages

    def during(self, seconds: float) -> list[Message]:
        """What it says within a time.

        Raises:
            ChildFailedError: it died.
        """
        heard: list[Message] = []
        until = time.monotonic() + seconds
        while _wait([self], until - time.monotonic()):
            heard += self.heard()
        return heard

    def rest(self) -> list[Message]:
        """All that it says until it is dead; of a killed child, what it had said before."""
        heard: list[Message] = []
        while True:
            _ready([self])
            messages = self.read()
            if messages is None:
                return heard
            heard += messages

    def heard(self) -> list[Message]:
        """As `read`, of a child that should be alive.

        Raises:
            ChildFailedError: it failed, or died.
        """
        messages = self.read()
        if messages is None:
            raise self.failed()
        return messages

    def failed(self, details: str = "") -> ChildFailedError:
        """The error that says what became of it."""
        self.kill()
        status = self._process.returncode
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        if not details:
            self._errors.seek(0)
            details = self._errors.read()[-_SHOWN_ERROR_BYTES:].decode(errors="replace")
        lines = details.strip().splitlines()
        reason = lines[-1] if lines else f"it died without a word ({how})"
        return ChildFailedError(
            f"the process of {self.name!r} failed: {reason}", child=self.name, details=details
        )

    def stop(self) -> None:
        """SIGSTOP, and waits until it is stopped: it does nothing at all until `go_on`.

        If this process dies meanwhile, the system ends the child (SIGHUP, then SIGCONT): nobody
        of its session is left who could continue its group.

        Raises:
            ChildFailedError: it is dead.
        """
        self._process.send_signal(signal.SIGSTOP)  # looks first whether it is dead
        if self._process.returncode is None:
            _pid, status = os.waitpid(self._process.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                return
            self._process.returncode = os.waitstatus_to_exitcode(status)
        raise self.failed()

    def go_on(self) -> None:
        """Continues it after `stop`, and answers what it has waited for."""
        self._process.send_signal(signal.SIGCONT)
        self.send({"event": "go"})

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone. May be called again."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kills it and closes the pipes."""
        self.kill()
        for stream in (self._in, self._out, self._errors):
            stream.close()


class Crew:
    """All processes of one run. As a context manager it leaves none behind, whatever happens."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._idle: list[Child] = []

    def take(self, name: str) -> Child:
        """A process with nothing to do: an idle one, or a new one."""
        if self._idle:
            child = self._idle.pop()
            child.name = name
        else:
            child = Child(name)
            self._children.append(child)
        return child

    def give_back(self, child: Child) -> None:
        """A process has nothing more to do."""
        self._idle.append(child)

    def bury(self, child: Child) -> None:
        """A process is dead, or is to die."""
        self._children.remove(child)
        child.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._children:
            self._children.pop().close()

    def together(
        self, tasks: Mapping[Child, Mapping[str, Any]], step: Callable[[], None]
    ) -> dict[str, Message]:
        """Has each child do its task, all at once; those that meet wait for one another.

        Args:
            tasks: one for each child.
            step: called for each step that a child says it has done.

        Returns: the answer of each child, by its name.

        Raises:
            ChildFailedError: one failed, died, or all were silent for too long.
        """
        for child, task in tasks.items():
            child.send(task)
        answers: dict[str, Message] = {}
        meeting: set[Child] = set()
        while len(answers) < len(tasks):
            working = [child for child in tasks if child.name not in answers]
            for child in _ready(working):
                for message in child.heard():
                    if message["event"] == "step":
                        step()
                    elif message["event"] == "meet":
                        meeting.add(child)
                    else:
                        answers[child.name] = message
            if meeting and len(meeting) == len(tasks) - len(answers):
                for child in meeting:
                    child.send({"event": "go"})
                meeting.clear()
        return answers


def _ready(children: list[Child]) -> list[Child]:
    ready = _wait(children, _SILENCE_S)
    if not ready:
        raise children[0].failed(f"no answer for {_SILENCE_S:g} s")
    return ready


def _wait(children: list[Child], timeout_s: float) -> list[Child]:
    """Those that have something to read, or are dead; empty if the time is over first."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ)
        found = selector.select(max(0.0, timeout_s))
    return [key.fileobj for key, _events in found if isinstance(key.fileobj, Child)]


def _import_path() -> list[str]:
    return [os.path.abspath(folder) for folder in sys.path]
