"""What only a store in Redis can meet."""

from __future__ import annotations

import logging

import pytest
from redis_server import running_server

from service.catalogue.redis_store import ARTICLES, MOST_CHANGES, RedisCatalogue
from service.catalogue.store import FIRST_PAGE, ChangesLost
from service.errors import StoreUnavailable
from service.state.connection import connect

from .records import dna_of, stored


async def test_a_store_that_lost_everything_is_noticed(client):
    store = RedisCatalogue(client)
    await store.upsert([stored("a"), stored("b")], "b1", dna_of(1, 2))
    before = await store.position()
    await client.flushall()
    with pytest.raises(ChangesLost):
        await store.changes(before, 0.01)
    await store.upsert([stored(f"n{i}") for i in range(3)], "b1", dna_of(1, 2, 3))
    with pytest.raises(ChangesLost):
        await store.changes(before, 0.01)


async def test_another_server_under_the_same_address_is_noticed(client):
    store = RedisCatalogue(client)
    await store.upsert([stored("a")], "b1", dna_of(1))
    here = await store.position()
    with pytest.raises(ChangesLost):
        await store.changes(here._replace(server="0" * 40), 0.01)


async def test_all_keys_share_one_slot(client):
    store = RedisCatalogue(client)
    await store.upsert([stored("a", image=b"i")], "b{1}", dna_of(1))
    await store.delete("a")
    slots = {await client.execute_command("CLUSTER KEYSLOT", key) async for key in client.scan_iter()}
    assert len(slots) == 1


async def test_a_record_of_another_release_is_left_out_and_logged(client, caplog):
    store = RedisCatalogue(client)
    await store.upsert([stored("a"), stored("b")], "b1", dna_of(1, 2))
    await client.hset(ARTICLES, "a", b'{"format":2,"unheard":"of"}')
    with caplog.at_level(logging.ERROR):
        page = await store.page(FIRST_PAGE, "b1")
    assert [entry.article.article_id for entry in page.entries] == ["b"]
    assert "article 'a' in the store is left out" in caplog.text


async def test_large_pictures_are_written_in_several_steps_and_all_arrive(client):
    store = RedisCatalogue(client)
    articles = [stored(f"a{i}", image=bytes([i]) * 64_000) for i in range(40)]
    await store.upsert(articles, "b1", dna_of(*range(40)))
    assert await store.read_images([f"a{i}" for i in range(40)]) == [article.image for article in articles]


async def test_every_call_says_that_the_store_is_away():
    with running_server() as url:
        pass
    client = connect(url)
    store = RedisCatalogue(client)
    here = [store.position(), store.count(), store.delete("a"), store.page(FIRST_PAGE, "b1"), store.read(["a"], "b1")]
    here += [store.upsert([stored("a")], "b1", dna_of(1)), store.read_images(["a"]), store.drop_dna("b1")]
    for call in here:
        with pytest.raises(StoreUnavailable):
            await call
    await client.aclose()


async def test_a_full_store_says_so_and_takes_nothing():
    with running_server(maxmemory="3mb", **{"maxmemory-policy": "noeviction"}) as url:
        client = connect(url, timeout=10)
        store = RedisCatalogue(client)
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await store.upsert([stored(f"a{i}", image=b"x" * 60_000) for i in range(200)], "b1", dna_of(*range(200)))
        await client.aclose()


async def test_changes_tell_how_many_they_leave_to_the_next_call(client):
    store = RedisCatalogue(client)
    await store.upsert([stored("first")], "b1", dna_of(0))
    start = await store.position()
    count = MOST_CHANGES + 7
    await store.upsert([stored(f"a{number}") for number in range(count)], "b1", dna_of(*range(count)))
    some = await store.changes(start, 0.1)
    assert (len(some.article_ids), some.behind) == (MOST_CHANGES, 7)
    rest = await store.changes(some.position, 0.1)
    assert (len(rest.article_ids), rest.behind) == (7, 0)
    assert (await store.changes(rest.position, 0.01)).behind == 0
