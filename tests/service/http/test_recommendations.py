"""GET /v1/customers/{id}/recommendations: what is recommended, and that it is exactly what the models say."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from bundles import CUTOFF, DAY
from service_running import NOW, Shop, ids, until

from model_store.article_table import load_articles
from model_store.bundle import STYLE_LSTM, open_bundle
from model_store.graphs import Memory, StyleLstm
from model_store.records import Event
from model_store.time_features import encode_history

PURCHASES = [("a003", CUTOFF - 40 * DAY), ("a011", CUTOFF - 40 * DAY), ("a029", CUTOFF - 3 * DAY)]


def expected_scores(store: Path, purchases: list[tuple[str, int]], at: int) -> dict[str, float]:
    """f·d of every article of the small bundle, computed from the bundle's own files alone."""
    bundle = open_bundle(store / "test-1")
    article_ids, _, dna = load_articles(bundle)
    rows = [article_ids.index(article_id) for article_id, _ in purchases]
    times = np.array([time for _, time in purchases], np.int64)
    steps = encode_history(bundle.manifest.time_spec, dna[rows].reshape(-1, 128), times, at)
    lengths = np.array([len(steps)], np.int32)
    styles, _ = StyleLstm(bundle.path(STYLE_LSTM)).run_steps(steps[None], lengths, Memory.zeros(1))
    return dict(zip(article_ids, (dna @ styles[0, -1]).tolist(), strict=True))


def assert_ranked(answer: dict[str, Any], expected: dict[str, float]) -> None:
    """The answer is ``expected`` (article → score), best first; nearly equal scores may stand in either order."""
    found = {article["article_id"]: article["score"] for article in answer["articles"]}
    assert found.keys() == expected.keys()
    assert [expected[article_id] for article_id in found] == pytest.approx(
        sorted(expected.values(), reverse=True), rel=1e-3, abs=1e-3
    )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


async def buy_all(shop: Shop, customer_id: str) -> None:
    events = [
        {
            "type": "purchase",
            "customer_id": customer_id,
            "article_id": article_id,
            "timestamp": time,
            "event_id": f"{i}",
        }
        for i, (article_id, time) in enumerate(PURCHASES)
    ]
    assert (await shop.tell(events))["accepted"] == len(events)


async def test_style_is_brute_force_over_all_in_stock(shop: Shop, store: Path) -> None:
    await buy_all(shop, "c1")
    await shop.stock("a007", 0)
    answer = await shop.recommend("c1", strategy="style", n=200)
    expected = expected_scores(store, PURCHASES, NOW)
    for gone in ("a003", "a011", "a029", "a007"):
        del expected[gone]
    assert_ranked(answer, expected)
    assert answer["strategy"] == "style"
    assert answer["bundle"] == "test-1"
    assert answer["generation"] == "none"
    assert answer["degraded"] is False
    assert [article["sources"] for article in answer["articles"][:2]] == [{"style": 1}, {"style": 2}]


async def test_blended_adds_the_fitted_weight_of_recent_sales(shop: Shop, store: Path) -> None:
    for buyer in ("x", "y", "z"):
        await shop.buy(buyer, "a040", timestamp=NOW - DAY)
    await shop.buy("x", "a050", timestamp=NOW - DAY)
    await shop.buy("c1", "a003", timestamp=CUTOFF - 40 * DAY)
    expected = expected_scores(store, [("a003", CUTOFF - 40 * DAY)], NOW)
    expected["a040"] += 0.5 * math.log1p(3)
    expected["a050"] += 0.5 * math.log1p(1)
    del expected["a003"]
    answer = await until(
        lambda: shop.recommend("c1", strategy="blended", n=200, explain=True),
        lambda answer: any(article["explain"]["recent_sales"] == 3 for article in answer["articles"]),
    )
    assert_ranked(answer, expected)


async def test_the_style_is_read_at_the_moment_asked_for(shop: Shop, store: Path) -> None:
    await buy_all(shop, "c1")
    later = NOW + 100 * DAY
    answer = await shop.recommend("c1", strategy="style", n=200, at=later, exclude_purchased=False)
    assert_ranked(answer, expected_scores(store, PURCHASES, later))


async def test_a_moment_in_the_past_knows_nothing_later(shop: Shop, store: Path) -> None:
    await buy_all(shop, "c1")
    at = CUTOFF - 10 * DAY
    answer = await shop.recommend("c1", strategy="style", n=200, at="2026-05-18T20:26:40+00:00")
    expected = expected_scores(store, PURCHASES[:2], at)
    del expected["a003"], expected["a011"]
    assert_ranked(answer, expected)


async def test_a_moment_may_be_written_in_several_ways(shop: Shop) -> None:
    for at in (str(CUTOFF), f"{CUTOFF}.7", "2026-05-28T20:26:40", "2026-05-28T22:26:40 02:00"):
        answer = await shop.recommend("c1", at=at, explain=True)
        assert answer["explain"]["at"] == CUTOFF, at


async def test_a_purchase_shows_in_the_very_next_answer(shop: Shop) -> None:
    await shop.buy("c1", "a003", timestamp=NOW - 9 * DAY)
    before = await shop.recommend("c1", strategy="style", n=200)
    best = ids(before)[0]
    await shop.buy("c1", best)
    after = await shop.recommend("c1", strategy="style", n=200)
    assert best not in ids(after)
    assert [article["score"] for article in after["articles"]] != [a["score"] for a in before["articles"][1:]]


async def test_a_return_takes_the_purchase_out_but_not_back_into_answers(shop: Shop, store: Path) -> None:
    await buy_all(shop, "c1")
    event = {"type": "return", "customer_id": "c1", "article_id": "a029", "event_id": "r", "timestamp": NOW - DAY}
    assert (await shop.tell(event))["accepted"] == 1
    expected = expected_scores(store, PURCHASES[:2], NOW)
    for bought in ("a003", "a011", "a029"):
        del expected[bought]
    assert_ranked(await shop.recommend("c1", strategy="style", n=200), expected)


async def test_a_purchase_stamped_ahead_counts_at_once(shop: Shop) -> None:
    await shop.buy("c1", "a003", timestamp=NOW + DAY // 2)
    answer = await shop.recommend("c1", strategy="style", n=200, explain=True)
    assert answer["explain"]["cold"] is False
    assert "a003" not in ids(answer)


async def test_cold_customers_get_what_is_trending(shop: Shop) -> None:
    for buyer in ("x", "y", "z"):
        await shop.buy(buyer, "a010", timestamp=NOW - DAY)
    for buyer in ("x", "y"):
        await shop.buy(buyer, "a020", timestamp=NOW - DAY)
    answer = await until(lambda: shop.recommend("nobody", n=5), lambda answer: ids(answer)[:2] == ["a010", "a020"])
    assert len(answer["articles"]) == 5  # filled up from the rest of what is in stock
    assert answer["articles"][0]["sources"] == {"trending": 1}


async def test_purchased_articles_stay_out_of_what_is_trending(shop: Shop) -> None:
    for buyer in ("x", "y", "z"):
        await shop.buy(buyer, "a010", timestamp=NOW - DAY)
    await until(lambda: shop.recommend("nobody", n=5), lambda answer: ids(answer)[0] == "a010")
    answer = await shop.recommend("x", strategy="trending", n=200)
    assert "a010" not in ids(answer)
    assert len(answer["articles"]) == 59
    answer = await shop.recommend("x", strategy="trending", n=200, exclude_purchased=False)
    assert ids(answer)[0] == "a010"


async def test_clicks_adapt_what_cold_customers_get(shop: Shop) -> None:
    await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a033"})
    answer = await shop.recommend("c1", n=5, explain=True)
    expected = {"at": NOW, "cold": True, "purchases": 0, "session_events": 1, "session_counts": True}
    assert answer["explain"] == expected | {"generation": None}
    assert answer["articles"][0]["sources"] == {"session": 1}


async def test_every_value_of_a_facet_counts(shop: Shop) -> None:
    everything = (await shop.recommend("c1", n=200))["articles"]
    both = (await shop.recommend("c1", n=200, category=["dress", "COAT"]))["articles"]
    assert {article["category"] for article in both} == {"dress", "coat"}
    assert len(both) == sum(article["category"] in {"dress", "coat"} for article in everything)
    narrow = (await shop.recommend("c1", n=200, category="dress", brand=["Aster", "Birch"], colour="red"))["articles"]
    assert {article["article_id"] for article in narrow} == {
        article["article_id"]
        for article in everything
        if article["category"] == "dress" and article["brand"] in {"Aster", "Birch"} and article["colour"] == "red"
    }


async def test_gender_and_price_narrow(shop: Shop) -> None:
    women = await shop.recommend("c1", n=200, gender="women")
    assert 0 < len(women["articles"]) < 60
    priced = (await shop.recommend("c1", n=200, price_min=20, price_max=30))["articles"]
    assert priced
    assert all(20 <= article["price"] <= 30 for article in priced)


async def test_excluded_articles_stay_out(shop: Shop) -> None:
    first, second, *rest = ids(await shop.recommend("c1", n=200))
    assert ids(await shop.recommend("c1", n=200, exclude=[first, second])) == rest


async def test_n_bounds_the_answer(shop: Shop) -> None:
    assert len((await shop.recommend("c1"))["articles"]) == 20
    assert len((await shop.recommend("c1", n=1))["articles"]) == 1


async def test_stock_shows_in_the_very_next_answer(shop: Shop) -> None:
    first = ids(await shop.recommend("c1", n=200))[0]
    await shop.stock(first, 0)
    assert first not in ids(await shop.recommend("c1", n=200))
    await shop.stock(first, 3)
    assert first in ids(await shop.recommend("c1", n=200))


async def test_ids_may_hold_any_character(shop: Shop) -> None:
    for customer_id in ("a/b", "a%2Fb", "{c}", "Jürgen 😀", "x y+z&n=1?", "..;", "recommendations", "'\"\\", "c" * 128):
        await shop.buy(customer_id, "a003")
        answer = await shop.recommend(quote(customer_id, safe=""), n=200)
        assert answer["customer_id"] == customer_id
        assert "a003" not in ids(answer)
        assert len(answer["articles"]) == 59


async def test_query_and_wait_are_taken_and_change_nothing_without_a_generating_half(shop: Shop) -> None:
    await shop.buy("c1", "a003")
    plain = await shop.recommend("c1")
    assert await shop.recommend("c1", query="red dress", wait_ms=50) == plain


async def test_generated_is_refused_without_a_generating_half(shop: Shop) -> None:
    response = await shop.http.get("/v1/customers/c1/recommendations", params={"strategy": "generated"})
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "generation_unavailable"


BAD_PARAMETERS = [
    ("n=0", "n"),
    ("n=201", "n"),
    ("n=many", "n"),
    ("n=5&n=6", "n"),
    ("strategy=best", "strategy"),
    ("price_min=nan", "price_min"),
    ("price_max=inf", "price_max"),
    ("price_min=-1", "price_min"),
    ("price_min=9&price_max=8", "price_min"),
    ("at=yesterday", "at"),
    ("at=99999999999999", "at"),
    ("wait_ms=-1", "wait_ms"),
    ("wait_ms=10001", "wait_ms"),
    ("query=", "query"),
    ("query=%20%20", "query"),
    ("query=" + "x" * 1_001, "query"),
    ("explain=perhaps", "explain"),
    ("categroy=dress", "categroy"),
    ("category=", "category"),
    ("exclude=%00", "exclude"),
    ("brand=%FF", "brand"),
]


async def test_bad_parameters_are_named(shop: Shop) -> None:
    for query, field in BAD_PARAMETERS:
        response = await shop.http.get(f"/v1/customers/c1/recommendations?{query}")
        assert response.status_code == 422, query
        error = response.json()["error"]
        assert (error["type"], error["field"]) == ("invalid_request", field), query


async def test_bad_ids_are_refused(shop: Shop) -> None:
    for customer_id in ("%00", "%FF", "c" * 129, "%0A"):
        for address in ("", "/recommendations"):
            response = await shop.http.get(f"/v1/customers/{customer_id}{address}")
            assert response.status_code == 422, customer_id
            assert response.json()["error"]["field"] == "customer_id", customer_id


async def test_a_worker_keeps_no_events_of_those_who_asked(shop: Shop) -> None:
    """What it remembers for the time that Redis is away are bytes: a session's events take ten times as much."""
    clicks = [{"type": "click", "customer_id": "Ada", "article_id": f"a{number:03}"} for number in range(10)]
    assert (await shop.tell(clicks))["accepted"] == 10
    assert (await shop.recommend("Ada"))["articles"][0]["sources"]["session"] == 1
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Event) and each.customer_id == "Ada"]
