"""What is served equals the offline network, whatever happened on the way (issue 2, point 11).

The reference (``style_reference``) shares no code with the service.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis_server import empty_server
from style_reference import Served, expected_history, expected_style, served

from model_store.history import Purchase
from service.engine.style import StyleModel
from service.events import EventRecorder, Sale
from service.state.connection import connect
from service.state.customer import CustomerState
from service.state.memory_store import MemoryStore
from service.state.redis_store import RedisStore
from service.state.store import CustomerStore

NOW = 1_780_000_000
DAY = 86_400
ARTICLES = [f"a{index:03}" for index in range(4)]
CUSTOMERS = ["anna", "{b}"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Served]:
    """Three: two with other weights, and one that lacks two of the articles."""
    store = tmp_path_factory.mktemp("bundles")
    return [
        served(store, "one", 0, set()),
        served(store, "two", 1, set()),
        served(store, "three", 1, {"a001", "a002"}),
    ]


# The service ---------------------------------------------------------------------------------------------------------


async def current_state(store: CustomerStore, model: StyleModel, customer_id: str) -> CustomerState | None:
    """The state that a request would be answered from."""
    view = await store.read(customer_id)
    if view.state is not None and model.fits(view.state):
        return view.state
    log = await store.read_log(customer_id)
    if not log.events:
        return None
    state = model.replay(log.events)
    assert await store.put_state(customer_id, state, log.revision)
    return state


@dataclass
class World:
    """The service and the reference, side by side."""

    store: CustomerStore
    bundles: list[Served]
    live: Served
    events: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {each: {} for each in CUSTOMERS})
    sales: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = iter(range(10**6))
        self.recorder = EventRecorder(
            self.store, lambda: NOW, set(ARTICLES).__contains__, self._sold, lambda: f"made {next(ids)}"
        )

    async def _sold(self, sales: list[Sale]) -> None:
        for sale in sales:
            key = sale.article_id, sale.timestamp
            self.sales[key] = self.sales.get(key, 0) + sale.change

    async def record(self, raw: list[dict[str, Any]]) -> None:
        answer = await self.recorder.record(self.live.model, raw)
        new = 0
        for event in raw:
            known = self.events[event["customer_id"]]
            if event["event_id"] not in known:
                known[event["event_id"]] = event
                new += 1
        assert (answer.accepted, answer.duplicates, answer.rejected) == (new, len(raw) - new, ())

    async def switch(self, index: int) -> None:
        self.live = self.bundles[index]

    async def erase(self, customer_id: str) -> None:
        assert await self.store.erase(customer_id) == bool(self.events[customer_id])
        history, _ = expected_history(self.events[customer_id])
        for purchase in history:  # what was sold stays sold
            self.sales[purchase["article_id"], purchase["timestamp"]] -= 1
        self.events[customer_id] = {}

    async def look(self, customer_id: str, at: int) -> None:
        history, returned = expected_history(self.events[customer_id])
        state = await current_state(self.store, self.live.model, customer_id)
        style = self.live.model.style(state, at)
        np.testing.assert_allclose(style, expected_style(self.live, history, at), atol=1e-4, rtol=0)
        if state is None:
            assert not self.events[customer_id]
            return
        bought = {purchase["article_id"] for purchase in history}
        known = [purchase["article_id"] for purchase in history if purchase["article_id"] in self.live.dna]
        latest = list(dict.fromkeys(reversed(known)))[::-1]  # distinct, in order of their latest purchase
        assert list(state.purchased) == [*sorted(bought - self.live.dna.keys()), *latest]
        assert set(state.returned) == returned
        assert set(state.skipped) == bought - self.live.dna.keys()
        assert state.consumed == max(sum(p["article_id"] in self.live.dna for p in history) - 1, 0)

    def look_at_sales(self) -> None:
        expected: dict[tuple[str, int], int] = {}
        for events in self.events.values():
            for purchase in expected_history(events)[0]:
                key = purchase["article_id"], purchase["timestamp"]
                expected[key] = expected.get(key, 0) + 1
        assert {key: count for key, count in self.sales.items() if count} == expected


TIMES = st.one_of(st.integers(0, 6).map(lambda day: NOW - day * 80 * DAY), st.integers(NOW - 500 * DAY, NOW + DAY))


@st.composite
def raw_events(draw: st.DrawFn) -> dict[str, Any]:
    event = {
        "event_id": f"e{draw(st.integers(0, 30))}",
        "type": draw(st.sampled_from(["purchase", "purchase", "return"])),
        "customer_id": draw(st.sampled_from(["anna", "anna", "anna", "{b}"])),
        "article_id": draw(st.sampled_from(ARTICLES)),
        "timestamp": draw(TIMES),
    }
    order = draw(st.sampled_from([None, None, "o1", "o2"]))
    return event if order is None else {**event, "order_id": order}


ACTIONS = st.one_of(
    st.tuples(st.just("record"), st.lists(raw_events(), min_size=1, max_size=1)),
    st.tuples(st.just("record"), st.lists(raw_events(), min_size=1, max_size=8)),
    st.tuples(st.just("switch"), st.integers(0, 2)),
    st.tuples(st.just("look"), st.sampled_from(CUSTOMERS), TIMES),
    st.tuples(st.just("erase"), st.sampled_from(CUSTOMERS)),
)


def _raw(event_id: str, kind: str, article_id: str, days_ago: int) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "type": kind,
        "customer_id": "anna",
        "article_id": article_id,
        "timestamp": NOW - days_ago * DAY,
    }


RETURNED_BEFORE_IT_WAS_BOUGHT = [
    ("record", [_raw("e1", "purchase", "a000", 9)]),
    ("record", [_raw("e2", "return", "a001", 1)]),
    ("record", [_raw("e3", "purchase", "a001", 5)]),
    ("look", "anna", NOW),
]
"""The last purchase follows all others, so a step could take it, were it not for the return that waits for it."""


async def play(store: CustomerStore, bundles: list[Served], actions: list[tuple[Any, ...]]) -> None:
    world = World(store, bundles, bundles[0])
    for name, *arguments in actions:
        await getattr(world, name)(*arguments)
        world.look_at_sales()
    for customer_id in CUSTOMERS:
        await world.look(customer_id, NOW)
        await world.look(customer_id, NOW - 100 * DAY)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=14))
@example(actions=RETURNED_BEFORE_IT_WAS_BOUGHT)
def test_served_from_memory_equals_the_offline_network(bundles: list[Served], actions: list[tuple[Any, ...]]) -> None:
    asyncio.run(play(MemoryStore(), bundles, actions))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=14))
@example(actions=RETURNED_BEFORE_IT_WAS_BOUGHT)
def test_served_from_redis_equals_the_offline_network(bundles: list[Served], actions: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        client = connect(empty_server(), timeout=10)
        try:
            await play(RedisStore(client), bundles, actions)
        finally:
            await client.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("chunk", [1, 7, 200])
async def test_a_long_history_step_by_step_equals_the_network_at_once(
    bundles: list[Served], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding does not add up: 200 purchases, each by its own step through float32 memory in the store."""
    rng = np.random.default_rng(4)
    world = World(MemoryStore(), bundles, bundles[0])
    raw = [
        {
            "event_id": f"e{index}",
            "type": "purchase",
            "customer_id": "anna",
            "article_id": str(rng.choice(ARTICLES)),
            "timestamp": NOW - (200 - index) * 3 * DAY,
        }
        for index in range(200)
    ]
    await world.record(raw[:1])
    if chunk < 200:  # from here on every purchase follows its predecessor
        monkeypatch.setattr(StyleModel, "replay_many", _must_not_replay)
    for start in range(1, 200, chunk):
        await world.record(raw[start : start + chunk])
    await world.look("anna", NOW)


def _must_not_replay(_: StyleModel, logs: list[object]) -> list[CustomerState]:
    assert not logs, "a purchase in order was replayed"
    return []


async def test_bulk_replay_equals_single_replay(bundles: list[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.style.BATCH", 3)
    world = World(MemoryStore(), bundles, bundles[2])
    rng = np.random.default_rng(5)
    logs: list[Any] = [()]
    for size in [0, 1, 1, 2, 30, 3, 80, 5, 17, 17]:
        events = [
            {
                "event_id": f"e{index}",
                "type": "purchase" if rng.random() < 0.8 else "return",
                "customer_id": "anna",
                "article_id": str(rng.choice(ARTICLES)),
                "timestamp": NOW - int(rng.integers(0, 400 * DAY)),
            }
            for index in range(size)
        ]
        if size:
            await world.record(events)
        logs.append((await world.store.read_log("anna")).events)
        await world.erase("anna")
    model = bundles[2].model
    for bulk, log in zip(model.replay_many(logs), logs, strict=True):
        single = model.replay(log)
        np.testing.assert_allclose(bulk.hidden, single.hidden, atol=1e-5)
        np.testing.assert_allclose(bulk.cell, single.cell, atol=1e-5)
        assert (bulk.pending, bulk.consumed, bulk.purchased, bulk.returned, bulk.skipped) == (
            single.pending, single.consumed, single.purchased, single.returned, single.skipped
        )  # fmt: skip
    assert model.replay_many([]) == []
    asked = [(state, NOW + place) for place, state in enumerate([None, *model.replay_many(logs)])]
    for style, (state, at) in zip(model.styles(asked), asked, strict=True):
        np.testing.assert_allclose(style, model.style(state, at), atol=1e-5)


@pytest.mark.parametrize("bought", [[], ["a001"], ["a000"], ["a000", "a001", "a003", "a002", "a000"]])
def test_the_path_of_a_style_is_what_each_next_purchase_met(bundles: list[Served], bought: list[str]) -> None:
    three = bundles[2]  # which knows neither a001 nor a002
    times = [NOW - (20 - 3 * place) * DAY for place in range(len(bought))]
    history = [
        Purchase(time, str(place), article, None)
        for place, (article, time) in enumerate(zip(bought, times, strict=True))
    ]
    seen, styles = three.model.path(history, NOW)
    assert [purchase.article_id for purchase in seen] == [article for article in bought if article in three.dna]
    known = [{"article_id": purchase.article_id, "timestamp": purchase.timestamp} for purchase in seen]
    met = [*(purchase.timestamp for purchase in seen), NOW]
    assert len(styles) == len(met)
    for place, style in enumerate(styles):
        np.testing.assert_allclose(style, expected_style(three, known[:place], met[place]), atol=1e-5)


async def test_a_skipped_article_counts_once_its_dna_arrives(bundles: list[Served]) -> None:
    three = bundles[2]
    dna: dict[str, np.ndarray] = {article: three.dna[article] for article in ARTICLES if article in three.dna}
    model = StyleModel("v", three.model._graph, three.spec, dna.get)
    late = Served(model, three.network, three.spec, dna)
    world = World(MemoryStore(), [late], late)
    for index, article in enumerate(["a003", "a001", "a000", "a001"]):
        time = NOW - (9 - index) * DAY
        await world.record(
            [
                {
                    "event_id": str(index),
                    "type": "purchase",
                    "customer_id": "anna",
                    "article_id": article,
                    "timestamp": time,
                }
            ]
        )
        await world.look("anna", NOW)
    assert model.skipped >= 2
    view = await world.store.read("anna")
    assert view.state is not None
    assert view.state.skipped == ("a001",)
    dna["a001"] = bundles[1].dna["a001"]
    assert not model.fits(view.state)
    await world.look("anna", NOW)
