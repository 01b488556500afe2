"""service.recommend with the shipped in-memory stores: who is asked what, and what is answered when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from bundles import CUTOFF, DAY, make_bundle, sample_articles, sample_contents, write_bundle
from service_running import Clock

from model_store.bundle import Blend, Bundle
from model_store.records import Event, EventType
from service.answers import similar_articles
from service.breaker import PAUSE, Breaker
from service.catalogue.encoder import prepare
from service.catalogue.memory_store import MemoryCatalogue
from service.engine.filters import Filters
from service.errors import StoreUnavailable, UnknownArticle
from service.events import Sale
from service.intents import Intents
from service.live import Live, open_live
from service.metrics import Metrics
from service.rankings import Informed, Ranking, Wish, rank_together
from service.recommend import Recommender
from service.state.customer import Addition
from service.state.memory_store import MemoryStore
from service.trend_store import KEPT, STALE, MemoryTrendStore, Trends

NOW = CUTOFF + DAY


class Ticks:
    """A monotonic clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched(MemoryStore):
    """Counts what it is asked, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.asked: list[str] = []

    async def read(self, customer_id: str) -> Any:
        self._note("read")
        return await super().read(customer_id)

    async def read_log(self, customer_id: str) -> Any:
        self._note("read_log")
        return await super().read_log(customer_id)

    async def put_state(self, *arguments: Any) -> bool:
        self._note("put_state")
        return await super().put_state(*arguments)

    def _note(self, call: str) -> None:
        self.asked.append(call)
        if self.down:
            raise StoreUnavailable("down")


class CountedSales(MemoryTrendStore):
    """Counts how often the trend is read."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def newest_day(self, until: int) -> int | None:
        self.asked += 1
        return await super().newest_day(until)


class World:
    """One customer store, one live bundle, one recommender."""

    def __init__(self, live: Live):
        self.live, self.store, self.ticks, self.metrics = live, Watched(), Ticks(), Metrics()
        self.sales = CountedSales()
        trends = Trends(self.sales, Clock(NOW), self.ticks)
        intents = Intents(self.store, None, self.ticks)
        self.recommender = Recommender(self.store, trends, intents, Breaker(self.ticks), self.metrics, Clock(NOW))

    async def buy(self, customer_id: str, *article_ids: str) -> None:
        events = tuple(
            Event(
                event_id=f"{customer_id}-{article_id}",
                type=EventType.PURCHASE,
                customer_id=customer_id,
                article_id=article_id,
                timestamp=CUTOFF - DAY,
            )
            for article_id in article_ids
        )
        await self.store.append(Addition(customer_id, events))

    async def ask(self, customer_id: str, **wish: Any) -> dict[str, Any]:
        self.store.asked.clear()
        answer: dict[str, Any] = orjson.loads(await self.recommender.recommend(self.live, Wish(customer_id, **wish)))
        return answer


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


@pytest.fixture
async def world(bundle: Bundle) -> World:
    return await make_world(bundle)


async def make_world(bundle: Bundle) -> World:
    catalogue = MemoryCatalogue()
    live = open_live(bundle.folder, catalogue)
    articles = [prepare(one.article, one.image) for one in sample_articles()]
    await catalogue.upsert(articles, live.encoder.bundle_version, live.encoder.encode(articles).dna)
    await live.follower.load()
    return World(live)


async def test_a_customer_with_a_state_costs_one_round_trip(world: World) -> None:
    await world.buy("c1", "a003")
    first = await world.ask("c1")
    assert world.store.asked == ["read", "read_log", "put_state"]  # no state yet: derived once, and kept
    second = await world.ask("c1")
    assert world.store.asked == ["read"]
    assert second == first


async def test_a_customer_nobody_knows_costs_two(world: World) -> None:
    answer = await world.ask("nobody")
    assert world.store.asked == ["read", "read_log"]
    assert len(answer["articles"]) == 20


async def test_a_store_that_is_down_is_asked_once_in_a_while(world: World) -> None:
    await world.buy("c1", "a003")
    known = await world.ask("c1", strategy="style")
    world.store.down = True
    assert await world.ask("c1", strategy="style") == known | {"degraded": True}
    assert world.store.asked == ["read"]
    await world.ask("c1")
    assert world.store.asked == []
    world.ticks.now += PAUSE
    await world.ask("c1")
    assert world.store.asked == ["read"]
    world.store.down = False
    world.ticks.now += PAUSE
    assert await world.ask("c1", strategy="style") == known


async def test_a_style_asks_for_no_trend_but_has_it_known_for_when_the_store_is_away(world: World) -> None:
    await world.buy("c1", "a003")

    async def asked_by_style(seconds: float) -> int:
        world.ticks.now += seconds
        await world.ask("c1", strategy="style")
        await asyncio.sleep(0)  # what goes on behind the answer's back
        return world.sales.asked

    assert [await asked_by_style(seconds) for seconds in (0.0, 1.0, KEPT - 1.0, 0.1, 1.0)] == [1, 1, 1, 2, 2]
    await world.sales.add([Sale("a007", NOW - DAY, 1)])
    await world.ask("c1", strategy="style", explain=True)  # tells of sales, so they are asked for
    assert world.sales.asked == 3
    world.ticks.now += STALE + 0.1
    cold = await world.ask("nobody", strategy="style")  # gets what trends
    assert cold["articles"][0]["article_id"] == "a007"
    world.store.down = True
    assert await world.ask("nobody", strategy="style") == cold | {"degraded": True}


async def test_what_is_forgotten_is_not_answered_from(world: World) -> None:
    await world.buy("c1", "a003")
    await world.ask("c1")
    await world.recommender.forget("c1")
    world.store.down = True
    assert (await world.ask("c1", explain=True))["explain"]["cold"] is True


async def test_a_remembered_state_of_another_bundle_still_tells_what_was_bought(world: World, tmp_path: Path) -> None:
    await world.buy("c1", "a003")
    await world.ask("c1")
    other = make_bundle(tmp_path / "other", version="test-2", seed=1)
    world.live = Live(
        other,
        open_live(other.folder, MemoryCatalogue()).style,
        world.live.ranker,
        world.live.index,
        world.live.encoder,
        world.live.follower,
    )
    world.store.down = True
    answer = await world.ask("c1", n=200, explain=True)
    assert answer["explain"]["cold"] is True  # its memory would be another model's
    assert "a003" not in {article["article_id"] for article in answer["articles"]}


async def test_a_moment_in_the_past_does_not_replace_the_state(world: World) -> None:
    await world.buy("c1", "a003")
    now = await world.ask("c1", strategy="style")
    past = await world.ask("c1", at=CUTOFF - 30 * DAY, explain=True)
    assert past["explain"]["cold"] is True
    assert await world.ask("c1", strategy="style") == now
    assert world.store.asked == ["read"]


async def test_the_parts_of_an_explanation_make_up_the_score(tmp_path: Path) -> None:
    contents = sample_contents(popularity=True)
    blend = Blend(popularity=2.0, trend=0.5, best_sellers=1.5, bought_before=3.0)
    manifest = contents.manifest.model_copy(update={"blend": blend})
    world = await make_world(write_bundle(tmp_path, replace(contents, manifest=manifest)))
    await world.buy("c1", "a003", "a005")
    assert "a003" not in {article["article_id"] for article in (await world.ask("c1", n=60))["articles"]}
    articles = (await world.ask("c1", explain=True, n=60, exclude_purchased=False))["articles"]
    for article in articles:
        parts = article["explain"]
        total = parts["style"] + sum(
            parts[f"{part}_weight"] * parts[part] for part in ("popularity", "trend", "bought_before")
        )
        total += parts["best_sellers_weight"] * parts["best_seller"]
        assert article["score"] == pytest.approx(total, rel=1e-4, abs=1e-4)
    again = {article["article_id"]: article for article in articles if article["sources"].get("bought_before")}
    assert {name: article["sources"]["bought_before"] for name, article in again.items()} == {"a005": 1, "a003": 2}
    assert {article["article_id"] for article in articles if article["explain"]["bought_before"]} == {"a003", "a005"}
    assert again["a005"]["explain"]["bought_before"] == 1.0
    leading = {article["sources"].get("best_sellers"): article for article in articles}
    assert sorted(leading.keys() - {None}) == list(range(1, 11))
    assert leading[1]["explain"]["best_seller"] == 1.0
    assert leading[1]["explain"]["popularity"] == max(article["explain"]["popularity"] for article in articles)


async def test_answers_are_observed(world: World) -> None:
    await world.ask("nobody")
    page = world.metrics.page().decode()
    for stage in ("redis", "lstm", "search", "json", "total"):
        assert f'modiste_recommendation_seconds_count{{stage="{stage}"}} 1.0' in page
    for stage in ("generation", "waiting"):  # this bundle has no generating half
        assert f'modiste_recommendation_seconds_count{{stage="{stage}"}} 0.0' in page


async def test_similar_is_by_direction_not_by_length(world: World) -> None:
    index = world.live.index
    dna = index.dna_of("a005")
    assert dna is not None
    article = sample_articles()[5].article.model_copy(update={"article_id": "short"})
    index.upsert(article, dna * np.float32(0.01), True)
    answer = orjson.loads(similar_articles(world.live, "a005", 1, Filters()))
    assert answer["articles"][0]["article_id"] == "short"
    assert answer["articles"][0]["score"] == pytest.approx(1.0, abs=1e-5)


async def test_nothing_is_similar_to_an_unknown_article(world: World) -> None:
    with pytest.raises(UnknownArticle, match="'none' is not in the catalogue"):
        similar_articles(world.live, "none", 5, Filters())


async def test_what_is_deleted_between_ranking_and_answer_disturbs_neither(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await world.ask("nobody", n=5)

    def ranked_and_deleted(informed: Sequence[Informed]) -> list[Ranking]:
        rankings = rank_together(informed)
        for article_id in world.live.index.article_ids():
            world.live.index.remove(article_id)
        return rankings

    monkeypatch.setattr("service.recommend.rank_together", ranked_and_deleted)
    answer = await World(world.live).ask("nobody", n=5)
    assert len(answer["articles"]) == 5
    assert answer == before
    assert (await world.ask("nobody"))["articles"] == []
