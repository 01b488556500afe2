"""One call for all who ask within a moment.

Requests that arrive together are worked off one after the other in one turn of the event loop. What each of them would
ask for, or compute, by itself is gathered until the end of that turn, and done at once: the more there is to do, the
less each costs. Nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
_Waiting: TypeAlias = "list[tuple[Key, asyncio.Future[Value]]]"

MOST_ASKED = 64
"""Keys of one call to somebody else."""
MOST_DONE = 16
"""Keys that are worked off at once: more gain little, and everybody waits for the last."""


class _Turn(ABC, Generic[Key, Value]):
    """Collects who asks in one turn of the event loop, up to ``most`` for one call."""

    def __init__(self, most: int):
        self._most = most
        self._asked: _Waiting[Key, Value] = []

    async def one(self, key: Key) -> Value:
        """The value of ``key``. Raises what the shared call does."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Value] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._go)
        self._asked.append((key, future))
        return await future

    def _go(self) -> None:
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), self._most):
            self._begin(asked[start : start + self._most])

    @abstractmethod
    def _begin(self, asked: _Waiting[Key, Value]) -> None:
        """Answer those who ``asked``, now or later."""


class Gathered(_Turn[Key, Value]):
    """Asks ``many`` for the values of several keys, in their order, on behalf of all who ask for ``one``.

    A call begins after all who share it have asked, so nobody gets a value that is older than their question.
    """

    def __init__(self, many: Callable[[Sequence[Key]], Awaitable[Sequence[Value]]], most: int = MOST_ASKED):
        super().__init__(most)
        self._many = many
        self._calls: set[asyncio.Task[None]] = set()

    def _begin(self, asked: _Waiting[Key, Value]) -> None:
        call = asyncio.create_task(self._call(asked))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, asked: _Waiting[Key, Value]) -> None:
        waiting = _still(asked)
        try:
            values = await self._many([key for key, _ in waiting])
        except BaseException as error:
            for _, future in waiting:
                if not future.done():
                    if isinstance(error, asyncio.CancelledError):
                        future.cancel()
                    else:
                        future.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            for (_, future), value in zip(waiting, values, strict=True):
                if not future.done():
                    future.set_result(value)


class WorkedOff(_Turn[Key, Value]):
    """Computes with ``many`` the values of several keys, in their order, for all who ask for ``one``.

    Where that fails, each is tried by itself, so that nobody gets another's error.
    """

    def __init__(self, many: Callable[[Sequence[Key]], Sequence[Value]], most: int = MOST_DONE):
        super().__init__(most)
        self._many = many

    def _begin(self, asked: _Waiting[Key, Value]) -> None:
        waiting = _still(asked)
        try:
            values = self._many([key for key, _ in waiting])
        except Exception as error:
            if len(waiting) == 1:
                waiting[0][1].set_exception(error)
                return
            for each in waiting:
                self._begin([each])
        else:
            for (_, future), value in zip(waiting, values, strict=True):
                future.set_result(value)


def _still(asked: _Waiting[Key, Value]) -> _Waiting[Key, Value]:
    """Those who still wait for their value."""
    return [(key, future) for key, future in asked if not future.cancelled()]
