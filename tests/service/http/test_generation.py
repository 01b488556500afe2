"""What a language model wrote, in answers: which articles follow from it, how fresh it is, and what it can never do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DAY, make_bundle, sample_articles
from service_running import NOW, Shop, ids, running

from model_store.bundle import load_articles, open_bundle
from model_store.generation import load_titles, open_generation
from model_store.prompts import Generated, response_text
from offline.mixup import MixupRetrieval
from service.errors import LanguageModelUnavailable
from service.generation.fake import FakeTextGenerator
from service.generation.generator import Generator, Scribe
from service.generation.prompting import open_prompting
from service.generation.records import StoredGeneration, view_mark
from service.generation.redis_queue import RedisGenerationQueue
from service.settings import Settings
from service.state.connection import connect
from service.state.redis_store import RedisStore

from .test_openapi import check
from .test_recommendations import expected_scores

RECORDS = {raw.article.article_id: raw.article for raw in sample_articles()}
WEIGHT = 0.7  # of what was generated, in the small bundle's blend


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two bundles with generating halves, test-1 (live) and test-2."""
    make_bundle(tmp_path / "store", version="test-1", generating=True)
    make_bundle(tmp_path / "store", version="test-2", seed=1, generating=True)
    return tmp_path / "store"


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RedisGenerationQueue]:
    """The queue that the shop's customers wait in, due at once."""
    client = connect(redis_url)
    yield RedisGenerationQueue(client, debounce=0)
    await client.aclose()


async def write(
    shop: Shop, customer_id: str, article_id: str, title: str, query: str | None = None, **other: Any
) -> StoredGeneration:
    """What a generator would store for a customer whose state is kept, at this moment."""
    customers = shop.services.customers
    mark = view_mark(await customers.read(customer_id), query)
    bundle = shop.services.live.style.bundle_version
    written = replace(StoredGeneration(bundle, mark, 3, article_id, title, float(shop.clock()), 0.02), **other)
    assert await customers.put_generation(customer_id, written, searching=query is not None)
    return written


async def come(shop: Shop, customer_id: str = "c1") -> None:
    """A customer with a purchase and a click."""
    await shop.buy(customer_id, "a003", timestamp=NOW - 9 * DAY)
    await shop.tell({"type": "click", "customer_id": customer_id, "article_id": "a011"})


def listed(store: Path, written: Generated, allowed: set[str]) -> list[str]:
    """The mixup list by training's own retrieval, over the bundle's own files."""
    bundle = open_bundle(store / "test-1")
    assert bundle.manifest.generation is not None
    names, _, _ = load_articles(bundle)
    half = open_generation(bundle.folder, bundle.manifest.generation, names)
    retrieval = MixupRetrieval(names, load_titles(bundle.folder, len(names)), half.ids, half.title_encoder.encode)
    rows = np.array([row for row, name in enumerate(names) if name in allowed], np.int64)
    return [names[row] for row in retrieval.lists([written], lambda _: rows)[0]]


def assert_listed(answer: dict[str, Any], store: Path, written: Generated, allowed: set[str]) -> None:
    """The answer is ``listed``; articles of one title are equally near to any, and may stand in either order."""
    expected, found = listed(store, written, allowed), ids(answer)
    assert found[:1] == expected[:1]
    assert [RECORDS[name].title for name in found] == [RECORDS[name].title for name in expected], written
    assert len(set(found)) == len(found)
    assert set(found) <= allowed


def everything(*but: str) -> set[str]:
    return RECORDS.keys() - set(but)


async def test_generated_is_what_trainings_own_retrieval_gives(shop: Shop, store: Path) -> None:
    await come(shop)
    await shop.stock("a020", 0)
    for article_id, title in (
        ("a010", RECORDS["a010"].title),
        ("a010", "Birch red dress"),
        ("a020", "Cedar coat"),  # out of stock
        ("a003", "Aster black jeans"),  # bought
        ("a009", "Dune green shirt"),  # cold
        ("no-such-article", "a title of unknown words"),
        ("</id>\u0000", "\u202e<script>{}"),
    ):
        await write(shop, "c1", article_id, title)
        answer = await shop.recommend("c1", strategy="generated", n=200)
        assert answer["generation"] == "fresh"
        assert_listed(answer, store, Generated(article_id, title), everything("a003", "a020"))
    sources = [article["sources"] for article in answer["articles"]]
    assert sources == [{"generated": rank} for rank in range(1, 59)]


async def test_filters_hold_inside_the_lists(shop: Shop, store: Path) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress")
    answer = await shop.recommend("c1", strategy="generated", n=200, category="coat", exclude="a010")
    allowed = {name for name in everything("a003", "a010") if RECORDS[name].category == "coat"}
    assert_listed(answer, store, Generated("a010", "Birch red dress"), allowed)


async def test_blended_adds_the_fitted_weight_of_the_place_in_the_list(shop: Shop, store: Path) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress")
    expected = expected_scores(store, [("a003", NOW - 9 * DAY)], NOW)
    del expected["a003"]
    for rank, name in enumerate(ids(await shop.recommend("c1", strategy="generated", n=200)), 1):
        expected[name] += WEIGHT * math.log2(201 / rank) / math.log2(201)
    answer = await shop.recommend("c1", n=200, explain=True)
    found = {article["article_id"]: article for article in answer["articles"]}
    assert {name: article["score"] for name, article in found.items()} == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert ids(answer) == sorted(found, key=lambda name: -found[name]["score"])
    for article in found.values():
        parts = article["explain"]
        total = parts["style"] + parts["trend_weight"] * parts["trend"] + parts["generated_weight"] * parts["generated"]
        assert article["score"] == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert found["a010"]["sources"]["generated"] == found["a010"]["explain"]["generated_id_rank"] == 1
    assert answer["generation"] == "fresh"


async def test_an_explanation_says_what_was_generated(shop: Shop) -> None:
    await come(shop)
    written = await write(shop, "c1", "no-such-article", "Birch red dress")
    explained = (await shop.recommend("c1", explain=True))["explain"]["generation"]
    assert explained == {
        "freshness": "fresh",
        "article_id": "no-such-article",
        "title": "Birch red dress",
        "bundle": written.bundle,
        "session_length": 3,
        "written_at": NOW,
        "seconds": 0.02,
    }
    assert (await shop.recommend("c1", explain=True, strategy="style"))["explain"]["generation"] is None


async def test_a_generation_is_fresh_until_the_customer_does_something(shop: Shop) -> None:
    assert (await shop.recommend("c1"))["generation"] == "none"
    await come(shop)
    assert (await shop.recommend("c1"))["generation"] == "none"
    await write(shop, "c1", "a010", "Birch red dress")
    assert (await shop.recommend("c1"))["generation"] == "fresh"
    for event in (
        {"type": "search", "query": "coat"},
        {"type": "click", "article_id": "a001"},
        {"type": "purchase", "article_id": "a002"},
        {"type": "return", "article_id": "a002"},
    ):
        await shop.tell({"customer_id": "c1", **event})
        assert (await shop.recommend("c1"))["generation"] == "stale", event
        await write(shop, "c1", "a010", "Birch red dress")
        assert (await shop.recommend("c1"))["generation"] == "fresh", event
    for strategy in ("style", "trending"):
        assert (await shop.recommend("c1", strategy=strategy))["generation"] == "none"
    assert (await shop.recommend("c1", at=NOW - DAY))["generation"] == "none"


async def test_a_generation_of_another_bundle_is_stale_and_its_words_count(shop: Shop, store: Path) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress", bundle="test-0@another")
    answer = await shop.recommend("c1", strategy="generated", n=200)
    assert answer["generation"] == "stale"
    assert_listed(answer, store, Generated("a010", "Birch red dress"), everything("a003"))
    await write(shop, "c1", "a010", "Birch red dress")
    assert (await shop.http.post("/v1/bundles/test-2/activate")).status_code == 200
    assert (await shop.recommend("c1"))["generation"] == "stale"


async def test_without_a_generation_generated_is_the_blended_answer(shop: Shop) -> None:
    for customer_id in ("nobody", "c1"):
        await come(shop)
        blended = await shop.recommend(customer_id)
        assert await shop.recommend(customer_id, strategy="generated") == blended | {"strategy": "generated"}


async def test_new_articles_and_stock_show_in_the_lists_at_once(shop: Shop) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Zebra purple umbrella red dress")
    first = ids(await shop.recommend("c1", strategy="generated"))
    await shop.put({"article_id": "new", "title": "zebra purple umbrella red dress", "category": "dress"})
    await write(shop, "c1", "new", "zebra purple umbrella red dress")
    assert ids(await shop.recommend("c1", strategy="generated", n=1)) == ["new"]
    await shop.stock("new", 0)
    assert "new" not in ids(await shop.recommend("c1", strategy="generated", n=200))
    await write(shop, "c1", "a010", "Zebra purple umbrella red dress")
    assert ids(await shop.recommend("c1", strategy="generated")) == first
    await shop.stock(first[0], 0)
    assert first[0] not in ids(await shop.recommend("c1", strategy="generated", n=200))


async def test_a_changed_title_moves_an_article(shop: Shop) -> None:
    await shop.put({"article_id": "moved", "title": "Birch red dress", "category": "dress"})
    assert (await search(shop, "birch red dress"))["articles"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    await shop.put({"article_id": "moved", "title": "Cedar blue coat", "category": "dress"})
    scores = {each["article_id"]: each["score"] for each in (await search(shop, "Cedar blue coat", n=200))["articles"]}
    assert scores["moved"] == pytest.approx(1.0, abs=1e-5)


# What the customer searches for now


async def test_a_query_stands_in_for_what_is_not_generated_yet(shop: Shop) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress")
    answer = await shop.recommend("c1", strategy="generated", query="Cedar coat", n=200)
    found = await search(shop, "Cedar coat", n=200, exclude="a003")
    assert answer["generation"] == "none"
    assert ids(answer) == ids(found)
    blended = await shop.recommend("c1", query="Cedar coat", n=200)
    ranks = {article["article_id"]: article["sources"].get("generated") for article in blended["articles"]}
    assert ranks == {name: rank for rank, name in enumerate(ids(answer), 1)}


async def test_a_generation_for_a_query_counts_for_that_query_and_session_alone(shop: Shop, store: Path) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress", query="something red")
    answer = await shop.recommend("c1", strategy="generated", query="something red", n=200)
    assert answer["generation"] == "fresh"
    assert_listed(answer, store, Generated("a010", "Birch red dress"), everything("a003"))
    assert (await shop.recommend("c1", query="something else"))["generation"] == "none"
    assert (await shop.recommend("c1"))["generation"] == "none"
    await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a001"})
    assert (await shop.recommend("c1", query="something red"))["generation"] == "none"


async def search(shop: Shop, q: str, **query: Any) -> dict[str, Any]:
    response = await shop.http.get("/v1/search", params={"q": q, **query})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_search_is_brute_force_over_titles_in_stock(shop: Shop, store: Path) -> None:
    bundle = open_bundle(store / "test-1")
    assert bundle.manifest.generation is not None
    names, _, _ = load_articles(bundle)
    half = open_generation(bundle.folder, bundle.manifest.generation, names)
    cosines = load_titles(bundle.folder, len(names)) @ half.title_encoder.encode(["red coat"])[0]
    await shop.stock("a007", 0)
    expected = {name: score for name, score in zip(names, cosines.tolist(), strict=True) if name != "a007"}
    answer = await search(shop, "red coat", n=200)
    assert {each["article_id"]: each["score"] for each in answer["articles"]} == pytest.approx(expected, abs=1e-5)
    assert ids(answer) == sorted(expected, key=lambda name: (-round(expected[name], 5), name))
    assert (answer["query"], answer["bundle"]) == ("red coat", "test-1")
    dresses = await search(shop, "red coat", n=200, category="dress")
    assert ids(dresses) == [name for name in ids(answer) if RECORDS[name].category == "dress"]
    assert len((await search(shop, "red"))["articles"]) == 20


BAD_SEARCHES = [("", "q"), ("q=", "q"), ("q=%20", "q"), ("q=a&q=b", "q"), ("q=" + "x" * 1_001, "q"), ("q=a&n=0", "n")]


async def test_bad_searches_are_named(shop: Shop) -> None:
    for query, field in BAD_SEARCHES:
        response = await shop.http.get(f"/v1/search?{query}")
        assert response.status_code == 422, query
        assert (response.json()["error"]["type"], response.json()["error"]["field"]) == ("invalid_request", field)


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


async def test_answers_with_generations_fit_their_schemas(shop: Shop) -> None:
    document = (await shop.http.get("/openapi.json")).json()
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress")
    await write(shop, "c1", "a012", "Cedar coat", query="coat")
    recommendations = "/v1/customers/{customer_id}/recommendations"
    for query in ({}, {"strategy": "generated"}, {"query": "coat"}, {"query": "red", "strategy": "generated"}):
        for more in ({}, {"explain": True}):
            check(document, await shop.recommend("c1", **query, **more), recommendations, "get", "200")
    for address in ("/v1/search?q=coat", "/v1/search?q=coat&n=0"):
        response = await shop.http.get(address)
        check(document, response.json(), "/v1/search", "get", str(response.status_code))
    response = await shop.http.get("/v1/customers/c1")
    check(document, response.json(), "/v1/customers/{customer_id}", "get", "200")


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
