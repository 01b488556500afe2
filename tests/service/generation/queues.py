"""The queues that the contract suite runs on: each over nothing, with the times that a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis_server import empty_server

from service.generation.memory_queue import MemoryGenerationQueue, Requests
from service.generation.queue import GenerationQueue
from service.generation.redis_queue import RedisGenerationQueue
from service.state.connection import connect

Make = Callable[..., GenerationQueue]
"""Makes a queue over the same requests; keywords are ``most``, ``debounce`` and ``abandoned_after``."""


@asynccontextmanager
async def redis_queues(url: str | None = None) -> AsyncIterator[Make]:
    client = connect(url or empty_server(), timeout=10)
    await client.flushall()  # of all nodes
    yield lambda **how: RedisGenerationQueue(client, **{"debounce": 0.0, **how})
    await client.aclose()


@asynccontextmanager
async def memory_queues() -> AsyncIterator[Make]:
    requests = Requests()
    yield lambda **how: MemoryGenerationQueue(requests, **{"debounce": 0.0, **how})
