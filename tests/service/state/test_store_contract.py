"""What every CustomerStore does; held against the one in memory and the one in a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pytest

from model_store.history import Purchase
from model_store.records import Event
from service.generation.records import Footing, StoredGeneration, session_mark, view_mark
from service.generation.store import GenerationStore
from service.state.customer import NO_LOG, SESSION_LENGTH, Addition, CustomerState
from service.state.store import CustomerStore

ODD_IDS = ["a", "{x}", "}{", "modiste:{b}:log", "日本 / %7B", "é" * 128, "a b\u2028", "*", "."]


def purchase(number: int, customer_id: str = "a", **changes: object) -> Event:
    fields = {
        "event_id": f"p{number}",
        "type": "purchase",
        "customer_id": customer_id,
        "article_id": f"article {number}",
    }
    return Event.model_validate({**fields, "timestamp": 1_600_000_000 + number, **changes})


def click(number: int, customer_id: str = "a", **changes: object) -> Event:
    return purchase(number, customer_id, **{"event_id": f"c{number}", "type": "click", **changes})


def state_of(events: Sequence[Event], bundle: str = "b") -> CustomerState:
    """A state that tells which events it was made of; the store does not look inside."""
    last = max(events, key=lambda event: (event.timestamp, event.event_id))
    assert last.article_id is not None
    memory = np.random.default_rng(len(events)).normal(size=(2, 256)).astype(np.float32)
    return CustomerState(
        bundle,
        len(events) - 1,
        memory[0],
        memory[1],
        Purchase(last.timestamp, last.event_id, last.article_id, last.order_id),
        tuple(sorted({event.article_id or "" for event in events})),
        ("returned",),
        ("skipped", "skipped too"),
    )


def assert_same(one: CustomerState | None, other: CustomerState | None) -> None:
    assert one is not None
    assert other is not None
    assert {**vars(one), "hidden": one.hidden.tolist(), "cell": one.cell.tolist()} == {
        **vars(other), "hidden": other.hidden.tolist(), "cell": other.cell.tolist()
    }  # fmt: skip


def written(at: float = 100.0, seconds: float = 1.0, **changes: object) -> StoredGeneration:
    generation = StoredGeneration("b", "mark", 3, 'a 1/é日"', "Breezy \\ jacket", at, seconds)
    return replace(generation, **changes)  # type: ignore[arg-type]


class Store(CustomerStore, GenerationStore, Protocol):
    """What both shipped stores are."""


async def append(store: CustomerStore, *events: Event, **how: object) -> tuple[bool, ...]:
    return (await store.append(Addition(events[0].customer_id, events, **how))).added  # type: ignore[arg-type]


async def test_nobody_is_an_empty_view(store: CustomerStore) -> None:
    view = await store.read("nobody")
    assert (view.state, view.revision, view.session) == (None, None, ())
    log = await store.read_log("nobody")
    assert (log.events, log.revision) == ((), NO_LOG)
    assert not await store.erase("nobody")
    assert (await store.append(Addition("nobody", ()))).revision == NO_LOG
    assert not await store.erase("nobody")


@pytest.mark.parametrize("customer_id", ODD_IDS)
async def test_events_come_back_whole_whatever_their_ids_hold(store: CustomerStore, customer_id: str) -> None:
    logged = [
        purchase(1, customer_id, event_id='日本/\u2028"\\', article_id="0108775015", order_id="o {1}", position=7),
        purchase(2, customer_id, timestamp=253_402_300_799, order_id="0"),
        purchase(3, customer_id, timestamp=0, position=1_000_000),
        purchase(4, customer_id, type="return", article_id="é" * 128),
    ]
    seen = [
        click(5, customer_id, timestamp=0, position=3),
        click(6, customer_id, order_id="o", article_id="/\"\\\u2028"),
        Event(
            event_id="s",
            type="search",
            customer_id=customer_id,
            query='ein Kleid, "rot" / 赤',
            timestamp=253_402_300_799,
        ),
    ]  # fmt: skip
    appended = await store.append(Addition(customer_id, (*seen, *logged)))
    assert appended.added == (True,) * 7
    assert appended.revision.entries == 4
    log = await store.read_log(customer_id)
    assert sorted(log.events, key=lambda event: event.event_id) == sorted(logged, key=lambda event: event.event_id)
    assert log.revision == appended.revision
    assert (await store.read(customer_id)).session == tuple(seen)
    assert (await store.read("other")).session == ()


async def test_an_event_id_counts_once(store: CustomerStore) -> None:
    assert await append(store, purchase(1), click(1), purchase(1), click(1)) == (True, True, False, False)
    assert await append(store, purchase(1, article_id="another"), click(1, timestamp=5), purchase(2)) == (
        False,
        False,
        True,
    )
    assert {event.article_id for event in (await store.read_log("a")).events} == {"article 1", "article 2"}
    assert await append(store, purchase(1, "b")) == (True,)


async def test_a_session_keeps_the_latest_by_time_and_id(store: CustomerStore) -> None:
    count = SESSION_LENGTH + 30
    events = [click(number, event_id=f"c{number:03}", timestamp=number // 7) for number in range(count)]
    order = np.random.default_rng(0).permutation(count)
    for start in range(0, count, 9):
        assert all(await append(store, *(events[index] for index in order[start : start + 9])))
    assert (await store.read("a")).session == tuple(events[-SESSION_LENGTH:])


async def test_a_session_orders_ids_as_python_does_not_as_the_servers_locale(store: CustomerStore) -> None:
    ids = ["a", "B", "ab", "é", "Z", "z", "aé", "\U0001f600", "\uffe0", "a-b", "aa"]
    await append(store, *(click(0, event_id=event_id) for event_id in ids))
    assert [event.event_id for event in (await store.read("a")).session] == sorted(ids)


async def test_a_state_that_was_expected_is_kept(store: CustomerStore) -> None:
    first, second = purchase(1), purchase(2)
    state = state_of([first])
    appended = await store.append(Addition("a", (first,), NO_LOG, state))
    assert appended.state_stored
    view = await store.read("a")
    assert_same(view.state, state)
    assert view.revision == appended.revision == (await store.read_log("a")).revision

    further = state_of([first, second])
    appended = await store.append(Addition("a", (second,), view.revision, further))
    assert appended.state_stored
    view = await store.read("a")
    assert_same(view.state, further)
    assert view.revision == appended.revision
    assert appended.revision.entries == 2


async def test_a_state_without_a_pending_purchase_is_kept_too(store: CustomerStore) -> None:
    state = CustomerState("b", 0, np.zeros(256, np.float32), np.zeros(256, np.float32), None)
    await store.append(Addition("a", (purchase(1, type="return"),), NO_LOG, state))
    assert_same((await store.read("a")).state, state)


async def test_an_addition_without_a_state_drops_the_one_that_was_there(store: CustomerStore) -> None:
    await append(store, purchase(1), expected=NO_LOG, state=state_of([purchase(1)]))
    await append(store, purchase(2))
    assert (await store.read("a")).state is None


async def test_a_state_made_for_another_log_is_not_kept(store: CustomerStore) -> None:
    revision = (await store.append(Addition("a", (purchase(1),), NO_LOG, state_of([purchase(1)])))).revision
    await append(store, purchase(2))
    late = await store.append(Addition("a", (purchase(3),), revision, state_of([purchase(1), purchase(3)])))
    assert late.added == (True,)
    assert not late.state_stored
    assert (await store.read("a")).state is None
    first = await store.append(Addition("a", (purchase(4),), NO_LOG, state_of([purchase(4)])))
    assert not first.state_stored


async def test_a_state_that_counts_a_duplicate_is_not_kept(store: CustomerStore) -> None:
    revision = (await store.append(Addition("a", (purchase(1),), NO_LOG, state_of([purchase(1)])))).revision
    both = (purchase(1), purchase(2))
    assert not (await store.append(Addition("a", both, revision, state_of(both)))).state_stored
    assert (await store.read("a")).state is None


async def test_a_duplicate_alone_changes_nothing(store: CustomerStore) -> None:
    state = state_of([purchase(1)])
    revision = (await store.append(Addition("a", (purchase(1),), NO_LOG, state))).revision
    again = await store.append(Addition("a", (purchase(1),), revision, state_of([purchase(1), purchase(1)])))
    assert (again.added, again.revision, again.state_stored) == ((False,), revision, False)
    assert_same((await store.read("a")).state, state)


async def test_a_session_leaves_the_state_alone(store: CustomerStore) -> None:
    state = state_of([purchase(1)])
    revision = (await store.append(Addition("a", (purchase(1),), NO_LOG, state))).revision
    appended = await store.append(Addition("a", (click(1),)))
    assert appended.revision == revision
    assert_same((await store.read("a")).state, state)


async def test_a_session_alone_makes_no_log(store: CustomerStore) -> None:
    assert (await store.append(Addition("a", (click(1),)))).revision == NO_LOG
    assert (await store.append(Addition("a", (purchase(1),), NO_LOG, state_of([purchase(1)])))).state_stored


async def test_put_state_asks_for_the_revision_it_was_made_of(store: CustomerStore) -> None:
    await append(store, purchase(1))
    log = await store.read_log("a")
    assert await store.put_state("a", state_of([purchase(1)]), log.revision)
    assert_same((await store.read("a")).state, state_of([purchase(1)]))
    assert await store.put_state("a", state_of([purchase(1)], "another bundle"), log.revision)
    await append(store, purchase(2))
    assert not await store.put_state("a", state_of([purchase(1)]), log.revision)
    assert (await store.read("a")).state is None
    assert not await store.put_state("nobody", state_of([purchase(1)]), NO_LOG)
    assert (await store.read("nobody")).state is None


async def test_erase_leaves_nothing(store: CustomerStore) -> None:
    await append(store, purchase(1), click(1), expected=NO_LOG, state=state_of([purchase(1)]))
    await append(store, purchase(1, "b"))
    assert await store.erase("a")
    assert not await store.erase("a")
    view = await store.read("a")
    assert (view.state, view.session, (await store.read_log("a")).events) == (None, (), ())
    assert len((await store.read_log("b")).events) == 1
    assert await append(store, purchase(1)) == (True,)


async def test_a_state_from_before_an_erase_never_returns(store: CustomerStore) -> None:
    """The log begun after it has as many entries as the erased one had: only the log's identity tells them apart."""
    await append(store, purchase(1))
    before = (await store.read_log("a")).revision
    await store.erase("a")
    assert not await store.put_state("a", state_of([purchase(1)]), before)
    await append(store, purchase(2))
    after = (await store.read_log("a")).revision
    assert after.entries == before.entries
    assert not await store.put_state("a", state_of([purchase(1)]), before)
    late = await store.append(Addition("a", (purchase(3),), before, state_of([purchase(1), purchase(3)])))
    assert not late.state_stored
    assert (await store.read("a")).state is None


async def test_an_erase_under_an_append_leaves_a_sound_log(store: CustomerStore) -> None:
    """The append finds no log where it expected one: it begins a new one, whose revision then is good for states."""
    revision = (await store.append(Addition("a", (purchase(1),), NO_LOG, state_of([purchase(1)])))).revision
    await store.erase("a")
    appended = await store.append(Addition("a", (purchase(2),), revision, state_of([purchase(1), purchase(2)])))
    assert (appended.added, appended.state_stored, appended.revision.entries) == ((True,), False, 1)
    assert appended.revision.log not in (0, revision.log)
    assert await store.put_state("a", state_of([purchase(2)]), appended.revision)


async def test_appends_at_once_all_count_and_a_state_fits_its_log(store: CustomerStore) -> None:
    """Twenty writers, each reading, stepping and appending as a worker does, with erasures in between."""

    async def worker(number: int) -> None:
        for round_ in range(5):
            view, event = await store.read("a"), purchase(100 * round_ + number)
            if view.state is None:
                log = await store.read_log("a")
                await store.append(Addition("a", (event,), log.revision, state_of([*log.events, event])))
                continue
            await asyncio.sleep(0)
            known = view.state.purchased
            events = [purchase(0, article_id=article) for article in known]
            await store.append(Addition("a", (event,), view.revision, state_of([*events, event])))

    await asyncio.gather(*(worker(number) for number in range(20)))
    log, view = await store.read_log("a"), await store.read("a")
    assert len(log.events) == log.revision.entries == 100
    if view.state is None:
        assert await store.put_state("a", state_of(log.events), log.revision)
        view = await store.read("a")
    assert view.state is not None
    assert view.revision == log.revision
    assert set(view.state.purchased) == {event.article_id for event in log.events}


async def test_many_additions_answer_in_their_order(store: CustomerStore) -> None:
    additions = [
        Addition(f"customer {number % 400}", (purchase(number, f"customer {number % 400}"), click(number)), NO_LOG)
        for number in range(600)
    ]
    appended = await store.append_many([*additions, additions[7]])
    assert [each.added for each in appended] == [(True, True)] * 600 + [(False, False)]
    assert [each.revision.entries for each in appended[:600]] == [1] * 400 + [2] * 200
    assert len((await store.read_log("customer 7")).events) == 2
    assert await store.append_many([]) == []


async def test_many_customers_are_read_in_their_order(store: CustomerStore) -> None:
    state = state_of([purchase(1)])
    await append(store, purchase(1), expected=NO_LOG, state=state)
    await append(store, click(1, "b"))
    first, second, third, fourth = await store.read_many(["b", "nobody", "a", "b"])
    assert_same(third.state, state)
    assert [event.event_id for event in first.session] == ["c1"] == [event.event_id for event in fourth.session]
    assert (first.state, second.state, second.session, third.session) == (None, None, (), ())
    assert await store.read_many([]) == []


async def test_many_logs_are_read_in_their_order(store: CustomerStore) -> None:
    for customer_id in ("a", "b"):
        await append(store, purchase(1, customer_id), purchase(2, customer_id))
    customer_ids = ["b", "nobody", "a"] * 200
    logs = await store.read_logs(customer_ids)
    single = {customer_id: await store.read_log(customer_id) for customer_id in customer_ids[:3]}
    assert logs == [single[customer_id] for customer_id in customer_ids]
    assert logs[0].event_ids == {"p1", "p2"}
    assert await store.read_logs([]) == []


async def test_all_customers_with_a_log_are_found(store: CustomerStore) -> None:
    assert not any([page async for page in store.pages()])
    names = {*ODD_IDS, *map(str, range(600))}
    await store.append_many([Addition(name, (purchase(1, name),)) for name in sorted(names)])
    await append(store, click(1, "only looks"))
    assert {name for page in [page async for page in store.pages()] for name in page} == names
    await store.erase("{x}")
    assert {name for page in [page async for page in store.pages()] for name in page} == names - {"{x}"}


@pytest.mark.parametrize("customer_id", ODD_IDS)
async def test_a_generation_comes_with_its_customer(store: Store, customer_id: str) -> None:
    await append(store, click(1, customer_id))
    assert (await store.read(customer_id)).generation is None
    assert await store.put_generation(customer_id, written())
    view, other = await store.read_many([customer_id, "other"])
    assert view.generation == written()
    assert [event.event_id for event in view.session] == ["c1"]
    assert other.generation is None
    assert await store.read_searching(customer_id) is None


async def test_a_generation_for_a_query_is_kept_apart_and_for_an_hour(store: Store) -> None:
    await append(store, purchase(1))
    assert await store.put_generation("a", written(mark="of a query"), searching=True)
    assert (await store.read("a")).generation is None
    assert await store.put_generation("a", written())
    assert (await store.read_searching("a")) == written(mark="of a query")
    assert await store.read_searching("nobody") is None


async def test_a_generation_of_a_later_moment_stays(store: Store) -> None:
    """It counts when the customer's events were read, not who was done first."""
    await append(store, click(1))
    slow, quick = written(at=110, seconds=9), written(at=104.5, seconds=0.25, article_id="of more events")
    for searching in (False, True):
        assert await store.put_generation("a", quick, searching)
        assert not await store.put_generation("a", slow, searching)
        assert await store.put_generation("a", replace(quick, title="again"), searching)
    assert (await store.read("a")).generation == replace(quick, title="again") == await store.read_searching("a")


@pytest.mark.parametrize("searching", [False, True])
async def test_a_generation_brings_no_erased_customer_back(store: Store, searching: bool) -> None:
    assert not await store.put_generation("nobody", written(), searching)
    await append(store, purchase(1), click(1))
    assert await store.put_generation("a", written(), searching)
    assert await store.erase("a")
    assert ((await store.read("a")).generation, await store.read_searching("a")) == (None, None)
    assert not await store.put_generation("a", written(), searching)
    assert not await store.erase("a")


async def test_a_generation_of_before_an_erase_is_not_the_new_customers(store: Store) -> None:
    """Whoever comes back under the id is somebody else, whether they had bought or only looked before."""
    await append(store, purchase(1), click(1))
    log = (await store.read_log("a")).revision.log
    bought, looked, both = Footing(log, ""), Footing(0, "c1"), Footing(log, "c1")
    for footing in (bought, looked, both):
        assert await store.put_generation("a", written(), footing=footing)
    await append(store, purchase(2), click(2))
    for footing in (bought, looked, both):
        assert await store.put_generation("a", written(), footing=footing)
    await store.erase("a")
    await append(store, purchase(3), click(3))
    for footing in (bought, looked, both):
        assert not await store.put_generation("a", written(), footing=footing)
    assert (await store.read("a")).generation is None
    assert await store.put_generation("a", written(), footing=Footing(0, "c3"))


async def test_the_mark_tells_every_change_of_log_session_and_query(store: Store) -> None:
    marks: list[str] = []

    async def note() -> None:
        view, log = await store.read("a"), await store.read_log("a")
        again = await store.read("a")
        for query in (None, "", "red dress", "c1"):
            mark = session_mark(log.revision, again.session, query)
            assert mark == view_mark(replace(view, revision=log.revision), query)
            marks.append(mark)

    await note()
    for event in (click(2), click(1), purchase(1), purchase(1, event_id="r", type="return")):
        await append(store, event)
        await note()
    await store.erase("a")
    await append(store, click(2))
    await append(store, purchase(1))
    await note()
    assert len(set(marks)) == len(marks) == 24
    assert all(len(mark) == 24 for mark in marks)


async def test_what_changes_nothing_keeps_the_mark(store: Store) -> None:
    await append(store, click(1), purchase(1), expected=NO_LOG, state=state_of([purchase(1)]))
    before = await store.read("a")
    assert await append(store, click(1), purchase(1)) == (False, False)
    assert await store.put_generation("a", written())
    assert view_mark(await store.read("a")) == view_mark(before)
    assert view_mark(await store.read("a")) == session_mark((await store.read_log("a")).revision, before.session)
