"""One call for all who ask within a moment.

Requests that arrive together are worked off one after the other in one turn of the event loop. What each of them would
ask for by itself is gathered until the end of that turn, and asked for at once: the more there is to do, the less each
costs. Nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

MOST = 64
"""Keys of one call."""


class Gathered(Generic[Key, Value]):
    """Asks ``many`` for the values of several keys, in their order, on behalf of all who ask for ``one``.

    A call begins after all who share it have asked, so nobody gets a value that is older than their question.
    """

    def __init__(self, many: Callable[[Sequence[Key]], Awaitable[Sequence[Value]]], most: int = MOST):
        self._many, self._most = many, most
        self._asked: list[tuple[Key, asyncio.Future[Value]]] = []
        self._calls: set[asyncio.Task[None]] = set()

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
            call = asyncio.create_task(self._call(asked[start : start + self._most]))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, asked: Sequence[tuple[Key, asyncio.Future[Value]]]) -> None:
        waiting = [(key, future) for key, future in asked if not future.cancelled()]
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
