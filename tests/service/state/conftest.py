from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis_server import redis_url

from service.state.connection import connect
from service.state.memory_store import MemoryStore
from service.state.redis_store import RedisStore
from service.state.store import CustomerStore

__all__ = ["redis_url"]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout=10)
    assert isinstance(client, Redis)
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> CustomerStore:
    if request.param == "memory":
        return MemoryStore()
    return RedisStore(request.getfixturevalue("client"))
