"""A customer's history: purchases less returns, oldest first, as a pure function of the events seen so far.

Written once: the service derives the state it serves from this, training the sequences it learns from. The result does
not depend on the order in which events arrived.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from model_store.records import Event, EventType


class Purchase(NamedTuple):
    """One purchase that was kept. Compares in history order: by time, then by event id."""

    timestamp: int
    event_id: str
    article_id: str
    order_id: str | None


def effective_history(events: Iterable[Event]) -> tuple[list[Purchase], set[str]]:
    """(history, returned article ids) of one customer's purchases and returns, given in any order, without duplicates.

    A return takes out the latest purchase of its article that happened no later than the return and was not taken by
    an earlier return; where it carries an order_id, only purchases of that order count. A return that matches no
    purchase changes no history, but its article still counts as returned. Other event types are ignored.
    """
    purchases: list[Purchase] = []
    returns: list[Event] = []
    for event in events:
        if event.type is EventType.PURCHASE:
            assert event.article_id is not None
            purchases.append(Purchase(event.timestamp, event.event_id, event.article_id, event.order_id))
        elif event.type is EventType.RETURN:
            returns.append(event)
    purchases.sort(key=lambda purchase: purchase[:2])
    if not returns:
        return purchases, set()

    by_article: dict[str, list[Purchase]] = defaultdict(list)
    for purchase in purchases:
        by_article[purchase.article_id].append(purchase)
    taken: set[str] = set()
    for event in sorted(returns, key=lambda event: (event.timestamp, event.event_id)):
        for purchase in reversed(by_article.get(event.article_id or "", [])):
            if (
                purchase.timestamp <= event.timestamp
                and purchase.event_id not in taken
                and (event.order_id is None or purchase.order_id == event.order_id)
            ):
                taken.add(purchase.event_id)
                break
    kept = [purchase for purchase in purchases if purchase.event_id not in taken]
    return kept, {event.article_id for event in returns if event.article_id is not None}
