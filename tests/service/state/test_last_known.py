"""service.state.last_known: whatever was kept comes back as it was, or not at all, from memory that never grows."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_store.history import Purchase
from model_store.records import Event
from service.generation.records import StoredGeneration
from service.state.customer import CustomerState, CustomerView, Packed, Revision, empty_state
from service.state.last_known import LastKnown
from service.state.views import pack_view, unpack_view

_CUSTOMERS = st.sampled_from([f"customer {n}" for n in range(12)])
_DEEDS = st.lists(st.tuples(_CUSTOMERS, st.none() | st.integers(20, 90), st.booleans()), min_size=20, max_size=100)
_SIZE = 400
_HEADER = 12
_LARGEST = _HEADER + 91


@given(_DEEDS)
def test_what_is_known_is_the_latest_or_nothing(deeds: list[tuple[str, int | None, bool]]) -> None:
    known, latest = LastKnown(_SIZE), dict[str, Packed]()
    written, written_until = 0, dict[str, int]()  # bytes, in all and when each began to be written
    for number, (customer, length, parts) in enumerate(deeds):
        if length is None:
            known.forget(customer)
            latest.pop(customer, None)
        else:
            text = bytes([number % 251]) * length
            latest[customer] = Packed(None, text, None) if parts else Packed(text, None, text[:1])
            known.keep(customer, CustomerView(packed=latest[customer]))
            written_until[customer] = written
            written += _HEADER + length + (not parts)
        for name, packed in latest.items():
            nearby = written - written_until[name] + _LARGEST <= _SIZE  # the end of the ring may be left empty
            assert known.view(name).packed in ({packed} if nearby else {packed, None})


def test_the_same_again_moves_nobody() -> None:
    known = LastKnown(_SIZE)
    views = {name: CustomerView(packed=Packed(None, name.encode() * 100, None)) for name in "abc"}
    for name, view in views.items():
        known.keep(name, view)
    for _ in range(50):
        known.keep("c", views["c"])
    assert [known.view(name).packed for name in "abc"] == [view.packed for view in views.values()]


def test_what_does_not_fit_is_not_known_and_what_was_known_before_neither() -> None:
    known = LastKnown(_SIZE)
    known.keep("a", CustomerView(packed=Packed(None, b"short", None)))
    known.keep("a", CustomerView(packed=Packed(None, b"x" * _SIZE, None)))
    assert known.view("a").packed is None


def test_it_takes_as_much_memory_before_the_first_customer_as_after_the_last() -> None:
    view = CustomerView(packed=Packed(b"x" * 2_790, None, None))
    tracemalloc.start()
    try:
        known = LastKnown(2**22)
        empty, _ = tracemalloc.get_traced_memory()
        for number in range(5_000):
            known.keep(f"customer {number}", view)
        full, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert known.view("customer 4999").packed == view.packed
    assert full - empty < 0.03 * 2**22  # the table of 1,500 customers takes 0.25 MiB


def test_of_the_forgotten_no_byte_stays() -> None:
    known = LastKnown(_SIZE)
    known.keep("a", CustomerView(packed=Packed(b"secret", b"secret", b"secret")))
    assert b"secret" in bytes(known._bytes)
    known.forget("a")
    assert b"secret" not in bytes(known._bytes)


def test_a_view_survives_its_bytes() -> None:
    state = CustomerState(
        "bundle", 3, *np.random.default_rng(1).standard_normal((2, 256)).astype(np.float32),
        Purchase(5, "e5", "a5", "o1"), ("a1", "a5"), ("a2",), ("a9",),
    )  # fmt: skip
    session = (Event(event_id="e7", type="click", customer_id="c", article_id="a7", timestamp=7),)
    generation = StoredGeneration("bundle", "mark", 1, "a1", "A title", 10.0, 2.0)
    view = CustomerView(state, Revision(77, 4), lambda: session, lambda: generation)
    again = unpack_view("c", pack_view(view))
    assert again.revision == view.revision
    assert again.state is not None
    assert (again.state.hidden == state.hidden).all()
    assert (again.state.cell == state.cell).all()
    assert (again.state.pending, again.state.purchased, again.state.returned, again.state.skipped) == (
        state.pending, state.purchased, state.returned, state.skipped,
    )  # fmt: skip
    assert (again.session, again.generation, again.session_ids) == (session, generation, ("e7",))
    assert pack_view(again) == pack_view(view)


def test_another_state_replaces_the_bytes_of_the_one_before_and_those_alone() -> None:
    read = unpack_view("c", Packed(b"unreadable", b"[]", None))
    assert pack_view(read).state == b"unreadable"  # another release wrote it
    other = CustomerState("b", 0, *np.ones((2, 256), np.float32), Purchase(1, "e", "a", None), ("a",))
    packed = pack_view(read.with_state(other, Revision(1, 1)))
    assert (packed.session, packed.generation) == (b"[]", None)
    assert unpack_view("c", packed).revision == Revision(1, 1)
    assert pack_view(read.with_state(empty_state("b"), Revision(0, 0))) == Packed(None, b"[]", None)
