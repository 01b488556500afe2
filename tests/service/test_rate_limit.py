"""service.rate_limit on a real Valkey: so many at once, then as many as time brings, each key by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis_server import cluster_url, redis_url, running_server

from service.rate_limit import RateLimit
from service.state.connection import Client, connect

__all__ = ["cluster_url", "redis_url"]

ONE, OTHER = b"1" * 32, b"2" * 32


@pytest.fixture(params=["redis_url", "cluster_url"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    client = connect(request.getfixturevalue(request.param), timeout=10)
    await client.flushall()  # of all nodes
    yield client
    await client.aclose()


async def allowed(limit: RateLimit, count: int, digest: bytes = ONE) -> int:
    return sum(await asyncio.gather(*(limit.allows(digest) for _ in range(count))))


async def test_a_key_gets_a_seconds_worth_at_once_and_no_more(client: Client) -> None:
    """One token a second: what time brings meanwhile is at most one or two, however slow the machine is."""
    limit, same = RateLimit(client, 1), RateLimit(client, 1)
    assert 1 <= await allowed(limit, 30) + await allowed(same, 30) < 20
    assert await limit.allows(OTHER)


async def test_time_brings_more(client: Client) -> None:
    limit = RateLimit(client, 20)
    assert await allowed(limit, 100) >= 20
    assert not all([await limit.allows(ONE) for _ in range(40)])
    await asyncio.sleep(0.3)
    assert await limit.allows(ONE)
    await asyncio.sleep(3)  # what was counted is forgotten
    assert await allowed(limit, 20) == 20


async def test_without_redis_all_may() -> None:
    with running_server() as url:
        client = connect(url)
        limit = RateLimit(client, 1)
        assert await limit.allows(ONE)
    assert await allowed(limit, 3) == 3
    await client.aclose()
