"""What the page tells those who run the service."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from hypothesis import given
from hypothesis import strategies as st
from service_running import Shop, running

from model_store.bundle import MANIFEST, REPORT, write_manifest
from service.lookbook.figures import figures_of, quantile
from service.settings import Settings


async def test_figures_are_those_of_what_was_asked(shop: Shop) -> None:
    await shop.buy("ann", "a003")
    await shop.stock("a004", 0)
    for _ in range(5):
        await shop.recommend("ann")
    await shop.http.get("/v1/customers/ann/recommendations", params={"n": 0})
    answer = (await shop.http.get("/lookbook/operations")).json()
    counts = {(each["route"], each["status"]): each["count"] for each in answer["requests"]}
    route = "GET /v1/customers/{customer_id}/recommendations"
    assert (counts[route, 200], counts[route, 422]) == (5, 1)
    assert answer["events"]["accepted"] == 1
    assert (answer["total"]["count"], answer["degraded"], answer["workers"]) == (5, 0, 1)
    assert 0 < answer["total"]["p50_ms"] <= answer["total"]["p99_ms"]
    assert {"redis", "lstm", "search", "json"} <= {each["stage"] for each in answer["stages"]}
    assert answer["articles"] == {"in_stock": 59, "all": 60}
    assert answer["bundle"]["version"] == "test-1"
    assert set(answer["store_failures"].values()) == {0}
    assert answer["report"] is False


async def test_recent_is_what_was_asked_since_the_mark(shop: Shop) -> None:
    async def operations(since: list[int] | None = None) -> Any:
        response = await shop.http.get("/lookbook/operations", params={} if since is None else {"since": since})
        assert response.status_code == 200
        return response.json()

    first = await operations()
    assert first["recent"] is None
    for _ in range(3):
        await shop.recommend("ann")
    second = await operations(first["mark"] or [0] * 3)
    for _ in range(4):
        await shop.recommend("bob")
    third = await operations(second["mark"])
    assert (third["total"]["count"], third["recent"]["count"]) == (7, 4)
    assert 0 < third["recent"]["p50_ms"] <= third["recent"]["p99_ms"]
    nothing = await operations(third["mark"])
    assert nothing["recent"] == {"count": 0, "p50_ms": None, "p99_ms": None}
    for started_anew in ([*third["mark"][:-1], 1_000], third["mark"][1:], [0] * 100):
        assert (await operations(started_anew))["recent"] is None
    for odd in (["x"], [-1], [0] * 101):
        response = await shop.http.get("/lookbook/operations", params={"since": odd})
        assert (response.status_code, response.json()["error"]["field"].split(".")[0]) == (422, "since")


async def test_a_bundle_without_a_report_says_so(shop: Shop) -> None:
    response = await shop.http.get("/lookbook/report")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "unknown_report")


async def test_the_report_of_the_live_bundle_runs_nothing(tmp_path: Path, redis_url: str) -> None:
    bundle = make_bundle(tmp_path / "store", version="test-1")
    (bundle.folder / REPORT).write_text("<!doctype html><title>Évaluation</title>", encoding="utf-8")
    (bundle.folder / MANIFEST).unlink()
    write_manifest(bundle.folder, bundle.manifest)
    async with running(Settings(redis_url=redis_url, store=tmp_path / "store"), filled=False) as shop:
        assert (await shop.http.get("/lookbook/operations")).json()["report"] is True
        response = await shop.http.get("/lookbook/report")
        assert response.text == "<!doctype html><title>Évaluation</title>"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "sandbox" in policy
        assert "script" not in policy


def test_nothing_counted_is_no_time() -> None:
    figures = figures_of(b"")
    assert figures["total"] == {"count": 0, "p50_ms": None, "p99_ms": None}
    assert (figures["workers"], figures["queue"], figures["requests"]) == (1, None, [])
    assert quantile([], 0.5) is None
    assert quantile([(1.0, 0.0), (math.inf, 0.0)], 0.5) is None


def test_figures_of_several_workers_are_added_up() -> None:
    page = b"""
modiste_ready{pid="1"} 1
modiste_ready{pid="2"} 1
modiste_index_articles{pid="1",stock="in"} 50
modiste_index_articles{pid="2",stock="in"} 48
modiste_index_articles{pid="1",stock="out"} 10
"""
    figures = figures_of(page)
    assert figures["workers"] == 2
    assert figures["articles"] == {"in_stock": 50, "all": 60}


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_its_bucket(values: list[float], q: float) -> None:
    bounds = [0.1, 0.2, 0.5, 1.0]
    counts = [(bound, float(sum(value <= bound for value in values))) for bound in bounds] + [(math.inf, len(values))]
    found = quantile(counts, q)
    exact = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    upper = bounds[int(np.searchsorted(bounds, exact))]
    assert found is not None
    assert found <= upper + 1e-9
    assert found >= ([0.0, *bounds][bounds.index(upper)]) - 1e-9


def test_what_is_above_all_bounds_counts_as_the_last() -> None:
    assert quantile([(1.0, 0.0), (5.0, 0.0), (math.inf, 3.0)], 0.5) == pytest.approx(5.0)
