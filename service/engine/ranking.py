"""From style, trend and session to one ranking of articles in stock.

Each strategy is exact: it equals scoring every article in stock that passes the filters. That is cheap because every
score is f·q plus a bonus for sales that is never negative, so the answer lies in the union of the n best by f·q and the
articles that trend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.bundle import Blend
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Float32, Ranked, Rows, check_vectors, within_reach
from service.engine.trending import NO_TREND, TrendSnapshot

Strategy = Literal["style", "trending", "blended"]


@dataclass(frozen=True)
class Taste:
    """What is known of a customer when the ranking is made.

    ``style`` d float32 (128), of a customer without purchases that of the empty history, or None where there is none at
    all; ``cold``: no purchase is known; ``session`` float32 (128): mean Fashion DNA of the articles clicked lately, or
    None. Only cold customers' answers are adapted by it: what it adds to a style is the LLM's part.
    """

    style: Float32 | None = None
    cold: bool = True
    session: Float32 | None = None


NOTHING_KNOWN = Taste()


@dataclass(frozen=True)
class RankedArticle:
    """One answer. ``sources``: its 1-based rank in each source list that proposed it."""

    article_id: str
    score: float
    sources: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Trend:
    """A snapshot's articles that are in stock, best seller first: rows of one revision, trend scores, DNA (T, 128)."""

    rows: Rows
    scores: Float32
    dna: Float32

    @cached_property
    def _order(self) -> Rows:
        return np.argsort(self.rows)

    def places(self, rows: Rows) -> Rows:
        """The place of each of ``rows`` in this list, from 0; -1 where it does not trend."""
        if not len(self.rows):
            return np.full(len(rows), -1)
        found = self._order[np.searchsorted(self.rows, rows, sorter=self._order).clip(max=len(self.rows) - 1)]
        return np.where(self.rows[found] == rows, found, -1)


@dataclass(frozen=True)
class _Question:
    """What every strategy is asked."""

    index: ArticleIndex
    n: int
    trending: TrendSnapshot
    filters: Filters


class Ranker:
    """Ranks by one bundle's blend. Deterministic: equal scores stand in order of article id."""

    def __init__(self, blend: Blend):
        self._blend = blend
        self._cached: tuple[ArticleIndex, int, TrendSnapshot, _Trend] | None = None

    def rank(
        self,
        index: ArticleIndex,
        taste: Taste,
        n: int,
        *,
        strategy: Strategy = "blended",
        trending: TrendSnapshot = NO_TREND,
        filters: Filters = EVERYTHING,
    ) -> list[RankedArticle]:
        """The best ``n`` articles in stock that pass ``filters``; fewer where fewer pass.

        ``style``: f·d. ``blended``: f·d + blend.trend · log(1 + sales). ``trending``: log(1 + sales), and what did not
        sell follows by style. A cold customer gets, for each of them, the trending list, and after it what did not
        sell by the style of an empty history; where a session is known, ``style`` and ``blended`` become
        f·f̄ / ‖f̄‖² + log(1 + sales) / log(1 + highest sales), with f̄ the session's mean DNA: an article just like the
        session's mean gains as much as the best seller. Purchased articles stay out by ``filters.exclude``, which holds
        for every list here. Raises InvalidVector.
        """
        question = _Question(index, n, trending, filters)
        session = taste.session if taste.cold and strategy != "trending" else None
        if session is not None and session.any():
            return self._adapted(question, session)
        if strategy == "trending" or taste.cold or taste.style is None:
            return self._trending(question, taste.style)
        return self._fused(question, taste.style, self._blend.trend if strategy == "blended" else 0.0, "style")

    def _adapted(self, question: _Question, session: Float32) -> list[RankedArticle]:
        mean = check_vectors(session, "session vector").astype(np.float64)
        query = (mean / (mean @ mean)).astype(np.float32)
        scores = question.trending.scores
        return self._fused(question, query, 1.0 / float(scores[0]) if len(scores) else 0.0, "session")

    def _fused(self, question: _Question, query: Float32, bonus: float, source: str) -> list[RankedArticle]:
        """By f·query + bonus · trend score, over all that is in stock."""
        index, n = question.index, question.n
        nearest = index.search(query, n, question.filters)
        near = index.rows_of(nearest.article_ids)
        if not bonus:
            return _answers(nearest, {source: range(1, len(near) + 1)})
        trend, passes = self._trend(question)
        bonuses = np.float32(bonus) * trend.scores
        rows = np.union1d(near, trend.rows[_contenders(index, trend, bonuses, query, n, passes)])
        places = trend.places(rows)
        scores = index.scores(rows, query)
        scores[places >= 0] += bonuses[places[places >= 0]]
        ranked = index.ranked(rows, scores, n)
        rank_near = {article_id: rank for rank, article_id in enumerate(nearest.article_ids, 1)}
        sold = trend.places(index.rows_of(ranked.article_ids))
        ranks = np.arange(1, len(trend.rows) + 1) if passes is None else np.cumsum(passes)
        return _answers(
            ranked,
            {
                source: [rank_near.get(article_id, 0) for article_id in ranked.article_ids],
                "trending": [int(ranks[place]) if place >= 0 else 0 for place in sold],
            },
        )

    def _trending(self, question: _Question, style: Float32 | None) -> list[RankedArticle]:
        index, n = question.index, question.n
        trend, passes = self._trend(question)
        chosen = (np.arange(len(trend.rows)) if passes is None else np.flatnonzero(passes))[:n]
        sold = Ranked(tuple(index.ids_of(trend.rows[chosen])), trend.scores[chosen])
        answers = _answers(sold, {"trending": range(1, len(chosen) + 1)})
        if len(answers) == n:
            return answers
        # All that trends is in the answer now, so the n nearest hold enough others.
        listed = set(sold.article_ids)
        nearest = index.search(np.zeros(DNA_SIZE, np.float32) if style is None else style, n, question.filters)
        source = "catalogue" if style is None else "style"
        fill = [
            RankedArticle(article_id, 0.0, {source: rank})
            for rank, article_id in enumerate(nearest.article_ids, 1)
            if article_id not in listed
        ]
        return answers + fill[: n - len(answers)]

    def _trend(self, question: _Question) -> tuple[_Trend, NDArray[np.bool_] | None]:
        """What of the snapshot is in stock, and which of it passes the filters: None where all does."""
        index, snapshot = question.index, question.trending
        if self._cached is None or self._cached[:3] != (index, index.revision, snapshot):
            self._cached = (index, index.revision, snapshot, _in_stock(index, snapshot))
        trend = self._cached[3]
        return trend, index.passes(trend.rows, question.filters)


def _in_stock(index: ArticleIndex, snapshot: TrendSnapshot) -> _Trend:
    rows = index.rows_of(snapshot.article_ids)
    available = rows >= 0
    return _Trend(rows[available], snapshot.scores[available], index.vectors_of(rows[available]))


def _contenders(
    index: ArticleIndex,
    trend: _Trend,
    bonuses: Float32,
    query: Float32,
    n: int,
    passes: NDArray[np.bool_] | None,
) -> Rows:
    """Places in the trend that may be among the ``n`` best of it by f·query + bonus."""
    approximate = trend.dna @ query + bonuses
    error = index.rounding(query) + 2.0**-22 * float(np.abs(approximate).max(initial=0.0))
    if passes is None:
        return within_reach(approximate, n, error)
    places = np.flatnonzero(passes)
    return places[within_reach(approximate[places], n, error)]


def _answers(ranked: Ranked, ranks: Mapping[str, Sequence[int]]) -> list[RankedArticle]:
    """``ranks``: per source the rank of each answer, 0 where that source did not propose it."""
    return [
        RankedArticle(
            article_id,
            float(ranked.scores[place]),
            {source: of_source[place] for source, of_source in ranks.items() if of_source[place]},
        )
        for place, article_id in enumerate(ranked.article_ids)
    ]
