"""service.generation.records, and how long the stores keep what is for a query."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis_server import redis_url

from model_store.records import Event
from service.generation.records import StoredGeneration, pack_generation, session_mark, unpack_generation
from service.generation.store import SEARCHING_KEPT
from service.state.connection import connect
from service.state.customer import NO_LOG, Addition, Revision
from service.state.memory_store import MemoryStore
from service.state.redis_store import RedisStore, customer_keys

__all__ = ["redis_url"]

WRITTEN = StoredGeneration("v1@0", "0" * 24, 3, "a000123", "Breezy striped jacket in navy", 1_780_000_000.25, 0.5)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def click(event_id: str) -> Event:
    return Event(event_id=event_id, type="click", customer_id="c", article_id="a", timestamp=5)  # type: ignore[arg-type]


@given(
    st.builds(StoredGeneration, TEXTS, TEXTS, st.integers(0, 200), TEXTS, TEXTS, st.floats(0, 1e11), st.floats(0, 99))
)
def test_a_generation_comes_back_whole(generation: StoredGeneration) -> None:
    assert unpack_generation(pack_generation(generation)) == generation


@pytest.mark.parametrize("packed", [b"", b"{", b"[]", b"{}", b"null", b'{"format":2}', b'{"format":1,"bundle":"b"}'])
def test_what_cannot_be_read_counts_as_none(packed: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert unpack_generation(packed) is None
    assert unpack_generation(None) is None


def test_a_mark_is_the_same_in_every_process() -> None:
    """Written by generators, compared by workers: the hash must not be Python's own."""
    assert session_mark(Revision(7, 2), [click("c1"), click("c2")], "red") == "8558e4d72fba720fda60d428"
    assert session_mark(None, []) == session_mark(NO_LOG, [])


@given(st.lists(st.sampled_from(["a", "b", "ab", "7", "2"]), max_size=3), st.sampled_from([None, "", "a", "b"]))
def test_marks_differ_where_anything_does(ids: list[str], query: str | None) -> None:
    mark = session_mark(Revision(7, 2), [click(event_id) for event_id in ids], query)
    others = [
        session_mark(Revision(7, 2), [click(event_id) for event_id in [*ids, "more"]], query),
        session_mark(Revision(7, 3), [click(event_id) for event_id in ids], query),
        session_mark(Revision(8, 2), [click(event_id) for event_id in ids], query),
        session_mark(Revision(7, 2), [click(event_id) for event_id in ids], f"{query}x"),
        session_mark(Revision(7, 2), [click(event_id) for event_id in [*ids, *([query] if query else ["x"])]]),
    ]
    assert mark not in others


async def test_in_memory_the_hour_of_a_query_ends() -> None:
    now = 50.0
    store = MemoryStore(monotonic=lambda: now)
    await store.append(Addition("c", (click("c1"),)))
    assert await store.put_generation("c", WRITTEN, searching=True)
    now += SEARCHING_KEPT - 1
    assert await store.read_searching("c") == WRITTEN
    now += 1
    assert await store.read_searching("c") is None


async def test_in_redis_the_hour_of_a_query_ends(redis_url: str) -> None:
    client = connect(redis_url, timeout=10)
    store = RedisStore(client)
    await store.append(Addition("c", (click("c1"),)))
    assert await store.put_generation("c", WRITTEN)
    assert await store.put_generation("c", WRITTEN, searching=True)
    keys = customer_keys("c")
    left = await client.execute_command("TTL", keys.searching)  # type: ignore[no-untyped-call]
    assert SEARCHING_KEPT - 60 < left <= SEARCHING_KEPT
    assert await client.execute_command("TTL", keys.generation) == -1  # type: ignore[no-untyped-call]
    await client.aclose()


async def test_a_damaged_generation_is_replaced(redis_url: str) -> None:
    client = connect(redis_url, timeout=10)
    store = RedisStore(client)
    await store.append(Addition("c", (click("c1"),)))
    for damaged in ("{", "[]", "7", '{"format":1}', '{"format":2,"written_at":"x"}'):
        await client.execute_command("SET", customer_keys("c").generation, damaged)  # type: ignore[no-untyped-call]
        assert (await store.read("c")).generation is None
        assert await store.put_generation("c", WRITTEN)
        assert (await store.read("c")).generation == WRITTEN
    await client.aclose()
