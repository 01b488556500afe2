from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import numpy as np
import pytest
from redis_server import cluster_url, redis_url, running_server

from service.engine.trending import DAY
from service.errors import StoreUnavailable
from service.events import Sale
from service.state.connection import connect
from service.trend_store import REFRESH, STALE, MemoryTrendStore, RedisTrendStore, Trends, TrendStore

__all__ = ["cluster_url", "redis_url"]

TODAY = 20_000
NOW = TODAY * DAY + 10 * 3600


@pytest.fixture(params=["memory", "redis", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[TrendStore]:
    if request.param == "memory":
        yield MemoryTrendStore()
        return
    client = connect(request.getfixturevalue("cluster_url" if request.param == "cluster" else "redis_url"), timeout=10)
    await client.flushall()  # of all nodes
    yield RedisTrendStore(client)
    await client.aclose()


class Time:
    """A wall clock and a monotonic one that stand still until told."""

    def __init__(self, now: int = NOW):
        self.now, self.elapsed = now, 100.0

    def pass_by(self, seconds: float) -> None:
        self.elapsed += seconds

    def trends(self, store: TrendStore) -> Trends:
        return Trends(store, lambda: self.now, lambda: self.elapsed)


def sold(article_id: str, day: int, count: int = 1) -> Sale:
    return Sale(article_id, day * DAY + 3_600, count)


async def test_sales_are_counted_per_day_and_returns_taken_out(store):
    await store.add([sold("a", 5), sold("a", 5), sold("b", 5), sold("a", 6), sold("a", 5, -1), sold("b", 5, -1)])
    await store.add([sold("é {x}", 6, 1_500)])
    assert await store.sales(5) == {"a": 1}
    assert await store.sales(6) == {"a": 1, "é {x}": 1_500}
    assert await store.sales(7) == {}


async def test_the_newest_day_is_one_that_sold(store):
    assert await store.newest_day(TODAY) is None
    await store.add([sold("a", 5), sold("a", 9), sold("a", 12, -1)])
    assert [await store.newest_day(day) for day in (4, 5, 8, 9, 100)] == [None, 5, 5, 9, 9]


async def test_a_days_version_changes_with_its_sales_alone(store):
    await store.add([sold("a", 5)])
    before = await store.versions([5, 6])
    await store.add([sold("a", 6)])
    after = await store.versions([5, 6])
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert await store.versions([]) == ()


async def test_many_counts_of_one_day_all_arrive(store):
    await store.add([sold(f"a{i}", 5) for i in range(3_000)])
    assert len(await store.sales(5)) == 3_000


async def test_a_store_tells_what_of_a_late_day_changed(store):
    await store.add([sold("a", TODAY), sold("b", TODAY, 2)])
    (version,) = await store.versions([TODAY])
    assert await store.changes(TODAY, version) == {}
    await store.add([sold("b", TODAY, -2), sold("é {x}", TODAY, 3)])
    await store.add([sold("c", TODAY - 1)])
    assert await store.changes(TODAY, version) == {"b": 0, "é {x}": 3}
    assert await store.changes(TODAY, version + 1) == {}


async def test_redis_says_so_where_it_does_not_remember_what_changed(redis_url):
    client = connect(redis_url, timeout=10)
    await client.flushall()
    store = RedisTrendStore(client)
    await store.add([sold("a", TODAY), sold("a", TODAY - 8), sold("a", TODAY - 9)])
    assert await store.changes(TODAY - 1, 0) is None  # it never sold
    assert await store.changes(TODAY - 8, 1) == {}
    assert await store.changes(TODAY - 9, 1) is None  # too old
    await store.add([sold("b", TODAY + 1)])
    await store.add([sold("b", TODAY - 8)])  # too old by now
    assert await store.changes(TODAY - 8, 1) is None
    assert 0 < await client.ttl(f"modiste:{{trend}}:{TODAY}:changes") <= 2 * DAY
    await client.delete(f"modiste:{{trend}}:{TODAY}:changes")  # as if it had expired
    await store.add([sold("b", TODAY)])
    assert await store.changes(TODAY, 0) is None
    assert await store.changes(TODAY, 1) == {"b": 1}
    await client.aclose()


async def test_who_reads_what_changed_sees_what_who_reads_everything_sees(store):
    rng = random.Random(4)
    time = Time()
    trends = time.trends(store)
    moments = [None, NOW - 12 * 3600, NOW - 3 * DAY, NOW - 60 * DAY]
    for _ in range(40):
        days = [TODAY - rng.choice([0, 0, 0, 1, 2, 5, 7, 8, 60, 63]) for _ in range(rng.randrange(4))]
        await store.add([sold(f"a{rng.randrange(30)}", day, rng.choice([1, 1, 2, -1])) for day in days])
        time.pass_by(1.0)
        at = rng.choice(moments)
        seen, expected = await trends.snapshot(at), await time.trends(store).snapshot(at)
        assert seen.sales == expected.sales
        assert seen.article_ids == expected.article_ids
        np.testing.assert_array_equal(seen.scores, expected.scores)


class Losing(MemoryTrendStore):
    """Is away for some days' sales."""

    def __init__(self):
        super().__init__()
        self.away: set[int] = set()

    async def changes(self, day, since):
        if day in self.away:
            raise StoreUnavailable("away")
        return await super().changes(day, since)


async def test_what_was_read_before_the_store_went_away_is_not_lost():
    store, time = Losing(), Time()
    trends = time.trends(store)
    await store.add([sold("a", TODAY), sold("b", TODAY - 1)])
    await trends.snapshot()
    await store.add([sold("a", TODAY), sold("b", TODAY - 1), sold("c", TODAY - 1)])
    store.away = {TODAY}  # read after yesterday
    time.pass_by(1.0)
    assert (await trends.snapshot()).sales == {"a": 1.0, "b": 1.0}
    store.away = set()
    time.pass_by(1.0)
    await trends.snapshot()  # reads behind the answer's back
    await asyncio.sleep(0.1)
    assert (await trends.snapshot()).sales == {"a": 2.0, "b": 2.0, "c": 1.0}


async def test_todays_sales_trend_and_last_weeks_have_gone(store):
    await store.add([sold("today", TODAY, 3), sold("recent", TODAY - 6, 2), sold("old", TODAY - 8, 50)])
    snapshot = await Time().trends(store).snapshot()
    assert snapshot.article_ids == ("today", "recent")


async def test_a_shop_whose_data_ended_long_ago_still_has_a_trend(store):
    await store.add([sold("last", TODAY - 1_000), sold("before", TODAY - 1_010)])
    assert (await Time().trends(store).snapshot()).sales == {"last": 1.0}


async def test_the_past_is_seen_as_it_was_then(store):
    await store.add([sold("then", TODAY - 30), sold("later", TODAY - 20), sold("now", TODAY)])
    trends = Time().trends(store)
    assert (await trends.snapshot((TODAY - 29) * DAY)).sales == {"then": 1.0}
    assert (await trends.snapshot((TODAY - 23) * DAY)).sales == {"then": 1.0}
    assert (await trends.snapshot((TODAY - 20) * DAY + 12 * 3600)).sales == {"later": 0.5}
    assert (await trends.snapshot((TODAY - 40) * DAY)).sales == {}


async def test_the_past_changes_when_its_sales_do(store):
    trends = Time().trends(store)
    await store.add([sold("a", TODAY - 30)])
    first = await trends.snapshot((TODAY - 29) * DAY)
    assert await trends.snapshot((TODAY - 29) * DAY) is first
    await store.add([sold("late", TODAY - 30, 2)])
    assert (await trends.snapshot((TODAY - 29) * DAY)).article_ids == ("late", "a")


async def test_another_workers_sale_counts_within_a_second(store):
    time = Time()
    one, other = time.trends(store), time.trends(store)
    assert (await one.snapshot()).sales == {}
    assert (await other.snapshot()).sales == {}
    await store.add([sold("a", TODAY)])
    time.pass_by(1.0)
    assert (await one.snapshot()).sales == {"a": 1.0}
    assert (await other.snapshot()).sales == {"a": 1.0}


async def test_the_trend_stays_the_same_object_while_nothing_sells(store):
    time = Time()
    trends = time.trends(store)
    await store.add([sold("a", TODAY)])
    first = await trends.snapshot()
    time.pass_by(5.0)
    assert await trends.snapshot() is first


class Counting(MemoryTrendStore):
    """Counts its readers, and is away when told."""

    def __init__(self):
        super().__init__()
        self.reads, self.away = 0, False

    async def newest_day(self, until):
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        return await super().newest_day(until)


async def test_many_answers_at_once_read_once():
    store, time = Counting(), Time()
    trends = time.trends(store)
    await asyncio.gather(*(trends.snapshot() for _ in range(50)))
    assert store.reads == 1


async def test_while_the_store_is_away_the_last_trend_stays_and_answers_do_not_wait():
    store, time = Counting(), Time()
    trends = time.trends(store)
    await store.add([sold("a", TODAY)])
    first = await trends.snapshot()
    store.away = True
    for _ in range(3):
        time.pass_by(60.0)
        assert await trends.snapshot() is first
        await asyncio.sleep(0.01)
    with pytest.raises(StoreUnavailable):
        await trends.snapshot(NOW)
    store.away = False
    await store.add([sold("b", TODAY, 2)])
    time.pass_by(60.0)
    await trends.snapshot()
    await asyncio.sleep(0.05)
    time.pass_by(60.0)
    assert (await trends.snapshot()).article_ids == ("b", "a")


class Halting(MemoryTrendStore):
    """Does not answer any more when told, and notes whether it was waited for to the end."""

    def __init__(self):
        super().__init__()
        self.halts = self.cancelled = False
        self.reading = asyncio.Event()

    async def newest_day(self, until):
        if self.halts:
            self.reading.set()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return await super().newest_day(until)


async def test_closed_it_reads_nothing_more():
    store, time = Halting(), Time()
    trends = time.trends(store)
    await trends.snapshot()
    time.pass_by((REFRESH + STALE) / 2)
    store.halts = True
    await trends.snapshot()  # which begins to read, and does not wait for that
    await store.reading.wait()
    await trends.aclose()
    assert store.cancelled
    await time.trends(store).aclose()  # of which nothing was asked


async def test_a_trend_is_empty_where_the_store_was_away_from_the_start():
    with running_server() as url:
        pass
    client = connect(url)
    assert (await Time().trends(RedisTrendStore(client)).snapshot()).sales == {}
    with pytest.raises(StoreUnavailable):
        await RedisTrendStore(client).add([sold("a", 1)])
    await client.aclose()
