"""The one way to end tasks that speak to Redis."""

from __future__ import annotations

import asyncio

AGAIN = 0.05  # seconds


async def cancelled(*tasks: asyncio.Task[None] | None, again: float = AGAIN) -> None:
    """Cancel tasks until they are done.

    Again and again: redis-py takes a cancellation for its own where one meets a timeout. A task that has something to
    put in order first needs that done in ``again`` seconds.
    """
    while left := [task for task in tasks if task is not None and not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=again)
