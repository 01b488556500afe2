"""Random small catalogues, and answers by brute force to hold the engine against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from model_store.records import Article
from service.engine.filters import Filters

CATEGORIES = ("Dress", "Shirt", "ΣΊΣΥΦΟΣ")
COLOURS = (None, "red", "Blue")


def article(number: int, *, category: str = "Dress", colour: str | None = None, price: float | None = None) -> Article:
    return Article(article_id=f"a{number}", title=f"Article {number}", category=category, colour=colour, price=price)


# Small whole numbers make ties common and every inner product exact.
vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3).map(
    lambda head: np.array(head + [0] * 125, dtype=np.float32)
)
articles = st.builds(
    article,
    st.integers(0, 30),
    category=st.sampled_from(CATEGORIES),
    colour=st.sampled_from(COLOURS),
    price=st.sampled_from((None, 5.0, 19.99, 20.0)),
)
filters = st.builds(
    Filters,
    category=st.frozensets(st.sampled_from(("dress", "SHIRT", "σίσυφοσ", "unheard of")), max_size=2),
    colour=st.frozensets(st.sampled_from(("RED", "blue")), max_size=2),
    price_min=st.sampled_from((None, 5.0, 20.0)),
    price_max=st.sampled_from((None, 19.99, 4.0)),
    exclude=st.frozensets(st.integers(0, 30).map(lambda number: f"a{number}"), max_size=6),
)


@dataclass
class Entry:
    article: Article
    dna: np.ndarray
    in_stock: bool
    title: np.ndarray | None = None


@dataclass
class Shop:
    """What an index should hold, in plain dictionaries."""

    live: dict[str, Entry] = field(default_factory=dict)
    removed: dict[str, np.ndarray] = field(default_factory=dict)

    def allowed(self, wanted: Filters) -> list[Entry]:
        return [entry for entry in self.live.values() if entry.in_stock and passes(entry.article, wanted)]

    def best(self, query: np.ndarray, k: int, wanted: Filters, by: str = "dna") -> list[tuple[str, float]]:
        scored = [(-float(getattr(entry, by) @ query), entry.article.article_id) for entry in self.allowed(wanted)]
        return [(article_id, -score) for score, article_id in sorted(scored)[:k]]


def passes(candidate: Article, wanted: Filters) -> bool:
    for facet in ("category", "brand", "colour", "gender"):
        values = {value.casefold() for value in getattr(wanted, facet)}
        if values and (getattr(candidate, facet) or "").casefold() not in values:
            return False
    if (wanted.price_min is not None or wanted.price_max is not None) and candidate.price is None:
        return False
    if wanted.price_min is not None and candidate.price < wanted.price_min:
        return False
    if wanted.price_max is not None and candidate.price > wanted.price_max:
        return False
    return candidate.article_id not in wanted.exclude
