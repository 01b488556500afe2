from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle
from PIL import Image
from redis_server import empty_server, redis_url

import modiste
from model_store.article_table import load_articles
from model_store.bundle import Bundle
from model_store.dataset import DataSet, DataSetFile, write_data_set_file
from model_store.records import Event
from model_store.tables import ARTICLES, AVAILABILITY, EVENTS, TableWriter
from service import backfill
from service.backfill import EventTable, Filled, fill_catalogue, fill_customers
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.memory_store import MemoryCatalogue
from service.catalogue.records import StockLevel
from service.catalogue.store import CatalogueStore
from service.commands.backfill import redis_url as chosen_url
from service.engine.style import StyleModel, bundle_stamp
from service.events import EventRecorder
from service.settings import Settings
from service.state.connection import connect
from service.state.customer import SESSION_LENGTH
from service.state.memory_store import MemoryStore
from service.state.redis_store import RedisStore
from service.state.store import CustomerStore
from service.trend_store import MemoryTrendStore

__all__ = ["redis_url"]

START, DAY, NOW = 1_770_000_000, 86_400, 1_780_000_000
CUSTOMERS = ["anna", "{b}", "日本", "clicks only", "bought once"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles"), articles=12)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> StyleModel:
    ids, _, dna = load_articles(bundle)
    return StyleModel.of_bundle(bundle, dict(zip(ids, dna, strict=True)).get)


def rows_of_events(seed: int = 0, count: int = 600) -> list[dict[str, Any]]:
    """Purchases, returns, clicks and searches, in no order, some at one time; the last two customers have one kind."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        customer = CUSTOMERS[int(rng.integers(4))]
        kind = "click" if customer == "clicks only" else str(rng.choice(["purchase", "click", "search", "return"]))
        row = {"event_id": f"é{index}", "customer_id": customer, "type": kind}
        row |= {"query": f"red {index}"} if kind == "search" else {"article_id": f"a{rng.integers(12):03}"}
        row |= {"timestamp": START + int(rng.integers(40)) * DAY}
        row |= {"order_id": f"o{rng.integers(9)}"} if kind in {"purchase", "return"} and rng.random() < 0.5 else {}
        row |= {"position": int(rng.integers(1, 9))} if kind == "click" and rng.random() < 0.5 else {}
        rows.append(row)
    rows.append(
        {"event_id": "x", "customer_id": "bought once", "type": "purchase", "article_id": "a003", "timestamp": START}
    )
    return rows


def write_shop(folder: Path, rows: list[dict[str, Any]]) -> DataSet:
    """Twelve articles, the last one out of stock at the end, the first one with a picture."""
    folder.mkdir()
    content = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(content, "PNG")
    (folder / "red.png").write_bytes(content.getvalue())
    names = [f"a{index:03}" for index in range(12)]
    write_data_set_file(folder, DataSetFile(name="tiny"))
    with TableWriter(folder, ARTICLES) as writer:
        writer.write(
            {
                "article_id": names,
                "title": names,
                "category": ["dress"] * 12,
                "image": ["red.png", *[None] * 11],
            }
        )
    with TableWriter(folder, AVAILABILITY) as writer:
        writer.write({"article_id": names, "from": [START] * 12, "to": [None] * 11 + [START + DAY]})
    with TableWriter(folder, EVENTS) as writer:
        writer.write({name: [row.get(name) for row in rows] for name in EVENTS.schema.names})
    return DataSet.open(folder)


@pytest.fixture
def shop(tmp_path: Path) -> DataSet:
    return write_shop(tmp_path / "shop", rows_of_events())


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CustomerStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    client = connect(request.getfixturevalue("redis_url"), timeout=10)
    yield RedisStore(client)
    await client.aclose()


@dataclass
class Trend(MemoryTrendStore):
    """A trend store that also adds up what it was told. ``down`` makes it fail."""

    sold: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    async def add(self, sales: Any) -> None:
        for sale in sales:
            self.sold[sale.article_id, sale.timestamp] += sale.change
        await super().add(sales)

    @property
    def counts(self) -> dict[tuple[str, int], int]:
        return {key: count for key, count in self.sold.items() if count}


async def fill(
    shop: DataSet, store: CustomerStore, model: StyleModel, trend: Trend, catalogue: CatalogueStore | None = None
) -> Filled:
    done: list[int] = []
    filled = await fill_customers(shop, store, catalogue or MemoryCatalogue(), trend, model, done.append)
    assert sum(done) == filled.read
    return filled


async def recorded(rows: list[dict[str, Any]], model: StyleModel) -> tuple[MemoryStore, Trend]:
    """The same events, one by one, as they would arrive over HTTP."""
    store, trend = MemoryStore(), Trend()
    recorder = EventRecorder(store, lambda: NOW, lambda _: True, trend.add)
    for row in rows:
        assert (await recorder.record(model, [row])).accepted == 1
    return store, trend


async def assert_equal(store: CustomerStore, other: CustomerStore, customer_id: str, model: StyleModel) -> None:
    by_id = lambda event: event.event_id  # noqa: E731
    log, other_log = await store.read_log(customer_id), await other.read_log(customer_id)
    assert sorted(log.events, key=by_id) == sorted(other_log.events, key=by_id)
    view, other_view = await store.read(customer_id), await other.read(customer_id)
    assert view.session == other_view.session
    if not log.events:
        assert view.state is None
        return
    assert view.state is not None
    assert view.revision == log.revision
    assert model.fits(view.state)
    expected = model.replay(other_log.events)
    np.testing.assert_allclose(view.state.hidden, expected.hidden, atol=1e-5)
    np.testing.assert_allclose(view.state.cell, expected.cell, atol=1e-5)
    assert (view.state.pending, view.state.purchased, view.state.returned, view.state.consumed) == (
        expected.pending, expected.purchased, expected.returned, expected.consumed
    )  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 150, 10_000])
async def test_in_bulk_or_one_by_one_comes_to_the_same(
    shop: DataSet, store: CustomerStore, model: StyleModel, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "EVENTS_AT_ONCE", chunk)
    rows, trend = rows_of_events(), Trend()
    filled = await fill(shop, store, model, trend)
    other, other_trend = await recorded(rows, model)
    for customer_id in CUSTOMERS:
        await assert_equal(store, other, customer_id, model)
    assert trend.counts == other_trend.counts
    assert (filled.read, filled.customers) == (len(rows), len(CUSTOMERS))


async def test_a_second_run_adds_nothing(shop: DataSet, store: CustomerStore, model: StyleModel) -> None:
    trend = Trend()
    first = await fill(shop, store, model, trend)
    assert first.added == len([row for row in rows_of_events() if row["type"] in {"purchase", "return"}])
    before, counts = await store.read_log("anna"), dict(trend.counts)
    second = await fill(shop, store, model, trend)
    assert (second.read, second.added) == (first.read, 0)
    assert (await store.read_log("anna")).revision == before.revision
    assert trend.counts == counts


async def test_what_was_there_before_stays_and_counts(shop: DataSet, store: CustomerStore, model: StyleModel) -> None:
    rows = rows_of_events()
    late = {"event_id": "live", "type": "purchase", "customer_id": "anna", "article_id": "a007", "timestamp": NOW}
    taken_back = {**late, "event_id": "back", "type": "return", "article_id": "a001"}
    trend = Trend()
    recorder = EventRecorder(store, lambda: NOW, lambda _: True, trend.add)
    await recorder.record(model, [late, taken_back, rows[0], rows[1]])
    await fill(shop, store, model, trend)
    other, other_trend = await recorded([*rows, late, taken_back], model)
    for customer_id in CUSTOMERS:
        await assert_equal(store, other, customer_id, model)
    assert trend.counts == other_trend.counts


async def test_interrupted_it_ends_its_chunk_and_the_next_run_completes(
    shop: DataSet, model: StyleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "EVENTS_AT_ONCE", 100)

    class Slow(MemoryStore):
        async def append_many(self, additions: Any) -> Any:
            appended = await super().append_many(additions)
            running.cancel()
            await asyncio.sleep(0)
            return appended

    store, trend = Slow(), Trend()
    running = asyncio.ensure_future(fill(shop, store, model, trend))
    with pytest.raises(asyncio.CancelledError):
        await running
    first = trend.counts
    assert first
    assert len(trend.sold) < len({(row.get("article_id"), row["timestamp"]) for row in rows_of_events()})
    monkeypatch.setattr(Slow, "append_many", MemoryStore.append_many)
    await fill(shop, store, model, trend)
    other, other_trend = await recorded(rows_of_events(), model)
    assert trend.counts == other_trend.counts
    for customer_id in CUSTOMERS:
        await assert_equal(store, other, customer_id, model)


def test_only_what_a_session_can_keep_is_offered(tmp_path: Path) -> None:
    """A customer with 120 clicks: 40 at the very time of the oldest that is kept, all of which may be among the 50."""
    rows = [
        {
            "event_id": f"c{index:03}",
            "customer_id": "c",
            "type": "click",
            "article_id": "a001",
            "timestamp": START + (0 if index < 50 else DAY if index < 90 else 2 * DAY + index),
        }
        for index in range(120)
    ]
    events = EventTable(write_shop(tmp_path / "shop", rows))
    (chunk,) = events.chunks(1000)
    offered = events.by_customer(chunk.rows)["c"]
    assert chunk.read == 120
    assert len(offered) == 70
    assert {event.timestamp for event in offered if event.timestamp < START + 2 * DAY} == {START + DAY}
    assert len(offered) > SESSION_LENGTH


def test_events_come_out_of_the_table_as_they_went_in(shop: DataSet) -> None:
    events = EventTable(shop)
    out = {}
    for chunk in events.chunks(100):
        for customer_id, own in events.by_customer(chunk.rows).items():
            out |= {event.event_id: event for event in own}
            assert {event.customer_id for event in own} == {customer_id}
    expected = {row["event_id"]: Event.model_validate(row) for row in rows_of_events()}
    logged = {key for key, event in expected.items() if event.type in {"purchase", "return"}}
    assert logged <= out.keys()
    assert out == {key: expected[key] for key in out}


async def test_the_catalogue_is_written_once_with_its_stock(shop: DataSet, bundle: Bundle) -> None:
    store, encoder = MemoryCatalogue(), CatalogueEncoder(bundle)
    done: list[int] = []
    first = await fill_catalogue(shop, store, encoder, done.append)
    assert (first.written, first.refused, sum(done)) == (12, {}, 12)
    entries = await store.read(shop.article_ids, bundle_stamp(bundle.manifest))
    assert [entry is not None and entry.in_stock for entry in entries] == [True] * 11 + [False]
    for entry in entries:
        assert entry is not None
        np.testing.assert_array_equal(entry.dna, first.dna[entry.article.article_id])

    await store.set_stock([StockLevel("a000", 0, shop.last_event + 1)])
    position = await store.position()
    second = await fill_catalogue(shop, store, encoder, done.append)
    assert second.written == 0
    assert second.dna.keys() == first.dna.keys()
    (entry,) = await store.read(["a000"], bundle_stamp(bundle.manifest))
    assert entry is not None
    assert not entry.in_stock, "stock of a later time was overwritten"
    assert set((await store.changes(position, 0)).article_ids) <= set(shop.article_ids)


async def test_what_histories_hold_is_remembered_when_it_is_deleted(
    shop: DataSet, bundle: Bundle, model: StyleModel
) -> None:
    catalogue = MemoryCatalogue(kept_unheld=0)
    await fill_catalogue(shop, catalogue, CatalogueEncoder(bundle), lambda _: None)
    await fill(shop, MemoryStore(), model, Trend(), catalogue)
    for article_id in shop.article_ids:
        await catalogue.delete(article_id)
    read = await catalogue.read(shop.article_ids, "any")
    remembered = {article_id for article_id, entry in zip(shop.article_ids, read, strict=True) if entry is not None}
    assert remembered == {event["article_id"] for event in rows_of_events() if event["type"] in {"purchase", "return"}}


async def test_a_deleted_article_comes_back(shop: DataSet, bundle: Bundle) -> None:
    store, encoder = MemoryCatalogue(), CatalogueEncoder(bundle)
    await fill_catalogue(shop, store, encoder, lambda _: None)
    await store.delete("a004")
    assert (await fill_catalogue(shop, store, encoder, lambda _: None)).written == 1
    assert await store.count() == 12


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MODISTE_STORE", str(bundle.folder.parent))
    monkeypatch.setenv("MODISTE_REDIS_URL", empty_server())
    return monkeypatch


def test_the_command_loads_everything_and_says_so(
    shop: DataSet, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert modiste.main(["backfill", "--data", str(shop.folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "12 articles, 12 of them new or changed"
    assert told[1].startswith("601 events of 5 customers in ")
    assert modiste.main(["backfill", "--data", str(shop.folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "12 articles, 0 of them new or changed"
    assert told[1].endswith(", 0 purchases and returns new")


def test_the_command_says_what_is_missing(
    shop: DataSet, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def complaint(*arguments: str) -> str:
        assert modiste.main(["backfill", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "none.parquet" not in complaint("--data", str(tmp_path / "none"))
    environment.setenv("MODISTE_REDIS_URL", f"unix://{tmp_path}/none.sock")
    assert "the store did not answer" in complaint("--data", str(shop.folder))
    environment.setenv("MODISTE_REDIS_URL", empty_server())
    environment.setenv("MODISTE_STORE", str(tmp_path / "bundles"))
    assert "has no live bundle; make one with 'modiste train'" in complaint("--data", str(shop.folder))


def test_without_a_setting_the_embedded_redis_of_a_running_service_is_filled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings.from_environment({})
    monkeypatch.setattr("service.embedded.live_url", lambda: None)
    with pytest.raises(Exception, match="MODISTE_REDIS_URL is not set and no service with an embedded Redis runs here"):
        chosen_url(settings)
    monkeypatch.setattr("service.embedded.live_url", lambda: "unix:///x.sock")
    assert chosen_url(settings) == "unix:///x.sock"
    assert chosen_url(Settings.from_environment({"MODISTE_REDIS_URL": "redis://h:1"})) == "redis://h:1"
