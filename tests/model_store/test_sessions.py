from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from model_store.history import effective_history
from model_store.records import Article, Event, EventType
from model_store.sessions import latest_query, session_actions, session_events


def event(kind: str, time: int, what: str = "x", event_id: str | None = None) -> Event:
    field = "query" if kind == "search" else "article_id"
    return Event.model_validate(
        {
            "event_id": event_id or f"{kind}{time}{what}",
            "type": kind,
            "customer_id": "c",
            "timestamp": time,
            field: what,
        }
    )


EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from([kind.value for kind in EventType]),
        st.integers(0, 9),
        st.sampled_from("xyz"),
        st.uuids().map(str),
    ),
    max_size=25,
)


def names(events: list[Event]) -> list[str]:
    return [each.event_id for each in events]


def test_searches_clicks_and_purchases_come_oldest_first() -> None:
    events = [event("purchase", 3), event("search", 1, "red"), event("click", 2)]
    assert names(session_events(events, 9)) == ["search1red", "click2x", "purchase3x"]
    assert names(session_events(events, 2)) == ["click2x", "purchase3x"]
    assert session_events(events, 0) == []


def test_what_was_returned_is_no_part_of_it_and_returns_are_none() -> None:
    events = [event("purchase", 1), event("purchase", 2), event("purchase", 3, "y"), event("return", 4)]
    assert names(session_events(events, 9)) == ["purchase1x", "purchase3y"]


def test_of_equal_actions_in_a_row_the_first_stays() -> None:
    events = [event("search", 1, "red"), event("search", 2, "red"), event("click", 3), event("click", 4)]
    events += [event("search", 5, "red"), event("purchase", 6), event("purchase", 7)]
    assert names(session_events(events, 9)) == ["search1red", "click3x", "search5red", "purchase6x", "purchase7x"]


def test_a_click_and_a_search_of_one_name_differ() -> None:
    assert names(session_events([event("click", 1, "red"), event("search", 2, "red")], 9)) == [
        "click1red",
        "search2red",
    ]


def test_clicks_on_the_target_are_left_out_but_not_its_earlier_purchases() -> None:
    events = [
        event("purchase", 1),
        event("click", 2),
        event("click", 3, "y"),
        event("click", 4),
        event("click", 5, "y"),
    ]
    assert names(session_events(events, 9, without_clicks_on=frozenset("x"))) == ["purchase1x", "click3y"]


@given(EVENTS, st.integers(0, 12), st.sets(st.sampled_from("xyz")), st.randoms(use_true_random=False))
def test_sessions_do_not_depend_on_the_order_of_arrival(
    events: list[Event], most: int, targets: set[str], chance: random.Random
) -> None:
    shuffled = list(events)
    chance.shuffle(shuffled)
    without = frozenset(targets)
    found = session_events(shuffled, most, without_clicks_on=without)
    assert found == session_events(events, most, without_clicks_on=without)


@given(EVENTS, st.integers(0, 12), st.sets(st.sampled_from("xyz")))
def test_a_session_is_a_short_ordered_part_of_what_happened(events: list[Event], most: int, targets: set[str]) -> None:
    found = session_events(events, most, without_clicks_on=frozenset(targets))
    kept = {purchase.event_id for purchase in effective_history(events)[0]}
    assert len(found) <= most
    assert [(each.timestamp, each.event_id) for each in found] == sorted((e.timestamp, e.event_id) for e in found)
    assert {each.event_id for each in found} <= {each.event_id for each in events}
    assert all(each.type != "return" for each in found)
    assert all(each.event_id in kept for each in found if each.type == "purchase")
    assert all(each.article_id not in targets for each in found if each.type == "click")


@given(EVENTS, st.integers(0, 12))
def test_a_shorter_session_is_the_end_of_a_longer_one(events: list[Event], most: int) -> None:
    everything = session_events(events, len(events))
    assert session_events(events, most) == everything[max(len(everything) - most, 0) :]
    assert session_events(everything, len(events)) == everything


def test_actions_carry_records_and_leave_out_what_is_unknown() -> None:
    record = Article(article_id="x", title="Linen dress", category="Dress")
    events = [event("search", 1, "red"), event("click", 2), event("purchase", 3, "gone")]
    actions = session_actions(events, {"x": record}.get)
    assert [(action.kind, action.query, action.article) for action in actions] == [
        (EventType.SEARCH, "red", None),
        (EventType.CLICK, None, record),
    ]


def test_the_latest_query_is_the_last_search() -> None:
    events = [event("search", 1, "red"), event("search", 2, "blue"), event("click", 3)]
    actions = session_actions(events, lambda _: None)
    assert latest_query(actions) == latest_query(iter(actions)) == "blue"
    assert latest_query(()) is None
