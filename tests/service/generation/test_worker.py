"""Real generator processes over a real Valkey; one is killed in the middle of its work."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle, sample_articles
from redis_server import redis_url
from span_collector import collecting

from model_store.records import Event
from service.catalogue.records import StoredArticle
from service.catalogue.redis_store import RedisCatalogue
from service.errors import StoreUnavailable
from service.generation.queue import Outcome
from service.generation.records import GenerationRequest
from service.generation.redis_queue import RedisGenerationQueue
from service.state.connection import connect
from service.state.customer import Addition
from service.state.redis_store import RedisStore

__all__ = ["redis_url"]

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("generator_process.py")
CUSTOMERS = [f"customer {number}" for number in range(12)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder, generating=True)
    return folder


class Shop:
    """Stores in Redis, a queue, and processes that work it off."""

    def __init__(self, url: str, bundles: Path):
        self.client = connect(url, timeout=10)
        self.customers, self.queue = RedisStore(self.client), RedisGenerationQueue(self.client)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("MODISTE_")} | {
            "MODISTE_REDIS_URL": url,
            "MODISTE_STORE": str(bundles),
            "MODISTE_GENERATION_DEBOUNCE": "0",
            "MODISTE_LLM_TIMEOUT": "0.1",  # after a second more, what the dead had in hand is taken over
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def generator(self, seconds: float, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, str(SCRIPT), str(seconds)]
        with subprocess.Popen(command, env={**self.environment, **settings}, stderr=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    async def open(self) -> None:
        articles = [StoredArticle(one.article, "0" * 64) for one in sample_articles(60)]
        await RedisCatalogue(self.client).upsert(articles, "none", np.zeros((60, 128), np.float32))

    async def visit(self, *customers: str) -> None:
        """Each clicks on something, and waits."""
        for customer_id in customers:
            click = Event(event_id="c", type="click", customer_id=customer_id, article_id="a003", timestamp=5)  # type: ignore[arg-type]
            await self.customers.append(Addition(customer_id, (click,)))
        await self.queue.schedule([GenerationRequest(customer_id) for customer_id in customers])

    async def written(self) -> list[str]:
        """Customers for whom something was written."""
        views = await self.customers.read_many(CUSTOMERS)
        return [customer_id for customer_id, view in zip(CUSTOMERS, views, strict=True) if view.generation]


@pytest.fixture
async def shop(redis_url: str, bundles: Path) -> AsyncIterator[Shop]:
    shop = Shop(redis_url, bundles)
    await shop.open()
    yield shop
    await shop.client.aclose()


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.02)


async def test_it_writes_and_ends_well_when_asked_to(shop: Shop) -> None:
    await shop.visit(*CUSTOMERS)
    with shop.generator(0.0) as process:
        await until(lambda: has_written(shop, len(CUSTOMERS)))
        generation = (await shop.customers.read(CUSTOMERS[0])).generation
        assert generation is not None
        assert (generation.article_id, generation.title, generation.session_length) == ("a007", "Breezy jacket", 1)
        assert generation.bundle.startswith("test-1@")
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, said
    assert b"Traceback" not in said
    figures = await shop.queue.figures()
    assert (figures.waiting, figures.in_hand) == (0, 0)
    assert figures.outcomes[Outcome.WRITTEN] == len(CUSTOMERS)


async def test_each_generation_is_a_span_where_a_collector_is_named(shop: Shop) -> None:
    with collecting() as collector:
        await shop.visit(*CUSTOMERS[:2])
        with shop.generator(0.0, MODISTE_OTLP_ENDPOINT=collector.url) as process:
            await until(lambda: has_written(shop, 2))
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.communicate)
        spans = collector.spans
        assert b"customer" not in b"".join(collector.bodies)
    assert [(span.process, span.name, span.failed) for span in spans] == [
        ("modiste-generator", "generation", False)
    ] * 2
    for span in spans:
        assert (span.attributes["modiste.outcome"], span.attributes["modiste.bundle"][:7]) == ("written", "test-1@")
        assert 0 <= span.attributes["modiste.writing_seconds"] <= (span.end - span.start) / 1e9


async def test_one_that_is_killed_in_the_middle_loses_nobody(shop: Shop) -> None:
    """Two share the work; one is killed while it writes; what it had in hand, the other takes over."""
    with shop.generator(60.0) as victim:
        await shop.visit(*CUSTOMERS[:4])
        await until(lambda: has_in_hand(shop, 1))
        victim.kill()
        victim.wait()
    figures = await shop.queue.figures()
    assert (figures.waiting, figures.in_hand) == (3, 1)
    with shop.generator(0.0):
        await shop.visit(*CUSTOMERS[4:])
        await until(lambda: has_written(shop, len(CUSTOMERS)))
        await until(lambda: has_in_hand(shop, 0))
    assert (await shop.queue.figures()).outcomes[Outcome.WRITTEN] == len(CUSTOMERS)


async def test_asked_to_stop_in_the_middle_it_ends_what_it_writes(shop: Shop) -> None:
    with shop.generator(1.0) as process:
        await shop.visit(*CUSTOMERS)
        await until(lambda: has_in_hand(shop, 1))
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, said
    figures = await shop.queue.figures()
    assert figures.in_hand == 0
    assert figures.waiting + len(await shop.written()) == len(CUSTOMERS)
    assert figures.waiting > 0


async def has_written(shop: Shop, count: int) -> bool:
    return len(await shop.written()) == count


async def has_in_hand(shop: Shop, count: int) -> bool:
    try:
        return (await shop.queue.figures()).in_hand == count
    except StoreUnavailable:
        return False


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, b"MODISTE_REDIS_URL is not set"),
        ({"MODISTE_REDIS_URL": "redis://127.0.0.1:1", "MODISTE_LLM_URL": "off"}, b"MODISTE_LLM_URL is 'off'"),
        ({"MODISTE_LLM_TIMEOUT": "soon"}, b"MODISTE_LLM_TIMEOUT"),
    ],
)
def test_a_bad_setting_is_one_line(settings: dict[str, str], told: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODISTE_")}
    done = subprocess.run(
        [sys.executable, "-m", "service.generation.worker"],
        env=environment | settings,
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count(b"\n") == 1
