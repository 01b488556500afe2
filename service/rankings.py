"""From what is known of customers to their rankings: style at a moment, search, and order, for many at once.

Pure: all that it needs is in memory. Customers who ask within a moment share one run of the LSTM and one search, which
costs each of them less than a run and a search of their own (``service.gathered``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model_store.records import Event, EventType
from service.engine.arrays import Float32
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex
from service.engine.mixup import Intent
from service.engine.ranking import Asked, RankedArticles, Strategy, Taste
from service.engine.trending import TrendSnapshot
from service.live import Live
from service.state.customer import CustomerState, CustomerView


class Wish(NamedTuple):
    """One request for recommendations. ``at``: Unix seconds, None for now.

    ``query``: what the customer is searching for; ``wait``: seconds that a fresh generation is worth.
    """

    customer_id: str
    n: int = 20
    strategy: Strategy = "blended"
    filters: Filters = EVERYTHING
    exclude_purchased: bool = True
    at: int | None = None
    explain: bool = False
    query: str | None = None
    wait: float = 0.0


class Known(NamedTuple):
    """What is known of a customer at the moment that is asked for. ``at``: Unix seconds.

    ``view``: as it was read, with the state that the live bundle makes of it.
    """

    state: CustomerState
    view: CustomerView
    at: int
    degraded: bool

    @property
    def session(self) -> tuple[Event, ...]:
        """Clicks and searches, oldest first."""
        return self.view.session

    @property
    def cold(self) -> bool:
        """Whether no purchase is known."""
        return self.state.pending is None


class Informed(NamedTuple):
    """A wish, and all that its ranking depends on."""

    live: Live
    wish: Wish
    known: Known
    trending: TrendSnapshot
    intent: Intent | None


class Ranking(NamedTuple):
    """An answer's articles, best first, and what they were ranked by.

    ``open_jsons``: what the index shows of each article at that moment (``ArticleIndex.open_jsons``). ``again``: what
    the customer bought before, the latest first, where that may be shown. ``styled`` and ``ranked``: when the style was
    known, and the ranking, of all who shared the work (``perf_counter``).
    """

    articles: RankedArticles
    open_jsons: list[bytes]
    taste: Taste
    filters: Filters
    again: Sequence[str]
    styled: float
    ranked: float


def rank_together(informed: Sequence[Informed]) -> list[Ranking]:
    """The rankings of many wishes, in their order. Raises InvalidVector where a state holds no numbers."""
    rankings: dict[int, Ranking] = {}
    for live in {id(each.live): each.live for each in informed}.values():
        places = [place for place, each in enumerate(informed) if each.live is live]
        rankings.update(zip(places, _rank(live, [informed[place] for place in places]), strict=True))
    return [rankings[place] for place in range(len(informed))]


def _rank(live: Live, informed: Sequence[Informed]) -> list[Ranking]:
    styles = live.style.styles([(each.known.state, each.known.at) for each in informed])
    tastes = [_taste(live.index, each.known, style) for each, style in zip(informed, styles, strict=True)]
    styled = time.perf_counter()
    asked = [
        Asked(
            taste,
            each.wish.n,
            each.wish.strategy,
            each.trending,
            _without_purchased(each.wish, each.known.state),
            each.intent,
            () if each.wish.exclude_purchased else each.known.state.purchased[::-1],
        )
        for each, taste in zip(informed, tastes, strict=True)
    ]
    ranked = live.ranker.rank_many(live.index, asked)
    now = time.perf_counter()
    return [
        Ranking(articles, live.index.open_jsons(articles.rows), each.taste, each.filters, each.again, styled, now)
        for articles, each in zip(ranked, asked, strict=True)
    ]


def _taste(index: ArticleIndex, known: Known, style: Float32) -> Taste:
    """Style d at the moment, and for a customer without purchases the mean Fashion DNA of what was clicked lately."""
    return Taste(style, known.cold, _session_dna(index, known.session) if known.cold else None)


def _session_dna(index: ArticleIndex, session: Sequence[Event]) -> Float32 | None:
    clicked = (event.article_id for event in session if event.type is EventType.CLICK)
    vectors = [dna for article_id in clicked if article_id and (dna := index.dna_of(article_id)) is not None]
    return np.mean(vectors, axis=0, dtype=np.float32) if vectors else None


def _without_purchased(wish: Wish, state: CustomerState) -> Filters:
    if not wish.exclude_purchased or not (state.purchased or state.returned):
        return wish.filters
    return wish.filters.without((*state.purchased, *state.returned))
