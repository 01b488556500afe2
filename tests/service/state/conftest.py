from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis_server import cluster_url, empty_server, redis_url

from service.state.connection import connect
from service.state.memory_store import MemoryStore
from service.state.redis_store import RedisStore
from service.state.store import CustomerStore

__all__ = ["cluster_url", "redis_url"]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CustomerStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = empty_server() if request.param == "redis" else request.getfixturevalue("cluster_url")
    client = connect(url, timeout=10)
    await client.flushall()  # of all nodes
    yield RedisStore(client)
    await client.aclose()
