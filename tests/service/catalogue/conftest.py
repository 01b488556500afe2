from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis_server import redis_url

from service.catalogue.memory_store import MemoryCatalogue
from service.catalogue.redis_store import RedisCatalogue
from service.catalogue.store import CatalogueStore
from service.state.connection import Client, connect

__all__ = ["redis_url"]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    client = connect(redis_url, timeout=10)
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> CatalogueStore:
    if request.param == "memory":
        return MemoryCatalogue(kept_changes=200)
    return RedisCatalogue(request.getfixturevalue("client"), kept_changes=200)
