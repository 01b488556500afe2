"""The session that the language model reads: a customer's latest searches, clicks and purchases, oldest first.

Written once: the service makes prompts of it, training the sequences it learns from (Amazon 2024, §4.1, §5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from model_store.history import effective_history
from model_store.prompts import Action
from model_store.records import Article, Event, EventType


def session_events(
    events: Iterable[Event], most: int, *, without_clicks_on: frozenset[str] = frozenset()
) -> list[Event]:
    """The latest ``most`` searches, clicks and kept purchases among one customer's events of any type, oldest first.

    Returned purchases and returns are left out (``effective_history``). Of equal actions in a row (the same search, a
    click on the same article) the first stays. ``without_clicks_on``: articles whose clicks are left out, as the paper
    does with those that end in the purchase to be foretold (§5.1).
    """
    events = list(events)
    kept = {purchase.event_id for purchase in effective_history(events)[0]}
    chosen = [
        event
        for event in sorted(events, key=lambda event: (event.timestamp, event.event_id))
        if event.type is EventType.SEARCH
        or (event.type is EventType.CLICK and event.article_id not in without_clicks_on)
        or (event.type is EventType.PURCHASE and event.event_id in kept)
    ]
    distinct = [
        event
        for before, event in zip([None, *chosen], chosen, strict=False)
        if before is None or not _same(before, event)
    ]
    return distinct[max(len(distinct) - most, 0) :]


def session_actions(events: Iterable[Event], article: Callable[[str], Article | None]) -> list[Action]:
    """Actions of ``session_events``, with each article's record; what ``article`` does not know is left out."""
    actions = []
    for event in events:
        if event.type is EventType.SEARCH:
            actions.append(Action(event.type, query=event.query))
        elif (record := article(event.article_id or "")) is not None:
            actions.append(Action(event.type, article=record))
    return actions


def latest_query(actions: Iterable[Action]) -> str | None:
    """The query searched last, whose results are the prompt's candidates (§4.2); None where nothing was searched."""
    return next((action.query for action in reversed(list(actions)) if action.kind is EventType.SEARCH), None)


def _same(one: Event, other: Event) -> bool:
    return (
        one.type is other.type
        and one.type is not EventType.PURCHASE
        and (one.article_id, one.query) == (other.article_id, other.query)
    )
