"""What every CatalogueStore must do."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from service.catalogue.records import StockLevel, StockOutcome
from service.catalogue.store import FIRST_PAGE, CatalogueStore, ChangesLost, Position

from .records import dna_of, stored

ODD_IDS = ["a b", "é/ü?", "{x}:y", "%41", "0", "🧥"]


async def everything(store: CatalogueStore, bundle: str = "b1"):
    entries, cursor = {}, FIRST_PAGE
    while cursor is not None:
        page = await store.page(cursor, bundle)
        entries.update({entry.article.article_id: entry for entry in page.entries})
        cursor = page.cursor
    return entries


async def read_one(store: CatalogueStore, article_id: str, bundle: str = "b1"):
    return (await store.read([article_id], bundle))[0]


async def test_an_article_comes_back_as_it_was_stored(store):
    article = stored("a", image=b"\x00\xff", price=9.99, tags=("x", "y"), materials={"Wool": 40.0}, created_at=5)
    await store.upsert([article], "b1", dna_of(0.5))
    entry = await read_one(store, "a")
    assert entry.article == article.article
    assert entry.fingerprint == article.fingerprint
    assert entry.live
    assert entry.dna.dtype == np.float32
    assert (entry.dna == 0.5).all()
    assert await store.read_images(["a", "unknown"]) == [b"\x00\xff", None]


@pytest.mark.parametrize("article_id", ODD_IDS)
async def test_ids_may_hold_anything(store, article_id):
    start = await store.position()
    await store.upsert([stored(article_id)], "b1", dna_of(1))
    assert await store.set_stock([StockLevel(article_id, 0, 10)]) == [StockOutcome.APPLIED]
    assert (await everything(store)).keys() == {article_id}
    assert (await store.changes(start, 0.1)).article_ids == (article_id,)
    assert await store.delete(article_id)


async def test_a_new_article_counts_as_in_stock_until_stock_says_otherwise(store):
    await store.upsert([stored("a")], "b1", dna_of(1))
    assert (await read_one(store, "a")).in_stock
    await store.set_stock([StockLevel("a", 0, 100)])
    assert not (await read_one(store, "a")).in_stock
    await store.upsert([stored("a", title="New")], "b1", dna_of(2))
    entry = await read_one(store, "a")
    assert not entry.in_stock
    assert entry.article.title == "New"
    assert entry.stock == StockLevel("a", 0, 100)


async def test_stale_stock_is_ignored_and_unknown_articles_are_named(store):
    await store.upsert([stored("a")], "b1", dna_of(1))
    outcomes = await store.set_stock(
        [
            StockLevel("a", 5, 200),
            StockLevel("a", 0, 199),
            StockLevel("nobody", 1, 200),
            StockLevel("a", 3, 200),
            StockLevel("a", 0, 250_000_000_000),
        ]
    )
    assert outcomes == [
        StockOutcome.APPLIED,
        StockOutcome.STALE,
        StockOutcome.UNKNOWN_ARTICLE,
        StockOutcome.APPLIED,
        StockOutcome.APPLIED,
    ]
    assert (await read_one(store, "a")).stock == StockLevel("a", 0, 250_000_000_000)


async def test_a_deleted_article_is_remembered_with_dna_and_picture(store):
    await store.upsert([stored("a", image=b"i")], "b1", dna_of(7))
    await store.set_stock([StockLevel("a", 5, 1)])
    assert await store.delete("a")
    assert not await store.delete("a")
    assert not await store.delete("unheard of")
    entry = await read_one(store, "a")
    assert not entry.live
    assert not entry.in_stock
    assert entry.stock is None
    assert (entry.dna == 7).all()
    assert await store.read_images(["a"]) == [b"i"]
    assert await store.set_stock([StockLevel("a", 5, 1)]) == [StockOutcome.UNKNOWN_ARTICLE]
    assert await store.count() == 0
    await store.upsert([stored("a")], "b1", dna_of(8))
    assert (await read_one(store, "a")).in_stock
    assert await store.read_images(["a"]) == [None]


async def test_of_deleted_articles_that_nobody_bought_the_latest_are_remembered(store):
    ids = [f"a{number}" for number in range(33)]
    await store.upsert([stored(article_id, image=b"i") for article_id in ids], "b1", dna_of(*range(33)))
    await store.put_dna("b2", await store.read(ids, "b2"), dna_of(*range(33)))
    await store.hold(["a0"])
    for article_id in ids[:31]:
        await store.delete(article_id)
    await store.hold(["a1"])  # bought after it was deleted
    position = await store.position()
    await store.delete("a31")
    assert all(await store.read(ids, "b1"))  # a2 to a31 are 30
    await store.upsert([stored("a2", image=b"i")], "b1", dna_of(2))  # it comes back, and goes again
    await store.delete("a2")
    await store.delete("a32")
    entries = dict(zip(ids, await store.read(ids, "b1"), strict=True))
    assert {article_id for article_id, entry in entries.items() if entry is None} == {"a3"}
    assert "a3" in (await store.changes(position, 0.1)).article_ids
    assert (await store.read_images(["a3", "a2"])) == [None, b"i"]
    assert (await everything(store)).keys() == set(ids) - {"a3"}
    assert (await read_one(store, "a0", "b2")).dna[0] == 0
    await store.upsert([stored("a3", image=b"i")], "b3", dna_of(3))
    assert (await read_one(store, "a3", "b1")).dna is None  # nothing of before is left
    assert (await read_one(store, "a3", "b2")).dna is None


async def test_dna_counts_only_for_the_content_that_it_was_computed_from(store):
    await store.upsert([stored("a", title="One")], "b1", dna_of(1))
    assert (await read_one(store, "a", "b2")).dna is None
    of_one = await read_one(store, "a", "b2")
    await store.put_dna("b2", [of_one], dna_of(2))
    assert (await read_one(store, "a", "b2")).dna[0] == 2
    await store.upsert([stored("a", title="Two")], "b1", dna_of(3))
    assert (await read_one(store, "a", "b2")).dna is None
    await store.put_dna("b2", [of_one], dna_of(2))
    assert (await read_one(store, "a", "b2")).dna is None
    assert (await read_one(store, "a", "b1")).dna[0] == 3
    assert set(await store.encoded_by()) == {"b1", "b2"}
    await store.drop_dna("b1")
    assert await store.encoded_by() == ["b2"]
    assert (await read_one(store, "a", "b1")).dna is None


async def test_pages_hold_everything_once_read_to_the_end(store):
    ids = [f"a{number}" for number in range(700)]
    await store.upsert([stored(article_id) for article_id in ids], "b1", dna_of(*range(700)))
    for article_id in ids[:20]:
        await store.delete(article_id)
    entries = await everything(store)
    assert entries.keys() == set(ids)
    assert {article_id for article_id, entry in entries.items() if not entry.live} == set(ids[:20])
    assert all(entries[article_id].dna[0] == number for number, article_id in enumerate(ids))
    assert await store.count() == 680


async def test_an_article_that_dies_between_two_pages_is_in_one_of_them(store):
    ids = [f"a{number}" for number in range(600)]
    await store.upsert([stored(article_id) for article_id in ids], "b1", dna_of(*range(600)))
    await store.hold(ids)
    first = await store.page(FIRST_PAGE, "b1")
    seen = {entry.article.article_id for entry in first.entries}
    for article_id in ids:
        await store.delete(article_id)
    cursor = first.cursor
    while cursor is not None:
        page = await store.page(cursor, "b1")
        seen |= {entry.article.article_id for entry in page.entries}
        cursor = page.cursor
    assert seen == set(ids)


async def test_every_change_is_announced_once_and_in_order(store):
    start = await store.position()
    await store.upsert([stored("a"), stored("b")], "b1", dna_of(1, 2))
    await store.set_stock([StockLevel("b", 0, 1)])
    await store.delete("a")
    changes = await store.changes(start, 0.1)
    assert changes.article_ids == ("a", "b")
    assert changes.position == await store.position()
    await store.upsert([stored("c")], "b1", dna_of(1))
    following = await store.changes(changes.position, 0.1)
    assert following.article_ids == ("c",)
    assert (await store.changes(following.position, 0.01)).article_ids == ()


async def test_what_changes_nothing_that_is_served_is_not_announced(store):
    await store.upsert([stored("a")], "b1", dna_of(1))
    start = await store.position()
    await store.set_stock([StockLevel("a", 5, 10), StockLevel("a", 4, 11), StockLevel("a", 0, 3)])
    await store.put_dna("b2", [await read_one(store, "a")], dna_of(1))
    await store.delete("nobody")
    assert await store.position() == start
    await store.set_stock([StockLevel("a", 0, 12)])
    assert (await store.changes(start, 0.1)).article_ids == ("a",)


async def test_a_waiting_reader_hears_of_a_change_at_once(store):
    start = await store.position()
    began = time.monotonic()
    waiting = asyncio.create_task(store.changes(start, 5.0))
    await asyncio.sleep(0.05)
    await store.upsert([stored("a")], "b1", dna_of(1))
    assert (await waiting).article_ids == ("a",)
    assert time.monotonic() - began < 4.0


async def test_who_fell_behind_the_kept_changes_is_told(store):
    await store.upsert([stored("first")], "b1", dna_of(1))
    start = await store.position()
    for _ in range(8):
        await store.upsert([stored(f"a{i}") for i in range(100)], "b1", dna_of(*range(100)))
    with pytest.raises(ChangesLost):
        await store.changes(start, 0.1)
    with pytest.raises(ChangesLost):
        await store.changes(Position((await store.position()).server, 0, 0), 0.1)


async def test_a_position_that_was_never_reached_is_refused(store):
    await store.upsert([stored("a")], "b1", dna_of(1))
    now = await store.position()
    with pytest.raises(ChangesLost):
        await store.changes(now._replace(number=now.number + 3), 0.01)


async def test_of_an_id_that_repeats_the_last_one_stays(store):
    await store.upsert([stored("a", title="One"), stored("a", title="Two")], "b1", dna_of(1, 2))
    entry = await read_one(store, "a")
    assert entry.article.title == "Two"
    assert entry.dna[0] == 2
