"""One call for all who ask within a moment.

Requests that arrive together are worked off one after the other in one turn of the event loop. What each of them would
ask for, or compute, by itself is gathered until the end of that turn, and done at once: the more there is to do, the
less each costs. Nobody waits for others to come. But who comes while a call is under way waits for its end, if that is
near: so the busier a worker is, the more share a call.
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
HELD = 0.005
"""Seconds for which a call that is under way holds back the next."""


class _Turn(ABC, Generic[Key, Value]):
    """Collects who asks in one turn of the event loop, up to ``most`` for one call."""

    def __init__(self, most: int):
        self._most = most
        self._asked: _Waiting[Key, Value] = []
        self._own_loop: asyncio.AbstractEventLoop | None = None

    async def one(self, key: Key) -> Value:
        """The value of ``key``. Raises what the shared call does."""
        return await self._ask(key)

    async def several(self, keys: Sequence[Key]) -> list[Value]:
        """The values of ``keys``, in their order. Raises what the shared call does."""
        asked = [self._ask(key) for key in keys]
        return [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The one of the first question, and so of all: asking which one runs is a call to the kernel."""
        if self._own_loop is None:
            self._own_loop = asyncio.get_running_loop()
        return self._own_loop

    def _ask(self, key: Key) -> asyncio.Future[Value]:
        future: asyncio.Future[Value] = self._loop.create_future()
        if not self._asked:
            self._loop.call_soon(self._go)
        self._asked.append((key, future))
        return future

    def _go(self) -> None:
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), self._most):
            self._begin(asked[start : start + self._most])

    @abstractmethod
    def _begin(self, asked: _Waiting[Key, Value]) -> None:
        """Answer those who ``asked``, now or later."""


class Gathered(_Turn[Key, Value]):
    """Asks ``many`` for the values of several keys, in their order, on behalf of all who ask for ``one``.

    A call begins after all who share it have asked, so nobody gets a value that is older than their question. ``held``
    seconds after a call began, the next no longer waits for its end.
    """

    def __init__(
        self,
        many: Callable[[Sequence[Key]], Awaitable[Sequence[Value]]],
        most: int = MOST_ASKED,
        held: float = HELD,
    ):
        super().__init__(most)
        self._many, self._held = many, held
        self._calls: set[asyncio.Task[None]] = set()
        self._young: set[asyncio.Task[None]] = set()  # those that hold back the next

    def _go(self) -> None:
        if not self._young:
            super()._go()

    def _begin(self, asked: _Waiting[Key, Value]) -> None:
        call = self._loop.create_task(self._call(asked))
        self._calls.add(call)
        self._young.add(call)
        aging = self._loop.call_later(self._held, self._let_go, call)

        def ended(call: asyncio.Task[None]) -> None:
            aging.cancel()
            self._calls.discard(call)
            self._let_go(call)

        call.add_done_callback(ended)

    def _let_go(self, call: asyncio.Task[None]) -> None:
        self._young.discard(call)
        if self._asked:
            self._go()

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
