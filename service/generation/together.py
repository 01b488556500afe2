"""Scheduling for many requests at once: while one call to the queue is under way, whoever comes shares the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.generation.queue import GenerationQueue
from service.generation.records import GenerationRequest


@dataclass(eq=False)
class _Batch:
    requests: dict[GenerationRequest, None] = field(default_factory=dict)
    done: bool = False


class Together:
    """Schedules what callers bring, in as few calls as their number allows."""

    def __init__(self, queue: GenerationQueue):
        self._queue = queue
        self._coming = _Batch()
        self._calling = asyncio.Lock()

    async def schedule(self, requests: Sequence[GenerationRequest]) -> None:
        """Return once the customers wait. Raises StoreUnavailable; whoever shared the call then tries by themselves."""
        batch = self._coming
        for request in requests:  # the latest last: of a customer's queries, the newest counts
            batch.requests.pop(request, None)
            batch.requests[request] = None
        async with self._calling:
            if batch.done:
                return
            if batch is self._coming:
                self._coming = _Batch()
            await self._queue.schedule(list(batch.requests))
            batch.done = True
