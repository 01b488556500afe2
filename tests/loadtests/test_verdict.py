"""What a load test tells, and whom and what it draws."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_shops import tiny_shop

from loadtests.journeys import PASSING, Shop
from loadtests.known import Known, Zipf, asked_for, of_data_set
from loadtests.verdict import MIB, Limits, Measured, missed, report

NOTHING = Limits(None, None, None, None, None)


def measured(slow_from: float = 100.0) -> Measured:
    """A hundred seconds: a request each half second that takes 10 ms, or 30 from ``slow_from`` on."""
    found = Measured()
    for number in range(200):
        due = number / 2
        found.note("look" if number % 4 else "buy", due, 10.0 if due < slow_from else 30.0, number % 50 == 0)
        found.memory.append((due, {"workers": int((100 + number) * MIB), "redis": number * 10 * MIB}))
        found.late.append(0.5)
    found.elsewhere = [False, True]
    return found


def test_figures_are_those_of_all_requests_of_each_call_and_of_each_fifth() -> None:
    found = report(measured(slow_from=80.0), 100.0)
    assert (found["requests"], found["requests_per_second"], found["journeys"]) == (202, 2.0, 200)
    assert found["failed_share"] == 5 / 202
    assert found["latency_ms"] == {"p50": 10.0, "p90": 30.0, "p99": 30.0, "p99.9": 30.0, "max": 30.0}
    assert {name: call["requests"] for name, call in found["calls"].items()} == {"buy": 50, "look": 150}
    assert [part["from_s"] for part in found["parts"]] == [0.0, 20.0, 40.0, 60.0, 80.0]
    assert [part["requests"] for part in found["parts"]] == [40] * 5
    assert found["parts"][0]["memory_mib"] == {"redis": 195.0, "workers": 119.5}
    assert found["growth"] == {"latency": 3.0, "memory_mib": 160.0}, "Redis keeps what it is told"


def test_of_the_time_before_the_begin_only_failures_count() -> None:
    warm, plain = measured(), measured()
    for number in range(10):
        warm.note("early", number - 10.0, 500.0, number == 3)
        warm.memory.append((number - 10.0, {"workers": 1}))
    found, without = report(warm, 100.0), report(plain, 100.0)
    assert found["requests"] == without["requests"] + 1
    assert found["failed_share"] == 6 / 203
    same = ("latency_ms", "calls", "parts", "growth", "journeys")
    assert {name: found[name] for name in same} == {name: without[name] for name in same}


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (Limits(9.0, None, None, None, None), "median latency, ms: 10, more than 9"),
        (Limits(None, 29.0, None, None, None), "99th percentile of latency, ms: 30, more than 29"),
        (Limits(None, None, 0.02, None, None), "share of failed requests: 0.0247525, more than 0.02"),
        (Limits(None, None, None, 1.5, None), "growth of latency: 3, more than 1.5"),
        (Limits(None, None, None, None, 50.0), "growth of memory, MiB: 160, more than 50"),
    ],
)
def test_each_limit_is_held(limits: Limits, line: str) -> None:
    found = report(measured(slow_from=80.0), 100.0)
    assert missed(found, limits) == [line]
    assert missed(found, NOTHING) == []
    assert missed(found, Limits(10.0, 30.0, 0.03, 3.0, 160.0)) == []


def test_what_was_not_measured_is_not_good_enough() -> None:
    found = report(Measured(), 10.0)
    assert found["latency_ms"] is None
    assert missed(found, Limits(1.0, 1.0, 1.0, 1.0, 1.0)) == [
        "median latency, ms: not measured",
        "99th percentile of latency, ms: not measured",
        "share of failed requests: not measured",
        "growth of latency: not measured",
        "growth of memory, MiB: not measured",
    ]


def test_places_are_drawn_by_zipfs_law() -> None:
    rng, law = random.Random(1), Zipf(1_000, 1.0)
    drawn = Counter(law.draw(rng) for _ in range(50_000))
    harmonic = sum(1 / rank for rank in range(1, 1_001))
    for place in (0, 1, 4, 19):
        expected = 50_000 / (place + 1) / harmonic
        assert abs(drawn[place] - expected) < 5 * np.sqrt(expected)
    assert set(drawn) <= set(range(1_000))
    even = Counter(Zipf(4, 0.0).draw(rng) for _ in range(4_000))
    assert min(even.values()) > 850


def test_what_is_gone_soon_is_not_clicked() -> None:
    """It would be a fault of the load test's own: what is similar to an article that it has deleted."""
    shop = Shop(Known(["c"], [("known", "Coat")]), 1.0, 0.0, random.Random(1), searchable=False)
    shown = [f"{PASSING}1", "stays", f"{PASSING}2"]
    assert {shop.clicked(shown) for _ in range(50)} == {"stays"}
    assert shop.clicked(shown[:1]) == "known"


def test_a_data_set_gives_customers_and_articles_the_most_frequent_first(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop")
    known = of_data_set(tmp_path / "shop")
    purchases = data.purchases()
    sold = Counter(data.article_ids[row] for row in purchases.article)
    assert all(sold[one] >= sold[other] for (one, _), (other, _) in pairwise(known.articles))
    assert sorted(one for one, _ in known.articles) == sorted(data.article_ids)
    bought = Counter(purchases.customer_ids[row] for row in purchases.customer)
    assert all(bought[one] >= bought[other] for one, other in pairwise(known.customers))
    titles = {article.article_id: article.title for article in data.articles()}
    assert all(title == titles[article] for article, title in known.articles)


def test_articles_are_asked_for_until_there_are_enough_or_no_more() -> None:
    def ask(path: str) -> Any:
        first = int(path.rsplit("/a", maxsplit=1)[-1].split("/", maxsplit=1)[0]) if "similar" in path else -1
        return {
            "articles": [{"article_id": f"a{number}", "title": "t"} for number in range(first + 1, min(first + 4, 10))]
        }

    assert [article for article, _ in asked_for(ask, 5)] == ["a0", "a1", "a2", "a3", "a4"]
    assert len(asked_for(ask, 100)) == 10
    assert asked_for(lambda _: {"articles": []}, 5) == []
