"""Asynchronous exceptions against threads that commit."""

from __future__ import annotations

import ctypes
import dis
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import agentmem
from agentmem.testing.crew import SILENCE_S, Step

__all__ = ["Interruption", "StormReport", "Strike", "storm"]


class Interruption(KeyboardInterrupt):
    """An asynchronous exception, as a signal handler or another thread may raise it."""


_CALLS: Final = {
    code for name, code in dis.opmap.items() if re.fullmatch("CALL|CALL_KW|CALL_FUNCTION_EX", name)
}
_BEGINNING: Final = dis.opmap["RESUME"]
_LOOPS: Final = dis.opmap["JUMP_BACKWARD"]


class Strike:
    """Raises in a thread at chosen places of agentmem's code.

    The interpreter lets asynchronous exceptions in after calls, at the beginning of functions
    and at the end of turns of loops; these places are counted, from 1, while the thread runs in
    one of the files. Use as a context manager in the thread to be struck.

    Args:
        at: the numbers of the places at which to strike; the second counts on after the first.
        files: names of files of the package, such as ``commit.py``.
        error: what to raise.
        spared: names of functions in these files that are not struck.

    Attributes:
        struck: where it struck: (file, function, line).
    """

    def __init__(
        self,
        at: Collection[int],
        files: Collection[str],
        error: type[BaseException] = Interruption,
        spared: Collection[str] = (),
    ) -> None:
        self.struck: list[tuple[str, str, int]] = []
        self._at = at
        self._files = files
        self._error = error
        self._spared = spared
        self._count = 0
        self._folder = str(Path(agentmem.__file__).parent)

    def __enter__(self) -> Strike:
        # A trace function that raises is taken off, so that for a second strike a profile
        # function, which stays, must put it on again.
        if len(self._at) > 1:
            sys.setprofile(self._put_on_again)
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_exception: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _watches(self, code: CodeType) -> bool:
        path = code.co_filename
        return (
            path.startswith(self._folder)
            and os.path.basename(path) in self._files
            and code.co_name not in self._spared
        )

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> Any:
        if not self._watches(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        code = frame.f_code.co_code
        before = _BEGINNING

        def local(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal before
            if event == "exception":
                # The call has not returned: its handler is entered without a look for others.
                before = -1
            elif event == "opcode":
                now = code[frame.f_lasti]
                comes_in = before == _BEGINNING or before in _CALLS or now == _LOOPS
                before = now
                if comes_in and now != _BEGINNING:
                    self._arrive(frame)
            return local

        return local

    def _arrive(self, frame: FrameType) -> None:
        self._count += 1
        if self._count in self._at:
            code = frame.f_code
            self.struck.append((os.path.basename(code.co_filename), code.co_name, frame.f_lineno))
            raise self._error

    def _put_on_again(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "return" or not self.struck or sys.gettrace() is not None:
            return
        if len(self.struck) < len(self._at):
            sys.settrace(self._enter)
            outer = frame.f_back
            while outer is not None:
                if outer.f_trace is None and self._watches(outer.f_code):
                    outer.f_trace = self._enter(outer, "call", None)
                outer = outer.f_back


@dataclass(slots=True)
class StormReport:
    """What became of the calls in a storm.

    Attributes:
        acknowledged: op ids of calls that returned.
        interrupted: op ids of calls that raised `Interruption`.
        problems: what is wrong, in words.
    """

    acknowledged: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _Target:
    """A thread of the storm: struck at most once a call, and only while it is in one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # protects armed
        self.armed = False
        self.thread_id = 0

    def call(self, function: Callable[[], object]) -> bool:
        """Whether the function returned; False if it was struck."""
        try:
            self.armed = True
            function()
            with self.lock:
                self.armed = False
            # A strike that is on its way arrives at the next call, so at this one.
            self.lock.locked()
        except Interruption:
            return False
        return True

    def strike(self, error: type[BaseException]) -> None:
        with self.lock:
            if self.armed:
                self.armed = False
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.thread_id), ctypes.py_object(error)
                )


def storm(
    store: agentmem.Store,
    *,
    threads: int = 8,
    commits: int = 2_000,
    seed: int = 1,
    step: Step = lambda _done: None,
) -> StormReport:
    """Strikes random threads with asynchronous exceptions while all of them increment.

    Afterwards every interrupted increment is done again under its op_id: the counter must have
    counted each call once.
    """
    report = StormReport()
    targets = [_Target() for _thread in range(threads)]
    workers = [
        threading.Thread(
            target=_increment_in_storm,
            args=(store, target, number, len(range(number, commits, threads)), report, step),
            daemon=True,
        )
        for number, target in enumerate(targets)
    ]
    for worker in workers:
        worker.start()
    choice = random.Random(seed)  # noqa: S311  # chooses moments
    deadline = time.monotonic() + SILENCE_S
    done = 0
    while any(worker.is_alive() for worker in workers):
        choice.choice(targets).strike(Interruption)
        # Spreads the strikes over the steps of a commit.
        time.sleep(choice.uniform(0, 0.000_5))
        finished = len(report.acknowledged) + len(report.interrupted)
        if finished != done:
            done, deadline = finished, time.monotonic() + SILENCE_S
        if time.monotonic() > deadline:
            report.problems.append(f"deadlock: no call has ended for {SILENCE_S} s")
            return report
    for op_id in report.interrupted:
        store.increment("storm", op_id=op_id)
    entry = store.get("storm")
    calls = len(report.acknowledged) + len(report.interrupted)
    if calls != commits or entry is None or entry.value != commits:
        report.problems.append(f"{commits} increments, {calls} calls ended, and it holds {entry}")
    report.problems += store.admin.verify().problems
    return report


def _increment_in_storm(
    store: agentmem.Store, target: _Target, number: int, times: int, report: StormReport, step: Step
) -> None:
    target.thread_id = threading.get_ident()
    for time_ in range(times):
        op_id = f"{number}:{time_}"
        returned = target.call(lambda op_id=op_id: store.increment("storm", op_id=op_id))  # type: ignore[misc]  # binds the loop's variable
        (report.acknowledged if returned else report.interrupted).append(op_id)
        step(1)
