"""What the language model reads of a customer and wrote, and how retrieval with mixup makes a list of it.

The prompt is written as a generator writes it, by the same code, of what the customer did until now: the model has read
it where what it wrote is fresh, and is about to otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from model_store.bundle import Bundle
from model_store.prompts import generated_text
from model_store.records import Event
from service.catalogue.store import CatalogueStore
from service.engine.arrays import Rows
from service.engine.filters import Filters
from service.engine.mixup import MixupList
from service.generation.prompting import Prompting, Reading, open_prompting
from service.intents import Found
from service.live import Live
from service.lookbook.cards import Card, read_cards

SHOWN = 12
"""Places of each list that are shown."""


class Prompts:
    """Writes prompts as the live bundle's generators do.

    What that takes (a tokenizer, the query-product memory) is opened when somebody first looks, since a worker answers
    without it.
    """

    def __init__(self, catalogue: CatalogueStore):
        self._catalogue = catalogue
        self._opened: WeakKeyDictionary[Bundle, Prompting] = WeakKeyDictionary()
        self._opening = asyncio.Lock()

    async def read(self, live: Live, events: Sequence[Event], query: str | None) -> Reading:
        """What a generator would read of ``events`` and ``query`` now.

        Raises StoreUnavailable; InvalidBundle where the bundle has no generating half.
        """
        prompting = await self._prompting(live.bundle)
        return await prompting.read(events, query, self._catalogue)

    async def _prompting(self, bundle: Bundle) -> Prompting:
        async with self._opening:
            found = self._opened.get(bundle)
            if found is None:
                found = await asyncio.to_thread(open_prompting, bundle)
                self._opened[bundle] = found
            return found


def written(found: Found) -> dict[str, Any] | None:
    """What was written last, and whether it reflects all that the customer did."""
    generation = found.generation
    if generation is None:
        return None
    return {
        "text": generated_text(generation.article_id, generation.title),
        "article_id": generation.article_id,
        "title": generation.title,
        "freshness": found.freshness.value,
        "written_at": generation.written_at,
        "seconds": generation.seconds,
        "session_length": generation.session_length,
    }


async def lists(live: Live, found: Found, filters: Filters, catalogue: CatalogueStore) -> dict[str, Any]:
    """The first places of both retrieval lists and of the merged one, which says where each place comes from.

    Raises StoreUnavailable.
    """
    spec = live.bundle.manifest.generation
    made = None if found.intent is None else live.ranker.mixup(live.index, found.intent, filters)
    n = 0 if spec is None else spec.mixup
    ids = _Ids() if made is None else _Ids.of(live, made)
    cards = await read_cards(catalogue, [*ids.by_id, *ids.by_title, *ids.merged])
    by_id = frozenset(ids.by_id[:n])
    merged = _places(ids.merged, cards)
    for entry in merged:
        entry["from"] = "id" if entry["article"]["article_id"] in by_id else "title"
    return {"by_id": _places(ids.by_id, cards), "by_title": _places(ids.by_title, cards), "mixup": merged, "n": n}


@dataclass(frozen=True)
class _Ids:
    """The lists' first articles. They are read before anything is awaited: rows hold while the index rests."""

    by_id: Sequence[str] = ()
    by_title: Sequence[str] = ()
    merged: Sequence[str] = ()

    @classmethod
    def of(cls, live: Live, made: MixupList) -> _Ids:
        def ids(rows: Rows) -> list[str]:
            return live.index.ids_of(rows[:SHOWN])

        return cls(ids(made.by_id), ids(made.by_title), ids(made.rows))


def _places(article_ids: Sequence[str], cards: Mapping[str, Card]) -> list[dict[str, Any]]:
    placed = enumerate(article_ids, 1)
    return [{"place": place, "article": cards[each]} for place, each in placed if each in cards]
