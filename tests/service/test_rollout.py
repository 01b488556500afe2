"""service.rollout: how workers agree that they are ready, in every place where that can be kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis_server import cluster_url, empty_server

from service import rollout
from service.rollout import Coming, MemoryRollout, RedisRollout, Rollout
from service.state.connection import connect

__all__ = ["cluster_url"]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Rollout]:
    if request.param == "memory":
        yield MemoryRollout()
        return
    client = connect(empty_server() if request.param == "redis" else request.getfixturevalue("cluster_url"), timeout=10)
    await client.flushall()
    yield RedisRollout(client)
    await client.aclose()


async def test_workers_are_invited_and_awaited_until_they_have_settled(shared: Rollout) -> None:
    assert await shared.look("one") is None
    token = await shared.announce("b")
    assert token is not None
    assert await shared.look("two") is None  # announced, but nobody is invited yet
    await shared.invite(token)
    assert await shared.look("one") == await shared.look("two") == Coming(token, "b")
    assert await shared.awaited() == {"one", "two"}
    await shared.look("two", token)
    assert await shared.awaited() == {"one"}
    await shared.look("one", "an earlier one")
    assert await shared.awaited() == {"one"}
    await shared.look("one", token)
    assert await shared.awaited() == set()


async def test_one_announcement_at_a_time(shared: Rollout) -> None:
    token = await shared.announce("b")
    assert token is not None
    assert await shared.announce("c") is None
    await shared.invite("another")
    await shared.withdraw("another")
    assert await shared.look("one", token) is None
    assert not await shared.renew("another")
    assert await shared.renew(token)
    await shared.withdraw(token)
    assert not await shared.renew(token)
    again = await shared.announce("c")
    assert again is not None
    assert again != token
    assert await shared.awaited() == {"one"}  # who was ready for another is not ready for this one


async def test_what_is_not_renewed_ends_and_who_is_not_seen_is_gone(
    shared: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "ANNOUNCED", 0.4)
    monkeypatch.setattr(rollout, "PRESENT", 0.3)
    token = await shared.announce("b")
    assert token is not None
    await shared.invite(token)
    await shared.look("one")
    async with asyncio.timeout(20):
        while await shared.look("two") is not None:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.05)
    assert not await shared.renew(token)
    assert "one" not in await shared.awaited()
    assert await shared.announce("c") is not None
