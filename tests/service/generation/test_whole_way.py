"""From POST /v1/events to a fresh answer and back to nothing: the real application, a real Valkey, real prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bundles import make_bundle
from redis_server import redis_url
from service_running import Shop, running, until

from service.catalogue.redis_store import RedisCatalogue
from service.choice import RedisChoice
from service.errors import LanguageModelUnavailable
from service.generation.fake import FakeTextGenerator
from service.generation.generator import Generator
from service.generation.redis_queue import RedisGenerationQueue
from service.generation.scribes import Scribes
from service.generation.work import Work
from service.settings import Settings
from service.state.connection import connect
from service.state.redis_store import RedisStore

__all__ = ["redis_url"]

ANSWER = "{<id>a007</id>,<title>Breezy jacket</title>}"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder, generating=True)
    return folder


@pytest.fixture
async def shop(bundles: Path, redis_url: str) -> AsyncIterator[Shop]:
    async with running(Settings(redis_url=redis_url, store=bundles, generation_debounce=0)) as shop:
        yield shop


@asynccontextmanager
async def generating(shop: Shop, text: FakeTextGenerator) -> AsyncIterator[None]:
    """A generator beside the application, with connections of its own."""
    url = shop.services.settings.redis_url
    assert url is not None
    client = connect(url, timeout=10)
    scribes = Scribes(shop.services.settings.store, RedisChoice(client), lambda bundle, prompting: text, pause=0.05)
    work = Work(
        RedisGenerationQueue(client, debounce=0), Generator(RedisStore(client), RedisCatalogue(client)), scribes
    )
    async with scribes.running():
        working = asyncio.create_task(work.run())
        try:
            yield
        finally:
            work.stop()
            await working
    await client.aclose()


async def figures(shop: Shop) -> list[str]:
    page = (await shop.http.get("/metrics")).text
    return [
        line for line in page.splitlines() if line.startswith(("modiste_generations_total", "modiste_generation_q"))
    ]


async def in_hand(shop: Shop) -> int:
    assert shop.services.queue is not None
    return (await shop.services.queue.figures()).in_hand


async def test_what_happens_is_followed_by_a_fresh_answer(shop: Shop) -> None:
    async with generating(shop, FakeTextGenerator(lambda _: ANSWER)):
        for kind, article_id in (("click", "a003"), ("purchase", "a004"), ("return", "a004"), ("click", "a005")):
            await shop.tell({"type": kind, "customer_id": "c", "article_id": article_id})
            answer = await shop.recommend("c", wait_ms=10_000, explain="true")
            assert answer["generation"] == "fresh"
            assert answer["degraded"] is False
        generated = await shop.recommend("c", strategy="generated")
        assert generated["articles"][0]["article_id"] == "a007"
        searched = await shop.recommend("c", query="red coat", wait_ms=10_000)
        assert searched["generation"] == "fresh"
        assert 'modiste_generations_total{result="written"} 5.0' in await figures(shop)
        await until(lambda: in_hand(shop), lambda number: number == 0)
        assert 'modiste_generation_queue{state="waiting"} 0.0' in await figures(shop)


async def test_an_erase_leaves_nothing_that_waits_or_is_written(shop: Shop) -> None:
    text = FakeTextGenerator(lambda _: ANSWER, delay=0.5)
    await shop.tell({"type": "click", "customer_id": "waits", "article_id": "a003"})
    await shop.tell({"type": "search", "customer_id": "writes", "query": "red coat"})
    assert 'modiste_generation_queue{state="waiting"} 2.0' in await figures(shop)
    assert (await shop.http.delete("/v1/customers/waits")).status_code == 204
    assert 'modiste_generation_queue{state="waiting"} 1.0' in await figures(shop)
    async with generating(shop, text):
        await until(lambda: asyncio.sleep(0, text.writing), lambda writing: writing == 1)
        assert (await shop.http.delete("/v1/customers/writes")).status_code == 204
        await until(lambda: in_hand(shop), lambda number: number == 0)
    assert 'modiste_generations_total{result="too_late"} 1.0' in await figures(shop)
    for customer_id in ("waits", "writes"):
        assert (await shop.http.get(f"/v1/customers/{customer_id}")).status_code == 404


async def test_a_language_model_that_is_away_or_writes_rubbish_changes_no_answer(shop: Shop) -> None:
    text = FakeTextGenerator(lambda _: "rubbish", failure=LanguageModelUnavailable("down"))
    async with generating(shop, text):
        await shop.tell({"type": "click", "customer_id": "c", "article_id": "a003"})
        before = await shop.recommend("c", wait_ms=300)
        assert (before["generation"], len(before["articles"])) == ("none", 20)
        text.failure = None
        await until(lambda: figures(shop), lambda lines: 'modiste_generations_total{result="unparseable"} 1.0' in lines)
        after = await shop.recommend("c")
        assert (after["generation"], after["articles"]) == ("none", before["articles"])
