"""Who has what written, who waits for it, and what a language model can never do to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bundles import DAY
from service_running import NOW, Shop, ids, running

from model_store.bundle import open_bundle
from model_store.prompts import response_text
from service.errors import LanguageModelUnavailable
from service.generation.fake import FakeTextGenerator
from service.generation.generator import Generator, Scribe
from service.generation.prompting import open_prompting
from service.generation.redis_queue import RedisGenerationQueue
from service.settings import Settings
from service.state.connection import connect
from service.state.redis_store import RedisStore

from .generating import RECORDS, come, everything, queue, store, write

__all__ = ["queue", "store"]


# Who is scheduled


async def waiting(queue: RedisGenerationQueue) -> list[tuple[str, str | None]]:
    """Who waits; they wait no more."""
    found = []
    while (taken := await queue.take(0.05)) is not None:
        found.append(tuple(taken.request))
        await queue.forget(taken.request.customer_id)
    return found


async def settled(shop: Shop) -> None:
    """Until what was asked for behind the answers' back is sent."""
    assert shop.services.scheduler is not None
    await shop.services.scheduler.sent()


async def test_a_request_has_written_what_is_missing(shop: Shop, queue: RedisGenerationQueue) -> None:
    async def asked(customer_id: str, **query: Any) -> list[tuple[str, str | None]]:
        await shop.recommend(customer_id, **query)
        await settled(shop)
        return await waiting(queue)

    assert await asked("nobody", query="red dress") == []
    for customer_id in ("c1", "c2", "c3", "c4"):
        await come(shop, customer_id)
    await waiting(queue)
    for query in ({"strategy": "style"}, {"strategy": "trending"}, {"at": NOW - DAY}):
        assert await asked("c1", **query) == []
    assert await asked("c1") == [("c1", None)]
    assert await asked("c1") == []  # just now
    assert await asked("c2", strategy="generated") == [("c2", None)]
    assert await asked("c1", query="red dress") == [("c1", "red dress")]
    await write(shop, "c3", "a010", "Birch red dress")
    assert await asked("c3") == []  # fresh
    await write(shop, "c4", "a010", "Birch red dress", bundle="test-0@another")
    assert await asked("c4") == [("c4", None)]


async def test_events_have_a_generation_written(shop: Shop, queue: RedisGenerationQueue) -> None:
    await shop.tell(
        [
            {"type": "click", "customer_id": "c1", "article_id": "a001"},
            {"type": "search", "customer_id": "c2", "query": "coat"},
            {"type": "purchase", "customer_id": "c1", "article_id": "a002"},
        ]
    )
    assert sorted(await waiting(queue)) == [("c1", None), ("c2", None)]


async def test_nothing_is_scheduled_where_the_language_model_is_off(
    settings: Settings, queue: RedisGenerationQueue
) -> None:
    async with running(settings.model_copy(update={"llm_url": "off"})) as shop:
        await come(shop)
        async with asyncio.timeout(5):
            answer = await shop.recommend("c1", wait_ms=10_000)
        assert answer["generation"] == "none"
        assert shop.services.scheduler is None
        assert await waiting(queue) == []


async def test_a_queue_that_fails_fails_no_answer(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await come(shop)
    async with _broken_queue(shop, monkeypatch) as asked:
        assert len((await shop.recommend("c1"))["articles"]) == 20
        await settled(shop)
        assert asked


@asynccontextmanager
async def _broken_queue(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    from service.errors import StoreUnavailable

    asked: list[Any] = []

    async def schedule(requests: Any) -> None:
        asked.append(requests)
        raise StoreUnavailable("down")

    scheduler = shop.services.scheduler
    assert scheduler is not None
    with monkeypatch.context() as patch:
        patch.setattr(scheduler._queue, "schedule", schedule)
        yield asked


# Waiting, and a language model at work


@asynccontextmanager
async def at_work(shop: Shop, store: Path, redis_url: str, text: FakeTextGenerator) -> AsyncIterator[None]:
    """A generator over the shop's Redis, for the length of a block."""
    client = connect(redis_url)
    queue = RedisGenerationQueue(client, debounce=0)
    scribe = Scribe(open_prompting(open_bundle(store / "test-1")), text)
    generator = Generator(RedisStore(client), shop.services.lives._catalogue, lambda: float(shop.clock()))

    async def work() -> None:
        while True:
            taken = await queue.take(0.05)
            if taken is None:
                continue
            try:
                done = await generator.generate(scribe, taken.request)
            except LanguageModelUnavailable:
                await queue.give_back(taken)
            else:
                await queue.finish(taken, done.outcome, done.seconds)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        while not working.done():
            working.cancel()
            await asyncio.wait([working], timeout=0.1)
        await client.aclose()


async def test_a_request_may_wait_for_a_fresh_generation(shop: Shop, store: Path, redis_url: str) -> None:
    await come(shop)
    text = FakeTextGenerator(lambda _: response_text(RECORDS["a010"]), delay=0.05)
    async with at_work(shop, store, redis_url, text):
        for query in ({}, {"query": "red dress"}):
            answer = await shop.recommend("c1", wait_ms=10_000, strategy="generated", **query)
            assert answer["generation"] == "fresh"
            assert ids(answer)[0] == "a010"
        await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a001"})
        assert (await shop.recommend("c1", wait_ms=10_000))["generation"] == "fresh"


async def test_nobody_waits_where_there_is_nothing_to_wait_for(shop: Shop) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress")
    async with asyncio.timeout(5):
        for customer_id, more in (
            ("c1", {}),
            ("nobody", {}),
            ("nobody", {"query": "red dress"}),
            ("c1", {"at": NOW - DAY}),
            ("c1", {"strategy": "style", "query": "x"}),
        ):
            await shop.recommend(customer_id, wait_ms=10_000, **more)


async def assert_sound(shop: Shop, generation: str) -> dict[str, Any]:
    """Right answers for a customer whose language model is out of order, all of them at once."""
    async with asyncio.timeout(5):
        answer = await shop.recommend("c1", n=200, wait_ms=100)
        assert answer["generation"] == generation
        assert sorted(ids(answer)) == sorted(everything("a003", "a040"))
        for query in ({"strategy": "generated"}, {"query": "red dress"}, {"strategy": "generated", "query": "coat"}):
            found = ids(await shop.recommend("c1", n=200, **query))
            assert set(found) <= everything("a003", "a040"), query
            assert len(set(found)) == len(found) >= 57, query
    return answer


async def test_a_stopped_language_model_changes_no_answer(shop: Shop) -> None:
    await come(shop)
    await shop.stock("a040", 0)
    await assert_sound(shop, "none")
    await write(shop, "c1", "a010", "Birch red dress")
    await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a001"})
    await assert_sound(shop, "stale")


async def test_a_slow_or_failing_language_model_changes_no_answer(shop: Shop, store: Path, redis_url: str) -> None:
    await come(shop)
    await shop.stock("a040", 0)
    text = FakeTextGenerator(lambda _: response_text(RECORDS["a010"]), delay=5.0)
    async with at_work(shop, store, redis_url, text):
        without = await assert_sound(shop, "none")
        assert text.writing
        text.failure = LanguageModelUnavailable("down")
        assert await assert_sound(shop, "none") == without


RUBBISH = (
    "",
    "I am sorry, I cannot recommend a product.",
    "{<id>a010</id>}",
    '{"id": "a010"}' * 100,
    "{<id>a040</id>,<title>out of stock</title>}",
    "{<id>no-such-article</id>,<title>~</title>}",
    "{<id>%00%0A</id>,<title>\u202e\U0001f600</title>}",
)


async def test_rubbish_never_reaches_an_answer(shop: Shop, store: Path, redis_url: str) -> None:
    await come(shop)
    await shop.stock("a040", 0)
    rubbish, asked = "", asyncio.Event()

    def answer(_: Any) -> str:
        asked.set()
        return rubbish

    async with at_work(shop, store, redis_url, FakeTextGenerator(answer)):
        for number, text in enumerate(RUBBISH):
            rubbish = text
            click = {"type": "click", "customer_id": "c1", "article_id": f"a{number + 20:03}"}
            await shop.tell(click)
            asked.clear()
            await shop.recommend("c1")
            await asked.wait()
            parses = "</title>" in text
            answered = await shop.recommend("c1", wait_ms=10_000 if parses else 20)
            assert answered["generation"] == ("fresh" if parses else "none"), text
            await assert_sound(shop, answered["generation"])


# What is stored


async def test_generations_are_shown_and_erased(shop: Shop, queue: RedisGenerationQueue) -> None:
    await come(shop)
    shown = (await shop.http.get("/v1/customers/c1")).json()
    assert (shown["generation"], shown["searching"]) == (None, None)
    await write(shop, "c1", "a010", "Birch red dress", bundle="test-0@another")
    await write(shop, "c1", "a012", "Cedar coat", query="coat")
    shown = (await shop.http.get("/v1/customers/c1")).json()
    assert (shown["generation"]["title"], shown["searching"]["title"]) == ("Birch red dress", "Cedar coat")
    assert shown["generation"].keys() == {
        "article_id",
        "title",
        "bundle",
        "session_length",
        "written_at",
        "seconds",
    }
    await shop.recommend("c1")
    await settled(shop)
    assert (await shop.http.delete("/v1/customers/c1")).status_code == 204
    assert await waiting(queue) == []
    await come(shop)
    shown = (await shop.http.get("/v1/customers/c1")).json()
    assert (shown["generation"], shown["searching"]) == (None, None)
    assert (await shop.recommend("c1"))["generation"] == "none"
