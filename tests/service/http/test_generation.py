"""What a language model wrote, in answers: which articles follow from it, and how fresh it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DAY
from service_running import NOW, Shop, ids

from model_store.article_table import load_articles
from model_store.bundle import open_bundle
from model_store.generation import load_titles, open_generation
from model_store.prompts import Generated
from offline.mixup import MixupRetrieval

from .generating import RECORDS, WEIGHT, come, everything, queue, store, write
from .test_openapi import check
from .test_recommendations import expected_scores

__all__ = ["queue", "store"]


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
