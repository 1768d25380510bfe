"""A cache of what models answered, in which the same prompt is asked once."""

from __future__ import annotations

import asyncio
import logging
import time
from hashlib import blake2b
from typing import Any, Final

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.outputs import Generation
from langchain_core.runnables import run_in_executor

from agentmem import InvalidValueError, Limits, Transaction
from agentmem.course import Course, Sleep, drive
from agentmem.namespaces import parse_namespace
from langchain_agentmem.flights import Flights, Owner, current_owner
from langchain_agentmem.generations import generation_of, generation_value
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.runs import current_run

__all__ = ["AgentMemCache"]

_HOLD_S: Final = 120.0
_WAIT_S: Final = 600.0
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.05
_GROWTH: Final = 1.5
_TRY_S: Final = 0.25  # between tries to have the claim; the answer is looked for more often
_PAGE: Final = 500  # entries that are deleted in one commit
_DIGEST_BYTES: Final = 16
_log = logging.getLogger("agentmem")


class AgentMemCache(HoldsStore, BaseCache):
    """A cache for ``set_llm_cache`` or a model's ``cache=``, shared by threads and processes.

    Many that ask the same prompt of the same model at once make one call: the first to look it up
    is told that nothing is there, and calls; the others wait for its answer. If none comes, the
    next of them calls: as soon as the first one's thread, task or process has ended, or `hold_s`
    after it began. A call that fails is not told to a cache, so in a thread that goes on with
    something else, its failure is noticed after `hold_s` only; that thread itself may try again at
    once.

    Answers are stored as JSON under a digest of model and prompt; the prompt itself is not stored,
    nor the id of the message, since the same answer given again is another message. What is not
    JSON is not cached, and a warning is logged.
    """

    def __init__(
        self,
        target: Target,
        *,
        namespace: object = ("llm-cache",),
        ttl_s: float | None = None,
        single_flight: bool = True,
        wait_s: float = _WAIT_S,
        hold_s: float = _HOLD_S,
        agent: str | None = None,
    ) -> None:
        """A cache.

        Args:
            target: an open store, or what `agentmem.open` takes; see `close`.
            namespace: of the answers; another one is another cache.
            ttl_s: seconds after which an answer is forgotten; None: never.
            single_flight: whether a lookup waits while somebody asks the same.
            wait_s: how long it waits, at most; then it is told that nothing is there.
            hold_s: how long others wait for one call, at most: longer than calls take.
            agent: who asks, for the log; None: the agent of the store.
        """
        super().__init__()
        for name, seconds, least in (("wait_s", wait_s, "0"), ("hold_s", hold_s, "above 0")):
            if seconds < 0 or (name == "hold_s" and seconds == 0):
                raise InvalidValueError(f"{name} is {seconds}; it is at least {least}")
        self._labels = parse_namespace(namespace, Limits())
        self._hold(target)
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._agent = agent
        self._flights = Flights(self.store, hold_s, agent) if single_flight else None

    def close(self) -> None:
        """Gives back what this object has claimed, and closes the store if it was opened here."""
        if self._flights is not None:
            self._flights.end_all()
        super().close()

    # Looking up.

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer; None: there is none, and the caller is to ask the model.

        Waits while another asks the same; in a coroutine it does not, since what it would wait for
        may need the event loop.

        Raises:
            InvalidValueError: what is stored is no answer; nothing was constructed from it.
        """
        owner = current_owner()
        wait_s = 0.0 if isinstance(owner, asyncio.Task) else self._wait_s
        return drive(self._course(_key(prompt, llm_string), owner, wait_s))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """As `lookup`. No worker thread is kept while it waits: the answer may need one."""
        course = self._course(_key(prompt, llm_string), current_owner(), self._wait_s)
        while True:
            sleep, found = await run_in_executor(None, _step, course)
            if sleep is None:
                return found
            await asyncio.sleep(sleep.seconds)

    def _course(self, key: str, owner: Owner, wait_s: float) -> Course[list[Generation] | None]:
        flights, name = self._flights, self._spelled(key)
        deadline = time.monotonic() + wait_s
        next_try, pause_s = 0.0, _FIRST_PAUSE_S
        while True:
            found = self._read(key)
            if flights is None:
                return found
            if found is None and time.monotonic() >= next_try:
                if flights.begin(name, owner):
                    # Whoever had the claim before may have answered since we looked.
                    found = self._read(key)
                    if found is None:
                        return None
                next_try = time.monotonic() + _TRY_S
            if found is not None:
                flights.end(name)
                return found
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                _log.info("the answer %s has not come in %g s", name, wait_s)
                return None
            yield Sleep(min(pause_s, left_s))
            pause_s = min(_LONGEST_PAUSE_S, _GROWTH * pause_s)

    def _read(self, key: str) -> list[Generation] | None:
        entry = self.store.get(key, namespace=self._labels)
        if entry is None:
            return None
        where = self._spelled(key)
        stored = entry.value.get("generations") if isinstance(entry.value, dict) else None
        if not isinstance(stored, list):
            raise InvalidValueError(
                f"the value of {where} is no answer of a model; somebody else wrote there", path="$"
            )
        return [generation_of(value, where) for value in stored]

    # Changing.

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keeps an answer, in a commit of its own, and lets those who wait have it."""
        key = _key(prompt, llm_string)
        name = self._spelled(key)
        try:
            value = {"generations": [_anonymous(generation_value(each)) for each in return_val]}
            self.store.put(
                key, value, namespace=self._labels, overwrite=True, text=False, ttl_s=self._ttl_s,
                agent=self._agent, metadata=current_run().metadata(),
            )  # fmt: skip
        except InvalidValueError as error:
            # The answer was paid for: whoever asked gets it, though it is not kept.
            _log.warning("the answer %s is not cached: %s", name, error)
        finally:
            if self._flights is not None:
                self._flights.end(name)

    def clear(self, **kwargs: Any) -> None:
        """Deletes all answers."""
        more = True
        while more:
            more = self.store.transact(self._clear_page, agent=self._agent)

    def _clear_page(self, tx: Transaction) -> bool:
        page = tx.list(self._labels, limit=_PAGE, track=False)
        for entry in page:
            tx.delete(entry.key, namespace=entry.namespace, overwrite=True)
        return len(page) == _PAGE

    def _spelled(self, key: str) -> str:
        return "/".join((*self._labels, key))


def _key(prompt: str, llm_string: str) -> str:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for text in (llm_string, prompt):
        encoded = text.encode("utf-8", "surrogatepass")
        # With its length in front: no part of one can pass for a part of the other.
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _anonymous(value: dict[str, Any]) -> dict[str, Any]:
    """An answer without the id of its message.

    Given again, it is another message: with the same id, a history or a graph that has it would
    take it for a repeat, and pass over it.
    """
    if value["type"] == "ChatGeneration":
        value["message"]["data"]["id"] = None
    return value


def _step(
    course: Course[list[Generation] | None],
) -> tuple[Sleep | None, list[Generation] | None]:
    try:
        ask = next(course)
    except StopIteration as end:
        return None, end.value
    assert isinstance(ask, Sleep), "a lookup asks for nothing else"
    return ask, None
