"""/metrics: what each worker says of itself at this moment, and the stages of its answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from bundles import make_bundle
from prometheus_client.parser import text_string_to_metric_families
from service_running import Shop, running, starting, until, until_ready

from service.settings import Settings

from .generating import come, write


async def samples(shop: Shop) -> dict[tuple[str, ...], float]:
    """Value by name and labels' values."""
    page = (await shop.http.get("/metrics")).text
    return {
        (sample.name.removeprefix("modiste_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def test_a_worker_shows_how_it_is(shop: Shop) -> None:
    begun = time.time()
    await shop.stock("a003", 0)
    shown = await until(
        lambda: samples(shop),
        lambda shown: shown["catalogue_as_of_timestamp_seconds",] > begun and not shown["catalogue_changes_behind",],
    )
    assert shown["catalogue_as_of_timestamp_seconds",] <= time.time()
    assert shown["catalogue_articles_refused",] == 0
    assert (shown["index_articles", "in"], shown["index_articles", "out"]) == (59, 1)
    assert shown["ready",] == shown["bundle_info", "test-1"] == 1
    assert shown["requests_in_progress",] == 1  # the one that asks
    assert shown["unscheduled_customers",] == 0
    await shop.http.post("/v1/bundles/test-2/activate")
    shown = await samples(shop)
    assert (shown["bundle_info", "test-1"], shown["bundle_info", "test-2"]) == (0, 1)


async def test_a_worker_that_cannot_answer_shows_it(tmp_path: Path, redis_url: str) -> None:
    async with starting(Settings(redis_url=redis_url, store=tmp_path / "store")) as shop:
        shown = await samples(shop)
        assert shown["ready",] == 0
        assert not any(name == "index_articles" for name, *_ in shown)
        make_bundle(tmp_path / "store")
        await until_ready(shop.http)
        assert (await samples(shop))["ready",] == 1


async def test_stages_that_take_part_are_timed(tmp_path: Path, redis_url: str) -> None:
    make_bundle(tmp_path / "store", generating=True)
    async with running(Settings(redis_url=redis_url, store=tmp_path / "store")) as shop:
        await come(shop)
        await shop.recommend("c1")
        await write(shop, "c1", "a020", "red coat")
        await shop.recommend("c1", wait_ms=50)  # it is fresh
        await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a012"})
        await shop.recommend("c1", wait_ms=50)  # it is not, and nobody writes
        await shop.recommend("c1", strategy="style")
        shown = await samples(shop)
    count, total = "recommendation_seconds_count", "recommendation_seconds_sum"
    assert {name: shown[count, name] for name in ("redis", "lstm", "search", "json", "total")} == dict.fromkeys(
        ("redis", "lstm", "search", "json", "total"), 4
    )
    assert (shown[count, "generation"], shown[count, "waiting"]) == (3, 1)
    assert shown[total, "waiting"] >= 0.05
    stages = ("redis", "generation", "lstm", "search", "json")
    assert all(shown[total, stage] > 0 for stage in stages)
    assert shown[total, "total"] == pytest.approx(sum(shown[total, stage] for stage in stages))
