from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis_server import cluster_url, redis_url

from service.catalogue.memory_store import MemoryCatalogue
from service.catalogue.redis_store import RedisCatalogue
from service.catalogue.store import CatalogueStore
from service.state.connection import Client, connect

__all__ = ["cluster_url", "redis_url"]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    client = connect(redis_url, timeout=10)
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CatalogueStore]:
    if request.param == "memory":
        yield MemoryCatalogue(kept_changes=200, kept_unheld=30)
        return
    url = request.getfixturevalue("cluster_url" if request.param == "cluster" else "redis_url")
    client = connect(url, timeout=10)
    await client.flushall()  # of all nodes
    yield RedisCatalogue(client, kept_changes=200, kept_unheld=30)
    await client.aclose()
