"""From style, trend, session and intent to one ranking of articles in stock.

Each strategy is exact: it equals scoring every article in stock that passes the filters. That is cheap because every
score is f·q plus bonuses, for sales and for what a language model generated, that are never negative: so the answer
lies in the union of the n best by f·q, the n best of what trends, and the few hundred articles of the mixup list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.bundle import Blend
from model_store.generation import rank_bonus
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Ranked
from service.engine.mixup import Intent, Mixup, MixupList
from service.engine.space import Float32, Rows, check_vectors, within_reach
from service.engine.trending import NO_TREND, TrendSnapshot

Strategy = Literal["style", "trending", "generated", "blended"]


@dataclass(frozen=True)
class Taste:
    """What is known of a customer when the ranking is made.

    ``style`` d float32 (128), of a customer without purchases that of the empty history, or None where there is none at
    all; ``cold``: no purchase is known; ``session`` float32 (128): mean Fashion DNA of the articles clicked lately, or
    None. Only cold customers' answers are adapted by it: what it adds to a style is the language model's part
    (``service.engine.mixup.Intent``).
    """

    style: Float32 | None = None
    cold: bool = True
    session: Float32 | None = None


_KEPT_TRENDS = 4  # snapshots: now's, and a few of the past


_COLD_GENERATED = 1.0
"""What the first of a mixup list gains for a customer without purchases, in the best seller's gains. No weight can be
fitted for them beside f·d, which they do not have."""


@dataclass(frozen=True)
class RankedArticle:
    """One answer. ``sources``: its 1-based rank in each source list that proposed it."""

    article_id: str
    score: float
    sources: dict[str, int]


class _Trend:
    """A snapshot's articles, newcomers with them, as they stand in an index, and follow its changes, best seller first.

    ``rows`` int64 (T), -1 where not in stock; ``dna`` float32 (T, 128), the Fashion DNA of what is.
    """

    def __init__(self, index: ArticleIndex, snapshot: TrendSnapshot):
        self.index = index
        self.snapshot = snapshot.with_newcomers(index.created_since(snapshot.since), index.in_stock_count)
        self.scores = self.snapshot.scores
        self.rows = np.full(len(self.scores), -1, np.int64)
        self.dna: Float32 = np.zeros((len(self.scores), DNA_SIZE), np.float32)
        self._read(np.arange(len(self.scores)), self.snapshot.article_ids)

    def follow(self) -> bool:
        """Take in what changed in the index; False where so much did that it is better to begin again."""
        touched = self.index.touched_since(self._revision)
        places = self.snapshot.places
        if touched is None or any(
            article_id not in places and self.index.is_newer(article_id, self.snapshot.since) for article_id in touched
        ):
            return False
        article_ids = [article_id for article_id in touched if article_id in places]
        self._read(np.array([places[article_id] for article_id in article_ids], np.int64), article_ids)
        return True

    def _read(self, places: Rows, article_ids: Sequence[str]) -> None:
        rows = self.index.rows_of(article_ids)
        self.rows[places] = rows
        self.dna[places[rows >= 0]] = self.index.vectors_of(rows[rows >= 0])
        self._revision = self.index.revision

    def allowed(self, filters: Filters) -> NDArray[np.bool_]:
        """Which of the snapshot's articles are in stock and pass the filters."""
        in_stock = self.rows >= 0
        passes = self.index.passes(self.rows[in_stock], filters)
        if passes is not None:
            in_stock[in_stock] = passes
        return in_stock

    def contenders(self, query: Float32, bonuses: Float32, n: int, allowed: NDArray[np.bool_]) -> Rows:
        """Rows of the allowed articles that may be among the ``n`` best of them by f·query + bonus."""
        approximate = self.dna @ query + bonuses
        error = self.index.rounding(query) + 2.0**-22 * float(np.abs(approximate).max(initial=0.0))
        return self.rows[allowed][within_reach(approximate[allowed], n, error)]

    def places(self, article_ids: Sequence[str]) -> Rows:
        """The place of each article in the snapshot, -1 where it is not."""
        return np.array([self.snapshot.places.get(article_id, -1) for article_id in article_ids], np.int64)

    def ranks(self, article_ids: Sequence[str], allowed: NDArray[np.bool_]) -> list[int]:
        """The 1-based place of each article among the ``allowed`` ones, 0 where it does not trend."""
        ranks = np.cumsum(allowed)
        return [int(ranks[place]) if place >= 0 else 0 for place in self.places(article_ids).tolist()]


_NOT_GENERATED = MixupList((), (), ())


@dataclass(frozen=True)
class _Question:
    """What every strategy is asked. ``listed``: the mixup list, empty where there is none or it does not count."""

    index: ArticleIndex
    n: int
    trending: TrendSnapshot
    filters: Filters
    listed: tuple[str, ...]


class Ranker:
    """Ranks by one bundle's blend, and its embeddings of what was generated, where it has a generating half.

    Deterministic: equal scores stand in order of article id.
    """

    def __init__(self, blend: Blend, mixup: Mixup | None = None):
        self._blend, self._mixup = blend, mixup
        self._trends: dict[tuple[ArticleIndex, TrendSnapshot], _Trend] = {}  # the least lately used first

    def rank(
        self,
        index: ArticleIndex,
        taste: Taste,
        n: int,
        *,
        strategy: Strategy = "blended",
        trending: TrendSnapshot = NO_TREND,
        filters: Filters = EVERYTHING,
        intent: Intent | None = None,
    ) -> list[RankedArticle]:
        """The best ``n`` articles in stock that pass ``filters``; fewer where fewer pass.

        ``style``: f·d. ``blended``: f·d + blend.trend · log(1 + sales) + blend.generated · ``rank_bonus`` of the places
        in the mixup list, where there is an ``intent``. ``trending``: log(1 + sales), and what did not sell follows by
        style. ``generated``: the mixup list, scored by ``rank_bonus``; without an ``intent`` the blended answer. What
        is too new to have sold counts as average (``TrendSnapshot.with_newcomers``).

        A cold customer gets the trending list, and after it what did not sell by the style of an empty history; where a
        session is known, ``style`` and ``blended`` become f·f̄ / ‖f̄‖² + log(1 + sales) / log(1 + highest sales), with
        f̄ the session's mean DNA: an article just like the session's mean gains as much as the best seller. So does, in
        ``blended``, the first of the mixup list, and those after it by ``rank_bonus``.

        Purchased articles stay out by ``filters.exclude``, which holds for every list here. Raises InvalidVector.
        """
        if strategy == "generated" and intent is not None:
            listed = self.mixup(index, intent, filters).article_ids[:n]
            return _answers(Ranked(listed, rank_bonus(len(listed))), {"generated": range(1, len(listed) + 1)})
        blended = strategy in {"blended", "generated"}
        counts = blended and intent is not None and self._blend.generated > 0
        mixed = self.mixup(index, intent, filters) if counts and intent is not None else _NOT_GENERATED
        question = _Question(index, n, trending, filters, mixed.article_ids)
        session = taste.session if taste.cold and strategy != "trending" else None
        if session is not None and session.any():
            return self._adapted(question, session)
        if strategy == "trending" or taste.cold or taste.style is None:
            return self._trending(question, taste.style)
        return self._fused(question, taste.style, self._blend if blended else Blend(), "style")

    def mixup(self, index: ArticleIndex, intent: Intent, filters: Filters) -> MixupList:
        """The mixup list that an ``intent`` gives; empty where the bundle has no generating half."""
        return _NOT_GENERATED if self._mixup is None else self._mixup.make(index, intent, filters)

    def _adapted(self, question: _Question, session: Float32) -> list[RankedArticle]:
        mean = check_vectors(session, "session vector").astype(np.float64)
        query = (mean / (mean @ mean)).astype(np.float32)
        scores = question.trending.scores
        trend = 1.0 / float(scores[0]) if len(scores) else 0.0
        return self._fused(question, query, Blend(trend=trend, generated=_COLD_GENERATED), "session")

    def _fused(self, question: _Question, query: Float32, blend: Blend, source: str) -> list[RankedArticle]:
        """By f·query and the bonuses of ``blend``, over all that is in stock."""
        index, n = question.index, question.n
        nearest = index.search(query, n, question.filters)
        near = index.rows_of(nearest.article_ids)
        if not blend.trend and not question.listed:
            return _answers(nearest, {source: range(1, len(near) + 1)})
        generated = _Generated(index, question.listed)
        trend = self._trend(question)
        allowed = trend.allowed(question.filters)
        bonuses = np.float32(blend.trend) * trend.scores
        contenders = trend.contenders(query, bonuses, n, allowed) if blend.trend else near
        rows = _distinct(near, contenders, generated.rows)
        scores = index.scores(rows, query)
        places = trend.places(index.ids_of(rows))
        scores[places >= 0] += bonuses[places[places >= 0]]
        generated.add(rows, scores, blend.generated)
        ranked = index.ranked(rows, scores, n)
        return _answers(
            ranked,
            {
                source: _ranks_in(nearest.article_ids, ranked.article_ids),
                "trending": trend.ranks(ranked.article_ids, allowed) if blend.trend else [0] * n,
                "generated": _ranks_in(question.listed, ranked.article_ids),
            },
        )

    def _trending(self, question: _Question, style: Float32 | None) -> list[RankedArticle]:
        index, n = question.index, question.n
        trend = self._trend(question)
        allowed = trend.allowed(question.filters)
        generated = _Generated(index, question.listed)
        rows = _distinct(trend.rows[np.flatnonzero(allowed)[:n]], generated.rows)
        places = trend.places(index.ids_of(rows))
        scores = np.zeros(len(rows), np.float32)
        scores[places >= 0] = trend.scores[places[places >= 0]]
        best_seller = float(trend.scores[0]) if len(trend.scores) else 1.0
        generated.add(rows, scores, _COLD_GENERATED * best_seller)
        ranked = index.ranked(rows, scores, n)
        answers = _answers(
            ranked,
            {
                "trending": trend.ranks(ranked.article_ids, allowed),
                "generated": _ranks_in(question.listed, ranked.article_ids),
            },
        )
        if len(answers) == n:
            return answers
        # All that trends or was generated is in the answer now, so the n nearest hold enough others.
        listed = set(ranked.article_ids)
        nearest = index.search(np.zeros(DNA_SIZE, np.float32) if style is None else style, n, question.filters)
        source = "catalogue" if style is None else "style"
        fill = [
            RankedArticle(article_id, 0.0, {source: rank})
            for rank, article_id in enumerate(nearest.article_ids, 1)
            if article_id not in listed
        ]
        return answers + fill[: n - len(answers)]

    def _trend(self, question: _Question) -> _Trend:
        """The snapshot as it stands in the index at this moment."""
        key = (question.index, question.trending)
        trend = self._trends.pop(key, None)
        if trend is None or not trend.follow():
            trend = _Trend(question.index, question.trending)
        self._trends[key] = trend
        if len(self._trends) > _KEPT_TRENDS:
            self._trends.pop(next(iter(self._trends)))
        return trend


class _Generated:
    """A mixup list's articles, all of them in stock: ``rows`` int64 in order of the list."""

    def __init__(self, index: ArticleIndex, article_ids: Sequence[str]):
        self.rows = index.rows_of(article_ids)

    def add(self, rows: Rows, scores: Float32, weight: float) -> None:
        """Add what they gain to the ``scores`` of ``rows``, which are ascending and hold all of them."""
        scores[np.searchsorted(rows, self.rows)] += np.float32(weight) * rank_bonus(len(self.rows))


def _distinct(*lists: Rows) -> Rows:
    """The rows of all lists, ascending: ``np.unique``, which hashes, takes several times as long for so few."""
    rows = np.sort(np.concatenate(lists))
    return rows[np.concatenate([[True], rows[1:] != rows[:-1]])] if len(rows) else rows


def _ranks_in(listed: Sequence[str], article_ids: Sequence[str]) -> list[int]:
    """The 1-based place of each article in a list, 0 where it is not in it."""
    rank_of = {article_id: rank for rank, article_id in enumerate(listed, 1)}
    return [rank_of.get(article_id, 0) for article_id in article_ids]


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
