"""What one customer should see: state read → style at a moment → strategy → ranked articles → JSON.

Everything that is asked for lies in memory but the customer's state, which is one round trip to the store. While the
store does not answer, what was last known of the customer stands in for it, and the answer says so.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import orjson

from model_store.popularity import trend_score
from model_store.records import Event, EventType
from service.breaker import Breaker
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex
from service.engine.ranking import RankedArticle, Strategy, Taste
from service.engine.similar import similar
from service.engine.space import Float32
from service.engine.trending import TrendSnapshot
from service.errors import StoreUnavailable, UnknownArticle
from service.live import Live
from service.metrics import Metrics
from service.state.customer import CustomerState, CustomerView, empty_state
from service.state.store import CustomerStore

log = logging.getLogger(__name__)

LAST_KNOWN = 20_000
"""Customers whose view is kept for the time that the store does not answer: about 3 KB each."""


class Trends(Protocol):
    """Where recent sales come from."""

    async def snapshot(self, at: int | None) -> TrendSnapshot:
        """Sales of the window that ends at ``at`` (Unix seconds), or now. Raises StoreUnavailable."""
        ...


@dataclass(frozen=True)
class Wish:
    """One request for recommendations. ``at``: Unix seconds, None for now."""

    customer_id: str
    n: int = 20
    strategy: Strategy = "blended"
    filters: Filters = EVERYTHING
    exclude_purchased: bool = True
    at: int | None = None
    explain: bool = False


@dataclass(frozen=True)
class Known:
    """What is known of a customer at the moment that is asked for. ``at``: Unix seconds."""

    state: CustomerState
    session: tuple[Event, ...]
    at: int
    degraded: bool

    @property
    def cold(self) -> bool:
        """Whether no purchase is known."""
        return self.state.pending is None


class Recommender:
    """Answers requests for recommendations."""

    def __init__(
        self,
        customers: CustomerStore,
        trends: Trends,
        breaker: Breaker,
        metrics: Metrics,
        clock: Callable[[], int],
    ):
        self._customers, self._trends, self._breaker = customers, trends, breaker
        self._metrics, self._clock = metrics, clock
        self._last_known: OrderedDict[str, CustomerView] = OrderedDict()

    async def recommend(self, live: Live, wish: Wish) -> bytes:
        """The answer's JSON (``service.http.schemas.Recommendations``), from the one bundle ``live``."""
        start = time.perf_counter()
        known = await self._known(live, wish)
        trend = await self._trend(wish.at)
        read = time.perf_counter()
        taste = taste_of(live, known)
        styled = time.perf_counter()
        ranked = live.ranker.rank(
            live.index,
            taste,
            wish.n,
            strategy=wish.strategy,
            trending=trend,
            filters=_without_purchased(wish, known.state),
        )
        searched = time.perf_counter()
        answer = _answer(live, wish, known, taste, trend, ranked)
        self._metrics.observe_stages(
            redis=read - start, lstm=styled - read, search=searched - styled, total=time.perf_counter() - start
        )
        if known.degraded:
            self._metrics.degraded.inc()
        return answer

    def forget(self, customer_id: str) -> None:
        """Keep nothing of an erased customer."""
        self._last_known.pop(customer_id, None)

    async def _known(self, live: Live, wish: Wish) -> Known:
        """State and session from the store, or from memory while it does not answer."""
        customer_id = wish.customer_id
        if self._breaker.may_try():
            try:
                view = await self._customers.read(customer_id)
                state = await self._state(live, customer_id, view, wish.at)
            except StoreUnavailable as error:
                log.warning("recommending from memory: %s", error)
                self._breaker.failed()
            else:
                self._breaker.succeeded()
                if wish.at is None:
                    self._remember(customer_id, CustomerView(state, view.revision, view.load_session))
                return Known(state, view.session, self._moment(wish, state), degraded=False)
        view = self._last_known.get(customer_id, CustomerView())
        state = _usable(live, view.state)
        return Known(state, view.session, self._moment(wish, state), degraded=True)

    async def _trend(self, at: int | None) -> TrendSnapshot:
        """Sales before the moment; while those cannot be read, the last ones that were."""
        try:
            return await self._trends.snapshot(at)
        except StoreUnavailable:
            return await self._trends.snapshot(None)

    async def _state(self, live: Live, customer_id: str, view: CustomerView, at: int | None) -> CustomerState:
        """The state that ``live``'s bundle makes of the history up to ``at``."""
        state = view.state
        if state is not None and live.style.fits(state) and not _lies_before_pending(at, state):
            return state
        history = await self._customers.read_log(customer_id)
        if not history.events:
            return empty_state(live.style.bundle_version)
        if state is None or not live.style.fits(state):
            state = live.style.replay(history.events)
            self._metrics.replays.inc()
            await self._customers.put_state(customer_id, state, history.revision)
        if at is not None and _lies_before_pending(at, state):
            return live.style.replay([event for event in history.events if event.timestamp <= at])
        return state

    def _moment(self, wish: Wish, state: CustomerState) -> int:
        """The time to read the style at: what is asked for, else now, but never before the latest purchase."""
        if wish.at is not None:
            return wish.at
        return self._clock() if state.pending is None else max(self._clock(), state.pending.timestamp)

    def _remember(self, customer_id: str, view: CustomerView) -> None:
        self._last_known[customer_id] = view
        self._last_known.move_to_end(customer_id)
        if len(self._last_known) > LAST_KNOWN:
            self._last_known.popitem(last=False)


def similar_articles(live: Live, article_id: str, n: int, filters: Filters) -> bytes:
    """The JSON (``service.http.schemas.SimilarArticles``) of what in stock is closest to an article of the catalogue.

    Raises UnknownArticle.
    """
    dna = live.index.dna_of(article_id)
    if dna is None or not live.index.knows(article_id):
        raise UnknownArticle(f"article '{article_id}' is not in the catalogue")
    found = similar(live.index, dna, n, replace(filters, exclude=filters.exclude | {article_id}))
    articles = b",".join(
        _with(live.index, neighbour, {"score": float(score)})
        for neighbour, score in zip(found.article_ids, found.scores, strict=True)
    )
    head = orjson.dumps({"article_id": article_id, "bundle": live.version})
    return head[:-1] + b',"articles":[' + articles + b"]}"


def taste_of(live: Live, known: Known) -> Taste:
    """Style d at the moment, and for a customer without purchases the mean Fashion DNA of what was clicked lately."""
    style = live.style.style(known.state, known.at)
    return Taste(style, known.cold, _session_dna(live.index, known.session) if known.cold else None)


def _session_dna(index: ArticleIndex, session: Sequence[Event]) -> Float32 | None:
    clicked = (event.article_id for event in session if event.type is EventType.CLICK)
    vectors = [dna for article_id in clicked if article_id and (dna := index.dna_of(article_id)) is not None]
    return np.mean(vectors, axis=0, dtype=np.float32) if vectors else None


def _lies_before_pending(at: int | None, state: CustomerState) -> bool:
    return at is not None and state.pending is not None and at < state.pending.timestamp


def _usable(live: Live, state: CustomerState | None) -> CustomerState:
    """A remembered state; of one from another bundle only what was bought is of use while it cannot be replayed."""
    if state is None:
        return empty_state(live.style.bundle_version)
    if live.style.fits(state):
        return state
    return replace(empty_state(live.style.bundle_version), purchased=state.purchased, returned=state.returned)


def _without_purchased(wish: Wish, state: CustomerState) -> Filters:
    if not wish.exclude_purchased or not (state.purchased or state.returned):
        return wish.filters
    return replace(wish.filters, exclude=wish.filters.exclude.union(state.purchased, state.returned))


def _answer(
    live: Live, wish: Wish, known: Known, taste: Taste, trend: TrendSnapshot, ranked: Sequence[RankedArticle]
) -> bytes:
    head: dict[str, Any] = {
        "customer_id": wish.customer_id,
        "bundle": live.version,
        "strategy": wish.strategy,
        "degraded": known.degraded,
        "generation": "none",
    }
    if wish.explain:
        head["explain"] = _explain(known, taste)
    articles: list[bytes] = []
    for each in ranked:
        more: dict[str, Any] = {"score": each.score, "sources": each.sources}
        if wish.explain:
            more["explain"] = _explain_score(live, taste, trend, each.article_id)
        articles.append(_with(live.index, each.article_id, more))
    return orjson.dumps(head)[:-1] + b',"articles":[' + b",".join(articles) + b"]}"


def _with(index: ArticleIndex, article_id: str, more: dict[str, Any]) -> bytes:
    """The article's own JSON, which was written when it came into the index, and what this answer adds to it."""
    article = index.article_json(article_id)
    assert article is not None
    return article[:-1] + b"," + orjson.dumps(more)[1:]


def _explain(known: Known, taste: Taste) -> dict[str, Any]:
    return {
        "at": known.at,
        "cold": known.cold,
        "purchases": len(known.state.purchased),
        "session_events": len(known.session),
        "session_counts": taste.session is not None,
    }


def _explain_score(live: Live, taste: Taste, trend: TrendSnapshot, article_id: str) -> dict[str, Any]:
    """The parts that a score may be made of; which of them count depends on the strategy (``engine.ranking``)."""
    dna = live.index.dna_of(article_id)
    sales = trend.sales.get(article_id, 0.0)
    return {
        "style": None if dna is None or taste.style is None else float(dna @ taste.style),
        "session": None if dna is None or taste.session is None else float(dna @ taste.session),
        "recent_sales": sales,
        "trend": float(trend_score(np.array([sales]))[0]),
        "trend_weight": live.bundle.manifest.blend.trend,
    }
