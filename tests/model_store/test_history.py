from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from model_store.history import effective_history
from model_store.records import Event


def event(kind: str, time: int, article: str = "x", order: str | None = None, event_id: str | None = None) -> Event:
    return Event(
        event_id=event_id or f"{kind}{time}{article}{order}",
        type=kind,
        customer_id="c",
        article_id=article,
        timestamp=time,
        order_id=order,
    )


def kept(*events: Event) -> list[int]:
    return [purchase.timestamp for purchase in effective_history(events)[0]]


def test_history_is_ordered_by_time_then_event_id() -> None:
    events = [
        event("purchase", 5, event_id="b"),
        event("purchase", 9, event_id="a"),
        event("purchase", 5, event_id="a"),
    ]
    assert [purchase[:2] for purchase in effective_history(events)[0]] == [(5, "a"), (5, "b"), (9, "a")]


def test_a_return_takes_the_latest_purchase_of_its_article_before_it() -> None:
    bought = [event("purchase", 1), event("purchase", 3), event("purchase", 2, "y"), event("purchase", 9)]
    assert kept(*bought, event("return", 5)) == [1, 2, 9]
    assert kept(*bought, event("return", 3)) == [1, 2, 9]
    assert kept(*bought, event("return", 5), event("return", 6)) == [2, 9]
    assert kept(*bought, event("return", 5), event("return", 6), event("return", 7)) == [2, 9]


def test_a_return_with_an_order_takes_from_that_order_only() -> None:
    bought = [event("purchase", 1, order="o"), event("purchase", 3, order="p")]
    assert kept(*bought, event("return", 5, order="o")) == [3]
    assert kept(*bought, event("return", 5, order="q")) == [1, 3]
    assert kept(*bought, event("return", 5)) == [1]


def test_a_return_without_its_purchase_still_counts_as_returned() -> None:
    assert effective_history([event("return", 5)]) == ([], {"x"})
    assert effective_history([event("purchase", 9), event("return", 5)])[1] == {"x"}
    assert kept(event("purchase", 9), event("return", 5)) == [9]


def test_clicks_and_searches_are_no_history() -> None:
    search = Event(event_id="s", type="search", customer_id="c", query="red", timestamp=1)
    assert effective_history([event("click", 1), search]) == ([], set())


EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(["purchase", "purchase", "return"]),
        st.integers(0, 9),
        st.sampled_from("xyz"),
        st.sampled_from([None, "o", "p"]),
        st.uuids().map(str),
    ),
    max_size=20,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_history_does_not_depend_on_the_order_of_arrival(events: list[Event], chance: random.Random) -> None:
    shuffled = list(events)
    chance.shuffle(shuffled)
    assert effective_history(shuffled) == effective_history(events)


@given(EVENTS)
def test_every_return_takes_at_most_one_purchase_and_only_of_its_article(events: list[Event]) -> None:
    history, returned = effective_history(events)
    left = {purchase.event_id for purchase in history}
    assert returned == {each.article_id for each in events if each.type == "return"}
    for article in "xyz":
        taken = [e for e in events if e.type == "purchase" and e.article_id == article and e.event_id not in left]
        returns = [e for e in events if e.type == "return" and e.article_id == article]
        assert len(taken) <= len(returns)
        assert all(any(purchase.timestamp <= e.timestamp for e in returns) for purchase in taken)
