"""Articles as the page shows them: records and stock as the catalogue has them now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.catalogue.records import CatalogueEntry
from service.catalogue.store import CatalogueStore

Card = dict[str, Any]

NO_DNA = ""  # of no bundle: records and stock alone are read
_FIELDS = ("article_id", "title", "category", "brand", "colour", "price")


def card_of(entry: CatalogueEntry) -> Card:
    """What is known of an article; ``quantity`` is None where no level was ever set, which counts as in stock."""
    return {
        **{field: getattr(entry.article, field) for field in _FIELDS},
        "quantity": None if entry.stock is None else entry.stock.quantity,
        "in_stock": entry.in_stock,
        "live": entry.live,
    }


async def read_cards(catalogue: CatalogueStore, article_ids: Iterable[str]) -> dict[str, Card]:
    """Cards by id, of those that were ever in the catalogue. Raises StoreUnavailable."""
    wanted = list(dict.fromkeys(article_ids))
    entries = await catalogue.read(wanted, NO_DNA) if wanted else []
    return {entry.article.article_id: card_of(entry) for entry in entries if entry is not None}
