"""What the page shows of a customer: what they did, where their style points, and what the language model makes of it.

Nobody is unknown here: of somebody new there is just nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from model_store.history import Purchase, effective_history
from model_store.records import Event
from service.engine.filters import EVERYTHING, Filters
from service.http.services import Services
from service.intents import Question
from service.live import Live
from service.lookbook.article_map import Plane
from service.lookbook.cards import Card, read_cards
from service.lookbook.thinking import Prompts, lists, written
from service.state.customer import CustomerLog, CustomerView

_FORGOTTEN: Card = {
    "category": None,
    "brand": None,
    "colour": None,
    "price": None,
    "quantity": None,
    "in_stock": False,
    "live": False,
}
LONGEST_PATH = 50
"""Purchases whose styles are shown, the latest ones."""


async def shown(parts: Services, customer_id: str) -> dict[str, Any]:
    """History, returns and session of a customer, with their articles. Raises StoreUnavailable."""
    log, view = await _read(parts, customer_id)
    kept, returned = effective_history(log.events)
    cards = await _cards_of(parts, kept, view.session, returned)
    return {
        "customer_id": customer_id,
        "history": [
            {
                "event_id": purchase.event_id,
                "article": _card(cards, purchase.article_id),
                "timestamp": purchase.timestamp,
                "order_id": purchase.order_id,
            }
            for purchase in kept
        ],
        "returned": [_card(cards, article_id) for article_id in sorted(returned)],
        "session": [_action(event, cards) for event in view.session],
    }


async def path(parts: Services, live: Live, plane: Plane, customer_id: str, at: int | None) -> dict[str, Any]:
    """Where the style pointed after each of the latest purchases, and points ``at`` a moment (Unix seconds), or now.

    Raises StoreUnavailable.
    """
    log, _ = await _read(parts, customer_id)
    moment = parts.clock() if at is None else at
    kept = [purchase for purchase in effective_history(log.events)[0] if purchase.timestamp <= moment]
    seen, styles = live.style.path(kept, moment)
    places = plane.places(styles).tolist()
    follows: list[Purchase | None] = [None, *seen]
    cards = await _cards_of(parts, seen, ())
    points = [
        {
            "x": x,
            "y": y,
            "timestamp": None if purchase is None else purchase.timestamp,
            "article": None if purchase is None else _card(cards, purchase.article_id),
        }
        for purchase, (x, y) in zip(follows, places, strict=True)
    ]
    return {"points": points[-LONGEST_PATH - 1 :], "at": moment}


async def generation(
    parts: Services, live: Live, prompts: Prompts, customer_id: str, query: str | None
) -> dict[str, Any]:
    """What the language model reads and wrote, and what retrieval with mixup makes of it. Raises StoreUnavailable."""
    if live.titles is None:
        return _nothing("the live bundle has no generating half")
    log, view = await _read(parts, customer_id)
    reading = await prompts.read(live, [*log.events, *view.session], query)
    found = await parts.intents.find(live, Question(customer_id, query), view)
    stored = [event for event in reading.session if event.event_id]  # what is searched now is in the prompt alone
    cards, prompt = await _cards_of(parts, (), stored), reading.prompt
    kept, returned = effective_history(log.events)
    return {
        "available": True,
        "reason": None,
        "session": [_action(event, cards) for event in stored],
        "prompt": None if prompt is None else prompt.text,
        "tokens": None if prompt is None else len(prompt.token_ids),
        "candidates": list(reading.candidates),
        "written": written(found),
        **await lists(live, found, _without(kept, returned), parts.catalogue),
    }


async def _read(parts: Services, customer_id: str) -> tuple[CustomerLog, CustomerView]:
    """Log and view, the view's revision that of the log, whether or not a state is stored."""
    log = await parts.customers.read_log(customer_id)
    view = await parts.customers.read(customer_id)
    return log, replace(view, revision=log.revision)


async def _cards_of(
    parts: Services, purchases: Iterable[Purchase], events: Iterable[Event], others: Iterable[str] = ()
) -> dict[str, Card]:
    named = [event.article_id for event in events if event.article_id is not None]
    return await read_cards(parts.catalogue, [*(each.article_id for each in purchases), *named, *others])


def _card(cards: Mapping[str, Card], article_id: str) -> Card:
    """The article's card; of one that the catalogue has forgotten, its id stands for the title."""
    return cards.get(article_id) or _FORGOTTEN | {"article_id": article_id, "title": article_id}


def _action(event: Event, cards: Mapping[str, Card]) -> dict[str, Any]:
    return {
        "type": event.type.value,
        "timestamp": event.timestamp,
        "query": event.query,
        "article": None if event.article_id is None else _card(cards, event.article_id),
    }


def _without(kept: Sequence[Purchase], returned: Iterable[str]) -> Filters:
    """As answers are narrowed: without what was bought or returned."""
    owned = {*(purchase.article_id for purchase in kept), *returned}
    return EVERYTHING.without(tuple(sorted(owned))) if owned else EVERYTHING


def _nothing(reason: str) -> dict[str, Any]:
    return {
        "available": False,
        "reason": reason,
        "session": [],
        "prompt": None,
        "tokens": None,
        "candidates": [],
        "written": None,
        "by_id": [],
        "by_title": [],
        "mixup": [],
        "n": 0,
    }
