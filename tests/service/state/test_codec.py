from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.history import Purchase
from model_store.records import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, Event, EventType
from service.errors import StoreUnavailable
from service.state.codec import pack_log_entry, pack_state, stored_event, unpack_log_entry, unpack_state
from service.state.customer import CustomerState, Revision

IDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
TIMES = st.integers(EARLIEST_TIMESTAMP, LATEST_TIMESTAMP)
ARTICLES = st.lists(IDS, max_size=4).map(tuple)


@given(
    st.sampled_from([EventType.PURCHASE, EventType.RETURN]),
    TIMES,
    IDS,
    st.none() | IDS,
    st.none() | st.integers(1, 1_000_000),
)
def test_log_entries_come_back(
    kind: EventType, timestamp: int, article_id: str, order_id: str | None, position: int | None
) -> None:
    event = unpack_log_entry("c", "e", pack_log_entry(kind, timestamp, article_id, order_id, position))
    assert event == Event(
        event_id="e", customer_id="c", type=kind, timestamp=timestamp,
        article_id=article_id, order_id=order_id, position=position,
    )  # fmt: skip


def test_a_stored_event_is_the_event_that_validation_makes() -> None:
    stored = stored_event("c", 9, "e", EventType.SEARCH, None, "red", None, 3)
    made = Event(event_id="e", type="search", customer_id="c", query="red", timestamp=9, position=3)
    assert stored == made
    assert hash(stored) == hash(made)
    assert stored.model_dump_json() == made.model_dump_json()
    assert repr(stored) == repr(made)
    assert stored.model_copy(update={"timestamp": 10}).timestamp == 10
    with pytest.raises(ValidationError, match="frozen"):
        stored.timestamp = 10


def test_a_plain_purchase_takes_six_bytes_and_its_article() -> None:
    assert len(pack_log_entry(EventType.PURCHASE, LATEST_TIMESTAMP, "0108775015", None, None)) == 16


def test_an_entry_of_a_newer_release_is_named() -> None:
    packed = b"\x07" + pack_log_entry(EventType.PURCHASE, 1, "article", None, None)[1:]
    with pytest.raises(StoreUnavailable, match=r"customer 'c' holds an entry of unknown kind 7: a newer release"):
        unpack_log_entry("c", "e", packed)


PURCHASES = st.builds(Purchase, TIMES, IDS, IDS, st.none() | IDS)


STATES = st.builds(
    lambda seed, *rest: CustomerState(rest[0], rest[1], *_memory(seed), *rest[2:]),
    st.integers(0, 2**32 - 1),
    IDS,
    st.integers(0, 2**32 - 1),
    st.none() | PURCHASES,
    ARTICLES,
    ARTICLES,
    ARTICLES,
)


def _memory(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 256)).astype(np.float32)


@given(STATES, st.builds(Revision, st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1)))
def test_states_come_back(state: CustomerState, revision: Revision) -> None:
    unpacked = unpack_state(pack_state(state, revision))
    assert unpacked is not None
    read = unpacked[0]
    assert unpacked[1] == revision
    np.testing.assert_array_equal(read.hidden, state.hidden)
    np.testing.assert_array_equal(read.cell, state.cell)
    assert read.hidden.flags.aligned
    fields = vars(state).keys() - {"hidden", "cell"}
    assert {name: getattr(read, name) for name in fields} == {name: getattr(state, name) for name in fields}


def packed_state() -> bytes:
    zeros = np.zeros(256, np.float32)
    return pack_state(CustomerState("b", 1, zeros, zeros, Purchase(1, "e", "a", None), ("a",)), Revision(1, 2))


@pytest.mark.parametrize("at", [*range(0, 60, 7), 500, 2100, -1])
def test_a_damaged_state_counts_as_absent(at: int) -> None:
    packed = bytearray(packed_state())
    packed[at] ^= 0x10
    assert unpack_state(bytes(packed)) is None


@pytest.mark.parametrize("size", [0, 1, 47, 48, 2000, 2096, -1])
def test_a_state_cut_short_counts_as_absent(size: int) -> None:
    assert unpack_state(packed_state()[:size]) is None
    assert unpack_state(None) is None


def test_a_state_of_another_format_counts_as_absent() -> None:
    packed = bytearray(packed_state())
    packed[4] += 1
    packed[:4] = zlib.crc32(bytes(packed[4:])).to_bytes(4, "little")
    assert unpack_state(bytes(packed)) is None
