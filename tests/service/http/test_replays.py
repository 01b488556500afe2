"""States of the bundle before: replayed behind answers' backs, once each, by one worker at a time."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from redis_server import cluster_url
from service_running import Shop, running, until

from service import replay_board, replays
from service.catalogue.redis_store import HELD, RedisCatalogue
from service.errors import StoreUnavailable
from service.replay_board import Progress, ReplayBoard
from service.settings import Settings
from service.state.connection import connect
from service.state.redis_store import RedisStore

__all__ = ["cluster_url"]

CUSTOMERS = [f"customer {number} / é" for number in range(40)]


@pytest.fixture
def settings(store: Path, redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, store=store, llm_url="off", replay_share=1.0)


async def buy(shop: Shop) -> None:
    """Each customer some articles; two of the orders come late, and the first customer sends one back."""
    for number, customer in enumerate(CUSTOMERS):
        for place in range(number % 5 + 1):
            await shop.buy(customer, f"a{(7 * number + place) % 60:03}", timestamp=1_779_000_000 + (place % 3) * 1_000)
    await shop.tell({"type": "return", "customer_id": CUSTOMERS[0], "article_id": "a000"})
    await shop.tell({"type": "click", "customer_id": "only looks", "article_id": "a000"})


async def replayed(shop: Shop, version: str, seconds: float = 30) -> dict[str, Any]:
    """What GET /v1/bundles says once all is replayed for a version."""

    async def ask() -> dict[str, Any]:
        answer: dict[str, Any] = (await shop.http.get("/v1/bundles")).json()
        return answer

    def ended(answer: dict[str, Any]) -> bool:
        return answer["live"] == version and answer["replay"] is not None and answer["replay"]["ended"]

    found: dict[str, Any] = (await until(ask, ended, seconds))["replay"]
    return found


async def check_states(shop: Shop) -> None:
    """Every customer's state is what the live bundle makes of their log."""
    model, store = shop.services.live.style, shop.services.customers
    for customer in CUSTOMERS:
        state = (await store.read(customer)).state
        expected = model.replay((await store.read_log(customer)).events)
        assert state is not None
        assert (state.bundle, state.consumed, state.pending) == (expected.bundle, expected.consumed, expected.pending)
        assert (state.purchased, state.returned) == (expected.purchased, expected.returned)
        np.testing.assert_allclose(state.hidden, expected.hidden, atol=1e-5)


async def test_all_customers_have_a_state_of_the_new_bundle_before_they_ask(shop: Shop) -> None:
    await buy(shop)
    for version in ("test-2", "test-1"):  # and back
        await shop.http.post(f"/v1/bundles/{version}/activate")
        assert await replayed(shop, version) == {"total": 40, "done": 40, "ended": True}
        await check_states(shop)
    text = (await shop.http.get("/metrics")).text
    assert 'modiste_replay_customers{state="done"} 40.0' in text
    assert 'modiste_replay_customers{state="replayed"} 40.0' in text
    assert "modiste_replays_total 0.0" in text  # nobody had to wait for theirs


async def test_nobody_is_replayed_where_that_is_off(settings: Settings) -> None:
    async with running(settings.model_copy(update={"replay_share": 0.0})) as shop:
        await buy(shop)
        await shop.http.post("/v1/bundles/test-2/activate")
        await asyncio.sleep(1.5)  # longer than a worker would take to begin
        answer = (await shop.http.get("/v1/bundles")).json()
        assert answer["live"] == "test-2"
        assert answer["replay"] is None
        assert "modiste_replay_customers" not in (await shop.http.get("/metrics")).text


async def test_who_dies_in_the_middle_is_followed_by_another(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_board, "TURN_LASTS", 60.0)
    await buy(shop)
    await replayed(shop, "test-1")
    client = connect(settings.redis_url or "", timeout=10)
    try:
        dead = ReplayBoard(client)
        assert await until(lambda: dead.take("test-2@half"), bool)
        await shop.http.post("/v1/bundles/test-2/activate")
        monkeypatch.setattr(replay_board, "TURN_LASTS", 0.5)
        assert await dead.tell(Progress("test-2@half", 40, 20, 20))
        assert (await replayed(shop, "test-2"))["done"] == 40
        await check_states(shop)
        assert not await dead.tell(Progress("test-2@half", 40, 21, 21))  # should it come back
    finally:
        await client.aclose()


async def test_another_choice_in_the_middle_is_what_is_replayed_for(
    store: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replays, "AT_ONCE", 2)
    monkeypatch.setattr(replays, "TOLD", 0.0)
    caplog.set_level(logging.INFO, "service.replays")
    async with running(settings.model_copy(update={"replay_share": 0.01})) as slow:
        await buy(slow)
        await slow.http.post("/v1/bundles/test-2/activate")
        begun = await until(
            slow.services.board.read,
            lambda progress: progress is not None and progress.version == "test-2" and 0 < progress.done < 40,
        )
        assert not begun.ended
        await slow.http.post("/v1/bundles/test-1/activate")
        await until(slow.services.board.read, lambda progress: progress.version == "test-1")
    assert "'test-2'" not in caplog.text
    async with running(settings, filled=False) as shop:
        await replayed(shop, "test-1")
        await check_states(shop)


async def test_what_retired_bundles_made_of_the_catalogue_is_given_back(
    shop: Shop, store: Path, settings: Settings
) -> None:
    make_bundle(store, version="test-3", seed=2)
    catalogue = RedisCatalogue(shop.services.customers._client)
    await catalogue.put_dna("gone@0123", await catalogue.read(["a000"], "gone@0123"), np.ones((1, 128), np.float32))  # type: ignore[arg-type]
    before = set(await catalogue.encoded_by())
    assert "gone@0123" in before
    await shop.http.post("/v1/bundles/test-3/activate")
    await replayed(shop, "test-3")
    after = await catalogue.encoded_by()
    assert {bundle.partition("@")[0] for bundle in after} == {"test-1", "test-3"}  # test-1 may be activated again


async def test_what_histories_hold_is_told_again_where_redis_lost_it(settings: Settings) -> None:
    async with running(settings.model_copy(update={"replay_share": 0.0})) as shop:
        await buy(shop)
        client: Any = shop.services.customers._client
        held = await client.smembers(HELD)
        assert {b"a000", b"a007"} < held
        await client.delete(HELD)
    async with running(settings, filled=False) as shop:
        await replayed(shop, "test-1")
        client = shop.services.customers._client
        assert await client.smembers(HELD) == held


@pytest.mark.parametrize("kind", ["redis", "cluster"])
async def test_the_turn_is_one_workers_at_a_time(kind: str, request: pytest.FixtureRequest) -> None:
    client = connect(request.getfixturevalue(f"{kind}_url"), timeout=10)
    await client.flushall()
    try:
        one, other = ReplayBoard(client), ReplayBoard(client)
        assert await one.read() is None
        assert await one.take("b@1") is True
        assert await other.take("b@1") is False
        assert await one.tell(Progress("b@1", 3, 1, 1))
        assert not await other.tell(Progress("b@1", 3, 2, 2))
        assert await other.read() == Progress("b@1", 3, 1, 1)
        await other.give_back()  # which is not its own
        assert await other.take("b@1") is False
        assert await one.tell(Progress("b@1", 3, 3, 2, ended=True))
        await one.give_back()
        assert await other.take("b@1") is None
        assert await other.take("c@1") is True
    finally:
        await client.aclose()


async def test_a_store_that_is_away_is_asked_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await buy(shop)
    failures = iter(range(2))
    put = RedisStore.put_state

    async def failing(self: RedisStore, *arguments: Any) -> bool:
        if next(failures, None) is not None:
            raise StoreUnavailable("away")
        return await put(self, *arguments)

    monkeypatch.setattr(RedisStore, "put_state", failing)
    await shop.http.post("/v1/bundles/test-2/activate")
    assert (await replayed(shop, "test-2"))["done"] == 40
    assert "states are not replayed for the moment: away" in caplog.text
    await check_states(shop)
