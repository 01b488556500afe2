"""From style, trend and session to one ranking of articles in stock.

Each strategy is exact: it equals scoring every article in stock that passes the filters. That is cheap because every
score is f·q plus a bonus for sales that is never negative, so the answer lies in the union of the n best by f·q and the
articles that trend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from model_store import DNA_SIZE
from model_store.bundle import Blend
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Float32, Ranked, Rows, check_vectors
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


class _Trend(NamedTuple):
    """A snapshot's articles that are in stock: rows of one revision and their trend scores, best seller first."""

    rows: Rows
    scores: Float32


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
        if not bonus:
            return _answers(nearest, {source: _ranks(nearest.article_ids)})
        trend = self._trend(question)
        rows = np.union1d(trend.rows, index.rows_of(nearest.article_ids))
        scores = index.scores(rows, query)
        scores[np.searchsorted(rows, trend.rows)] += np.float32(bonus) * trend.scores
        lists = {source: _ranks(nearest.article_ids), "trending": _ranks(index.ids_of(trend.rows))}
        return _answers(index.ranked(rows, scores, n), lists)

    def _trending(self, question: _Question, style: Float32 | None) -> list[RankedArticle]:
        index, n = question.index, question.n
        trend = self._trend(question)
        ids = index.ids_of(trend.rows[:n])
        answers = [
            RankedArticle(article_id, float(score), {"trending": place})
            for place, (article_id, score) in enumerate(zip(ids, trend.scores, strict=False), 1)
        ]
        if len(answers) == n:
            return answers
        # All that trends is in the answer now, so the n nearest hold enough others.
        listed = set(ids)
        nearest = index.search(np.zeros(DNA_SIZE, np.float32) if style is None else style, n, question.filters)
        source = "catalogue" if style is None else "style"
        fill = [
            RankedArticle(article_id, 0.0, {source: place})
            for place, article_id in enumerate(nearest.article_ids, 1)
            if article_id not in listed
        ]
        return answers + fill[: n - len(answers)]

    def _trend(self, question: _Question) -> _Trend:
        """What of the snapshot is in stock and passes the filters."""
        index, snapshot = question.index, question.trending
        if self._cached is None or self._cached[:3] != (index, index.revision, snapshot):
            self._cached = (index, index.revision, snapshot, _in_stock(index, snapshot))
        trend = self._cached[3]
        passes = index.passes(trend.rows, question.filters)
        return trend if passes is None else _Trend(trend.rows[passes], trend.scores[passes])


def _in_stock(index: ArticleIndex, snapshot: TrendSnapshot) -> _Trend:
    available = np.fromiter(map(index.in_stock, snapshot.article_ids), bool, len(snapshot.article_ids))
    return _Trend(index.rows_of(snapshot.article_ids), snapshot.scores[available])


def _ranks(article_ids: list[str] | tuple[str, ...]) -> dict[str, int]:
    return {article_id: place for place, article_id in enumerate(article_ids, 1)}


def _answers(ranked: Ranked, lists: dict[str, dict[str, int]]) -> list[RankedArticle]:
    return [
        RankedArticle(
            article_id,
            float(score),
            {source: ranks[article_id] for source, ranks in lists.items() if article_id in ranks},
        )
        for article_id, score in zip(ranked.article_ids, ranked.scores, strict=True)
    ]
