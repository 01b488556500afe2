from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from redis_server import redis_url, running_server

from model_store.article_table import load_articles
from service.engine.style import StyleModel
from service.errors import StoreUnavailable
from service.events import DAY, EventRecorder, EventsAnswer, Rejection, Sale
from service.generation.records import GenerationRequest
from service.state.connection import connect
from service.state.memory_store import MemoryStore
from service.state.redis_store import RedisStore
from service.state.store import CustomerStore

__all__ = ["redis_url"]

NOW = 1_780_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StyleModel:
    bundle = make_bundle(tmp_path_factory.mktemp("bundles"), articles=12)
    ids, _, dna = load_articles(bundle)
    return StyleModel.of_bundle(bundle, dict(zip(ids, dna, strict=True)).get)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CustomerStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    client = connect(request.getfixturevalue("redis_url"), timeout=10)
    yield RedisStore(client)
    await client.aclose()


class Shop:
    """A recorder, with what it told about sales. ``articles`` may be changed."""

    def __init__(self, store: CustomerStore, model: StyleModel):
        self.store, self.model = store, model
        self.articles = {f"a{number:03}" for number in range(12)}
        self.sales: list[Sale] = []
        self.scheduled: list[list[str]] = []
        self._ids: Iterator[int] = iter(range(10**6))
        self.recorder = EventRecorder(
            store,
            lambda: NOW,
            lambda article_id: article_id in self.articles,
            self._sold,
            lambda: f"made {next(self._ids)}",
            self._schedule,
            look_up=self._look_up,
        )
        self.elsewhere: set[str] = set()
        """Articles that another worker was given, of which this one has not heard."""
        self.looked_up: list[Sequence[str]] = []

    async def _look_up(self, article_ids: Sequence[str]) -> None:
        self.looked_up.append(article_ids)
        self.articles |= self.elsewhere.intersection(article_ids)

    async def _sold(self, sales: Sequence[Sale]) -> None:
        self.sales += sales

    async def _schedule(self, requests: Sequence[GenerationRequest]) -> None:
        for request in requests:  # after it was stored, never before
            view, log = await self.store.read(request.customer_id), await self.store.read_log(request.customer_id)
            assert view.session or log.events
        self.scheduled.append([request.customer_id for request in requests])

    async def record(self, *raw: Any) -> EventsAnswer:
        return await self.recorder.record(self.model, raw)

    async def state_fits(self, customer_id: str) -> None:
        view, log = await self.store.read(customer_id), await self.store.read_log(customer_id)
        assert view.state is not None
        assert view.revision == log.revision
        whole = self.model.replay(log.events)
        np.testing.assert_allclose(view.state.hidden, whole.hidden, atol=1e-4)
        assert (view.state.pending, view.state.purchased, view.state.returned) == (
            whole.pending, whole.purchased, whole.returned
        )  # fmt: skip


@pytest.fixture
def shop(store: CustomerStore, model: StyleModel) -> Shop:
    return Shop(store, model)


def purchase(number: int = 1, **changes: Any) -> dict[str, Any]:
    event = {"event_id": f"e{number}", "type": "purchase", "customer_id": "c", "article_id": f"a{number % 12:03}"}
    return {**event, "timestamp": NOW - 1000 + number, **changes}


async def test_what_is_accepted_is_read_back_at_once(shop: Shop) -> None:
    search = {"event_id": "s", "type": "search", "customer_id": "c", "query": "red dress"}
    answer = await shop.record(purchase(1), purchase(2, type="click"), search, purchase(3, customer_id="d"))
    assert answer == EventsAnswer(4, 0, ())
    view = await shop.store.read("c")
    assert [event.event_id for event in view.session] == ["e2", "s"]
    assert {event.event_id for event in (await shop.store.read_log("c")).events} == {"e1"}
    await shop.state_fits("c")
    await shop.state_fits("d")


async def test_id_and_time_are_made_where_they_are_missing(shop: Shop) -> None:
    bare = {"type": "purchase", "customer_id": "c", "article_id": "a001"}
    assert (await shop.record(bare, {**bare, "event_id": None, "timestamp": None})).accepted == 2
    events = (await shop.store.read_log("c")).events
    assert {(event.event_id, event.timestamp) for event in events} == {("made 0", NOW), ("made 1", NOW)}


async def test_times_are_iso_8601_or_unix_seconds_and_kept_as_utc(shop: Shop) -> None:
    await shop.record(purchase(1, timestamp="2026-05-28T22:26:40+02:00"), purchase(2, timestamp=NOW + 0.9))
    assert [event.timestamp for event in (await shop.store.read_log("c")).events] == [NOW, NOW]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (purchase(1, article_id="none"), ("unknown_article", "article_id")),
        (purchase(1, type="click", article_id="none"), ("unknown_article", "article_id")),
        (purchase(1, type="return", article_id="none"), ("unknown_article", "article_id")),
        (purchase(1, timestamp=NOW + DAY + 1), ("timestamp_in_future", "timestamp")),
        (purchase(1, timestamp=-1), ("invalid_event", "timestamp")),
        (purchase(1, timestamp="yesterday"), ("invalid_event", "timestamp")),
        (purchase(1, timestamp=float("nan")), ("invalid_event", "timestamp")),
        (purchase(1, type="view"), ("invalid_event", "type")),
        (purchase(1, customer_id=""), ("invalid_event", "customer_id")),
        (purchase(1, customer_id="a\0b"), ("invalid_event", "customer_id")),
        (purchase(1, customer_id=7), ("invalid_event", "customer_id")),
        (purchase(1, article_id=None), ("invalid_event", "article_id")),
        (purchase(1, type="search"), ("invalid_event", "query")),
        (purchase(1, colour="red"), ("invalid_event", "colour")),
        (purchase(1, position=0), ("invalid_event", "position")),
        ({}, ("invalid_event", "type")),
        (None, ("invalid_event", None)),
        ("purchase", ("invalid_event", None)),
        ([purchase(1)], ("invalid_event", None)),
    ],
)
async def test_what_is_at_fault_is_rejected_by_index_and_nothing_else_is(
    shop: Shop, raw: Any, expected: tuple[str, str | None]
) -> None:
    answer = await shop.record(purchase(8), raw, purchase(9))
    assert (answer.accepted, answer.duplicates) == (2, 0)
    (rejection,) = answer.rejected
    assert (rejection.index, rejection.type, rejection.field) == (1, *expected)
    assert rejection.message
    assert len((await shop.store.read_log("c")).events) == 2


async def test_a_day_ahead_is_still_allowed(shop: Shop) -> None:
    assert (await shop.record(purchase(1, timestamp=NOW + DAY))).accepted == 1


async def test_articles_that_another_worker_was_just_given_are_looked_up_once(shop: Shop) -> None:
    shop.elsewhere = {"new", "newer"}
    raw = [purchase(1), purchase(2, article_id="new"), purchase(3, article_id="none")]
    raw += [purchase(4, article_id="newer", event_id=None), purchase(5, article_id="new"), {"type": "search"}]
    answer = await shop.record(*raw)
    assert shop.looked_up == [["new", "newer", "none"]]
    assert answer.accepted == 4
    assert [(each.index, each.type) for each in answer.rejected] == [(2, "unknown_article"), (5, "invalid_event")]
    await shop.record(purchase(6))
    assert len(shop.looked_up) == 1, "what is known is not looked up"


async def test_a_rejected_event_can_be_sent_again_under_its_id(shop: Shop) -> None:
    shop.articles.discard("a001")
    rejection = (await shop.record(purchase(1))).rejected[0]
    assert rejection == Rejection(
        0,
        "unknown_article",
        "article 'a001' is not in the catalogue: put it there, then send the event again",
        "article_id",
    )
    shop.articles.add("a001")
    assert (await shop.record(purchase(1))).accepted == 1


async def test_repeats_are_counted_and_change_nothing(shop: Shop) -> None:
    once = [purchase(1), purchase(2, type="click"), purchase(3)]
    assert await shop.record(*once, *once) == EventsAnswer(3, 3, ())
    before = await shop.store.read_log("c")
    assert await shop.record(*once) == EventsAnswer(0, 3, ())
    assert await shop.record(purchase(3)) == EventsAnswer(0, 1, ())
    assert await shop.record(purchase(4), purchase(1, article_id="a009")) == EventsAnswer(1, 1, ())
    assert (await shop.store.read_log("c")).revision == before.revision.after(1)
    await shop.state_fits("c")
    assert len(shop.sales) == 3


async def test_one_event_id_of_two_customers_is_two_events(shop: Shop) -> None:
    assert (await shop.record(purchase(1), purchase(1, customer_id="d"))).accepted == 2


async def test_the_order_within_a_call_does_not_matter(shop: Shop) -> None:
    events = [purchase(number, timestamp=NOW - number * 977 % 5000) for number in range(1000)]
    assert await shop.record(*events[:500]) == EventsAnswer(500, 0, ())
    assert await shop.record(*reversed(events)) == EventsAnswer(500, 500, ())
    await shop.state_fits("c")
    assert len(shop.sales) == 1000


async def test_a_call_may_hold_a_thousand_customers(shop: Shop) -> None:
    events = [purchase(number, customer_id=f"customer {number}") for number in range(1000)]
    assert await shop.record(*events) == EventsAnswer(1000, 0, ())
    assert await shop.record(
        *(purchase(number + 1000, customer_id=f"customer {number}") for number in range(1000))
    ) == (EventsAnswer(1000, 0, ()))
    for number in (0, 500, 999):
        await shop.state_fits(f"customer {number}")


async def test_sales_follow_what_was_kept(shop: Shop) -> None:
    await shop.record(purchase(1))
    await shop.record(purchase(2, type="click"))
    assert shop.sales == [Sale("a001", NOW - 999, 1)]
    await shop.record(purchase(3, type="return", article_id="a001"), purchase(4))
    assert sorted(shop.sales[1:]) == [Sale("a001", NOW - 999, -1), Sale("a004", NOW - 996, 1)]
    await shop.record(purchase(5, type="return", article_id="a001"))
    await shop.record(purchase(1))
    assert len(shop.sales) == 3


async def test_a_return_that_comes_before_its_purchase_takes_it_out(shop: Shop) -> None:
    await shop.record(purchase(1))
    await shop.record(purchase(9, type="return", article_id="a002"))
    await shop.record(purchase(2))
    await shop.state_fits("c")
    assert [purchase.article_id for purchase in shop.sales] == ["a001"]
    view = await shop.store.read("c")
    assert view.state is not None
    assert (view.state.purchased, view.state.returned) == (("a001",), ("a002",))


async def test_calls_at_once_all_count(shop: Shop) -> None:
    """Forty calls for one customer: whatever state is left, it fits the log."""
    answers = await asyncio.gather(*(shop.record(purchase(number), purchase(number + 40)) for number in range(40)))
    assert sum(answer.accepted for answer in answers) == 80
    assert (await shop.store.read_log("c")).revision.entries == 80
    await shop.record(purchase(99))
    await shop.state_fits("c")
    assert sum(sale.change for sale in shop.sales) == 81


async def test_a_repeat_at_once_counts_once(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.record(purchase(1)) for _ in range(30)))
    assert sum(answer.accepted for answer in answers) == 1
    assert sum(answer.duplicates for answer in answers) == 29
    assert len(shop.sales) == 1


class Failing(MemoryStore):
    """A store that fails at its n-th call of ``append_many``, before or after having done as it was told."""

    def __init__(self, at: int, after: bool):
        super().__init__()
        self.at, self.after = at, after

    async def append_many(self, additions: Any) -> Any:
        self.at -= 1
        if self.at == 0 and not self.after:
            raise StoreUnavailable("down", "unreachable")
        appended = await super().append_many(additions)
        if self.at == 0:
            raise StoreUnavailable("down", "unreachable")
        return appended


@pytest.mark.parametrize("after", [False, True])
async def test_a_store_that_fails_part_way_loses_nothing_and_a_retry_completes(model: StyleModel, after: bool) -> None:
    shop = Shop(Failing(2, after), model)
    events = [purchase(number, customer_id=f"customer {number}") for number in range(200)]
    with pytest.raises(StoreUnavailable):
        await shop.record(*events)
    stored = 128 if after else 64
    assert len(shop.sales) == 64
    assert await shop.record(*events) == EventsAnswer(200 - stored, stored, ())


async def test_a_store_that_is_down_acknowledges_nothing(model: StyleModel) -> None:
    with running_server() as url:
        shop = Shop(RedisStore(client := connect(url)), model)
        await shop.record(purchase(1))
    for event in (purchase(2), purchase(3, type="click")):
        with pytest.raises(StoreUnavailable):
            await shop.record(event)
    assert (await shop.record({"type": "purchase"})).accepted == 0
    assert len(shop.sales) == 1
    await client.aclose()


async def test_sales_that_cannot_be_told_do_not_undo_what_is_stored(
    model: StyleModel, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(sales: Sequence[Sale]) -> None:
        raise StoreUnavailable("down")

    recorder = EventRecorder(MemoryStore(), lambda: NOW, lambda _: True, fail)
    assert (await recorder.record(model, [purchase(1)])).accepted == 1
    assert "1 sales were stored, but do not count as trending: down" in caplog.text


async def test_articles_are_held_before_a_history_holds_them(model: StyleModel) -> None:
    store, held, down = MemoryStore(), [], True

    async def hold(article_ids: Iterable[str]) -> None:
        if down:
            raise StoreUnavailable("down")
        held.append(set(article_ids))

    async def ignore(sales: Sequence[Sale]) -> None: ...

    recorder = EventRecorder(store, lambda: NOW, lambda _: True, ignore, hold=hold)
    events = [purchase(1), purchase(2, type="return"), purchase(3, type="click")]
    with pytest.raises(StoreUnavailable):
        await recorder.record(model, events)
    assert not (await store.read_log("c")).events
    down = False
    await recorder.record(model, events)
    assert held == [{events[0]["article_id"], events[1]["article_id"]}]


@pytest.mark.parametrize("kind", ["purchase", "click", "search", "return"])
async def test_whatever_happens_asks_for_a_generation(shop: Shop, kind: str) -> None:
    subject = {"article_id": None, "query": "red dress"} if kind == "search" else {}
    assert (await shop.record(purchase(1, type=kind, **subject))).accepted == 1
    assert shop.scheduled == [["c"]]


async def test_a_call_asks_once_for_each_customer_to_whom_something_new_happened(shop: Shop) -> None:
    await shop.record(purchase(1), purchase(2), purchase(3, customer_id="d"), purchase(4, type="click"))
    assert [sorted(call) for call in shop.scheduled] == [["c", "d"]]
    await shop.record(purchase(1), purchase(5, customer_id="e"), {"type": "purchase"})
    assert shop.scheduled[1:] == [["e"]]
    await shop.record(purchase(1), purchase(4, type="click"))
    await shop.record()
    assert len(shop.scheduled) == 2


async def test_customers_who_are_stored_together_ask_together(shop: Shop) -> None:
    await shop.record(*(purchase(number, type="click", customer_id=f"customer {number}") for number in range(1000)))
    asked = [customer_id for call in shop.scheduled for customer_id in call]
    assert len(set(asked)) == len(asked) == 1000
    assert [len(call) for call in shop.scheduled] == 15 * [64] + [40]


class Counting(MemoryStore):
    """Notes how many customers each call reads and stores, and cannot read the log of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.read_at_once: list[int] = []
        self.stored_at_once: list[int] = []

    async def read_many(self, customer_ids: Any) -> Any:
        self.read_at_once.append(len(customer_ids))
        return await super().read_many(customer_ids)

    async def append_many(self, additions: Any) -> Any:
        self.stored_at_once.append(len(additions))
        return await super().append_many(additions)

    async def read_logs(self, customer_ids: Any) -> Any:
        if "unreadable" in customer_ids:
            raise StoreUnavailable("a newer release wrote it")
        return await super().read_logs(customer_ids)


async def test_calls_of_one_moment_share_a_read_and_a_write_and_each_hears_of_its_own_events(model: StyleModel) -> None:
    shop = Shop(store := Counting(), model)
    calls = [shop.record(purchase(number, customer_id=f"customer {number % 5}")) for number in range(6)]
    repeat = shop.record(purchase(3, customer_id="customer 3"), purchase(9, customer_id="customer 9"))
    answers = await asyncio.gather(*calls, repeat)
    assert answers == [EventsAnswer(1, 0, ())] * 6 + [EventsAnswer(1, 1, ())]
    assert store.stored_at_once == [6, 2]  # of one customer, one call after the other
    assert store.read_at_once == [6, 2]
    assert len(shop.sales) == 7


async def test_a_log_that_cannot_be_read_fails_its_own_customer_alone(model: StyleModel) -> None:
    shop = Shop(Counting(), model)
    calls = [shop.record(purchase(1, customer_id=name)) for name in ("anna", "unreadable", "ben")]
    anna, unreadable, ben = await asyncio.gather(*calls, return_exceptions=True)
    assert anna == ben == EventsAnswer(1, 0, ())
    assert isinstance(unreadable, StoreUnavailable)


@pytest.mark.parametrize("after", [False, True])
async def test_what_was_stored_before_the_store_failed_asks_too(model: StyleModel, after: bool) -> None:
    shop = Shop(Failing(2, after), model)
    with pytest.raises(StoreUnavailable):
        await shop.record(*(purchase(number, customer_id=f"customer {number}") for number in range(200)))
    assert [len(call) for call in shop.scheduled] == [64]


async def test_a_queue_that_is_away_does_not_undo_what_is_stored(
    model: StyleModel, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(requests: Sequence[GenerationRequest]) -> None:
        raise StoreUnavailable("down")

    async def ignore(sales: Sequence[Sale]) -> None: ...

    recorder = EventRecorder(MemoryStore(), lambda: NOW, lambda _: True, ignore, schedule=fail)
    assert (await recorder.record(model, [purchase(1)])).accepted == 1
    assert "events of 1 customers were stored, but ask for no generation: down" in caplog.text
