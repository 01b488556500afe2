"""From style, trend, session and intent to one ranking of articles in stock.

Each strategy is as exact as the search: given the best by f·q, it equals scoring every article in stock that passes the
filters. That is cheap because every score is f·q plus bonuses, for sales, for what a language model generated and for
what was bought before, that are never negative: so the answer lies in the union of the best by f·q, what was bought
before, the ten best sellers, and what trends or is on the mixup list and can still be among the n best
(``TrendRows.contenders``, ``_within_reach``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.bundle import Blend
from model_store.generation import rank_bonus
from model_store.generation_spec import MIXUP_LENGTH
from model_store.popularity import POPULARITY
from service.engine.arrays import NO_ROWS, Float32, Listed, Rows, united
from service.engine.best_sellers import BONUSES, BestSellers
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Ranked, Sought
from service.engine.mixup import Intent, Mixup, MixupList
from service.engine.space import Candidates, check_vectors
from service.engine.trend_rows import Contenders, TrendRows
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


_STYLE_ALONE = Blend()
_NONE = Listed.whole(NO_ROWS)
_KEPT_TRENDS = 4  # snapshots: now's, and a few of the past

_WIDER = 2
"""So many times what is wanted are looked for where sales count, too: the more is known, the fewer best sellers can be
among the best."""

_COLD_GENERATED = 1.0
"""What the first of a mixup list gains for a customer without purchases, in the best seller's gains. No weight can be
fitted for them beside f·d, which they do not have."""


class RankedArticle(NamedTuple):
    """One article of a ranking. ``sources``: its 1-based rank in each source list that proposed it."""

    article_id: str
    score: float
    sources: dict[str, int]


class RankedArticles(NamedTuple):
    """k articles, the best first, column by column.

    ``ranks``: by source list the 1-based rank of each article (k) there, 0 where that did not propose it. ``rows`` as
    in ``Ranked``.
    """

    article_ids: Sequence[str]
    scores: Sequence[float]
    ranks: Mapping[str, Sequence[int]]
    rows: Rows

    def articles(self) -> list[RankedArticle]:
        """The same article by article."""
        return [
            RankedArticle(article_id, score, {source: of[place] for source, of in self.ranks.items() if of[place]})
            for place, (article_id, score) in enumerate(zip(self.article_ids, self.scores, strict=True))
        ]


_NOT_GENERATED = MixupList(NO_ROWS, NO_ROWS, NO_ROWS)


class Asked(NamedTuple):
    """One customer's request for a ranking of ``n`` articles that pass ``filters``; see ``Ranker.rank``.

    ``again``: what the customer bought before, the latest first, where that may be shown.
    """

    taste: Taste
    n: int
    strategy: Strategy = "blended"
    trending: TrendSnapshot = NO_TREND
    filters: Filters = EVERYTHING
    intent: Intent | None = None
    again: Sequence[str] = ()


class _Fusion(NamedTuple):
    """An answer by f·query and the bonuses of ``blend``. ``source``: what ``query`` float32 (128) stands for."""

    query: Float32
    blend: Blend
    source: str


class Ranker:
    """Ranks by one bundle's blend, and its embeddings of what was generated, where it has a generating half.

    ``best_sellers``: article ids, what sold most first, by what the bundle knows (``BestSellers``).

    Deterministic: equal scores stand in order of article id.
    """

    def __init__(self, blend: Blend, mixup: Mixup | None = None, best_sellers: Sequence[str] = ()):
        self._blend, self._mixup, self._best_sellers = blend, mixup, BestSellers(best_sellers)
        self._more_popular = np.zeros(DNA_SIZE, np.float32)
        self._more_popular[POPULARITY] = blend.popularity
        self._trends: dict[tuple[ArticleIndex, TrendSnapshot], TrendRows] = {}  # the least lately used first

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
        again: Sequence[str] = (),
    ) -> list[RankedArticle]:
        """The best ``n`` articles in stock that pass ``filters``; fewer where fewer pass.

        ``style``: f·d. ``blended``: that, and what ``Blend`` adds for popularity, sales, the places among the best
        sellers and in the mixup list, where there is an ``intent``, and for what may be bought ``again``. ``trending``:
        log(1 + sales), and what did not sell follows by style. ``generated``: the mixup list, scored by ``rank_bonus``;
        without an ``intent`` the blended answer. What is too new to have sold counts as average
        (``TrendSnapshot.with_newcomers``).

        A cold customer gets the trending list, and after it what did not sell by the style of an empty history, unless
        ``blend.cold_by_style`` has them ranked like all others; where a session is known, ``style`` and ``blended``
        become f·f̄ / ‖f̄‖² + log(1 + sales) / log(1 + highest sales), with f̄ the session's mean DNA: an article just
        like the session's mean gains as much as the best seller. So does, in ``blended``, the first of the mixup list,
        and those after it by ``rank_bonus``.

        Purchased articles stay out by ``filters.exclude``, which holds for every list here. Raises InvalidVector.
        """
        return self.rank_many(index, [Asked(taste, n, strategy, trending, filters, intent, again)])[0].articles()

    def rank_many(self, index: ArticleIndex, asked: Sequence[Asked]) -> list[RankedArticles]:
        """``rank`` for many, in the order given. They are searched for together, which costs less than one by one."""
        fusions = [self._fusion(each) for each in asked]
        sought = [
            Sought(fusion.query, _WIDER * each.n if fusion.blend.trend else each.n, each.filters)
            for each, fusion in zip(asked, fusions, strict=True)
            if fusion is not None
        ]
        found = iter(index.candidates_many(sought))
        return [
            self._listed(index, each) if fusion is None else self._fused(index, each, fusion, next(found))
            for each, fusion in zip(asked, fusions, strict=True)
        ]

    def _fusion(self, asked: Asked) -> _Fusion | None:
        """What the answer is a fusion of; None where it is a list that is there already."""
        taste, strategy = asked.taste, asked.strategy
        if strategy == "trending" or (strategy == "generated" and asked.intent is not None):
            return None
        if taste.cold and taste.session is not None and taste.session.any():
            mean = check_vectors(taste.session, "session vector").astype(np.float64)
            best_seller = asked.trending.scores[:1].tolist()
            blend = Blend(trend=1.0 / best_seller[0] if best_seller else 0.0, generated=_COLD_GENERATED)
            return _Fusion((mean / (mean @ mean)).astype(np.float32), blend, "session")
        if taste.style is None or (taste.cold and not self._blend.cold_by_style):
            return None
        if strategy == "style":
            return _Fusion(taste.style, _STYLE_ALONE, "style")
        return _Fusion(taste.style + self._more_popular, self._blend, "style")

    def mixup(self, index: ArticleIndex, intent: Intent, filters: Filters) -> MixupList:
        """The mixup list that an ``intent`` gives; empty where the bundle has no generating half."""
        return _NOT_GENERATED if self._mixup is None else self._mixup.make(index, intent, filters)

    def best_sellers(self, index: ArticleIndex, filters: Filters) -> Listed:
        """The best sellers in stock that pass ``filters``, where the blend counts them."""
        return self._best_sellers.leading(index, filters) if self._blend.best_sellers else _NONE

    def _counted(self, index: ArticleIndex, asked: Asked) -> Rows:
        """The mixup list, where it counts beside style and sales."""
        counts = self._blend.generated > 0 and asked.strategy in {"blended", "generated"}
        return self.mixup(index, asked.intent, asked.filters).rows if counts and asked.intent is not None else NO_ROWS

    def _fused(self, index: ArticleIndex, asked: Asked, fusion: _Fusion, found: Candidates) -> RankedArticles:
        """By f·query and bonuses, over all that is in stock, of which the nearest were ``found``."""
        n, filters, query, blend = asked.n, asked.filters, fusion.query, fusion.blend
        rows_listed = self._counted(index, asked)
        best = self.best_sellers(index, filters) if blend.best_sellers else _NONE
        again = _again(index, asked) if blend.bought_before else _NONE
        lifted = _lifted(best, again, blend) if len(best.rows) or len(again.rows) else _NOTHING_LIFTED
        nearest = index.ranked(found.rows, found.scores, n, filters.exclude)
        if not blend.trend and not len(rows_listed) and not len(lifted.rows):
            return _columns(nearest, {fusion.source: range(1, len(nearest.rows) + 1)})
        trend = self._trend(index, asked.trending)
        contenders = Contenders(NO_ROWS, float(nearest.scores[-1]) if len(nearest.rows) == n else -math.inf)
        if blend.trend:
            contenders = trend.contenders(query, blend.trend, n, filters, found, contenders.least)
        listed = _within_reach(rows_listed, trend, lifted, query, blend, nearest, contenders.least)
        rows = united(found.rows, contenders.rows, lifted.rows, listed.rows)
        scores = index.scores(rows, query) + np.float32(blend.trend) * trend.bonuses(rows)
        scores[np.searchsorted(rows, lifted.rows)] += lifted.gains
        ranked, generated = _with_generated(index, asked, listed, rows, scores, blend.generated)
        return _columns(
            ranked,
            {
                fusion.source: _ranks_in(Listed.whole(nearest.rows), ranked.rows),
                "trending": trend.ranks(ranked.rows, filters) if blend.trend else [0] * len(ranked.rows),
                "best_sellers": _ranks_in(best, ranked.rows),
                "bought_before": _ranks_in(again, ranked.rows),
                "generated": generated,
            },
        )

    def _listed(self, index: ArticleIndex, asked: Asked) -> RankedArticles:
        """What was generated, or what trends: lists that are there before anything is searched for."""
        if asked.strategy == "generated" and asked.intent is not None:
            listed = self.mixup(index, asked.intent, asked.filters).rows[: asked.n]
            ranked = Ranked(tuple(index.ids_of(listed)), rank_bonus(len(listed)), listed)
            return _columns(ranked, {"generated": range(1, len(listed) + 1)})
        return self._trending(index, asked)

    def _trending(self, index: ArticleIndex, asked: Asked) -> RankedArticles:
        n, filters, style = asked.n, asked.filters, asked.taste.style
        trend = self._trend(index, asked.trending)
        rows_listed = self._counted(index, asked)
        listed = Listed.whole(rows_listed)
        rows = united(trend.leading(filters, n), listed.rows)
        best_seller = float(trend.scores[0]) if len(trend.scores) else 1.0
        weight = _COLD_GENERATED * best_seller
        ranked, generated = _with_generated(index, asked, listed, rows, trend.bonuses(rows), weight)
        leading = _columns(ranked, {"trending": trend.ranks(ranked.rows, filters), "generated": generated})
        if len(ranked.rows) == n:
            return leading
        # All that trends or was generated is in the answer now, so the n nearest hold enough others.
        nearest = index.search(np.zeros(DNA_SIZE, np.float32) if style is None else style, n, filters)
        others = np.flatnonzero(~np.isin(nearest.rows, ranked.rows))[: n - len(ranked.rows)]
        return _followed_by(leading, nearest, others, "catalogue" if style is None else "style")

    def _trend(self, index: ArticleIndex, snapshot: TrendSnapshot) -> TrendRows:
        """The snapshot as it stands in the index at this moment."""
        key = (index, snapshot)
        trend = self._trends.pop(key, None)
        if trend is None or not trend.follow():
            trend = TrendRows(index, snapshot)
        self._trends[key] = trend
        if len(self._trends) > _KEPT_TRENDS:
            self._trends.pop(next(iter(self._trends)))
        return trend


class _Lifted(NamedTuple):
    """A few ``rows``, ascending, that the blend lifts whatever their f·query: each ``gains`` float32 (k)."""

    rows: Rows
    gains: Float32


_NOTHING_LIFTED = _Lifted(NO_ROWS, np.zeros(0, np.float32))


def _again(index: ArticleIndex, asked: Asked) -> Listed:
    """What was bought before, the latest first, as far as it may be shown."""
    return Listed.whole(index.allowed_among(asked.again, asked.filters)[:MIXUP_LENGTH])


def _lifted(best: Listed, again: Listed, blend: Blend) -> _Lifted:
    """The ``best`` sellers, and what was bought before and may be shown ``again``."""
    rows = united(best.rows, again.rows)
    gains = np.zeros(len(rows), np.float32)
    gains[np.searchsorted(rows, best.rows)] += np.float32(blend.best_sellers) * BONUSES[best.places]
    gains[np.searchsorted(rows, again.rows)] += np.float32(blend.bought_before) * rank_bonus(len(again.rows))
    return _Lifted(rows, gains)


def _within_reach(
    listed: Rows, trend: TrendRows, lifted: _Lifted, query: Float32, blend: Blend, nearest: Ranked, least: float
) -> Listed:
    """Those of the mixup list that can be among the best, of which each has at least ``least``.

    Nothing that may be shown has more of f·query than the first of ``nearest``.
    """
    if not len(listed) or not len(nearest.rows):
        return _NONE
    most = nearest.scores[0] + np.float32(blend.trend) * trend.bonuses(listed)
    most[np.isin(listed, lifted.rows)] += lifted.gains.max(initial=0.0)
    most += np.float32(blend.generated) * rank_bonus(len(listed))
    gained = blend.generated + blend.best_sellers + blend.bought_before
    error = 2 * trend.rounding(query, blend.trend) + 2.0**-22 * gained
    within = np.flatnonzero(most >= least - error)
    return Listed(listed[within], within)


def _with_generated(
    index: ArticleIndex, asked: Asked, listed: Listed, rows: Rows, scores: Float32, weight: float
) -> tuple[Ranked, list[int]]:
    """The best of ``rows`` by ``scores`` and what the mixup list adds; and the rank of each in that list, 0 for none.

    ``rows``, ascending, hold all that is ``listed``.
    """
    if len(listed.rows):
        scores[np.searchsorted(rows, listed.rows)] += np.float32(weight) * rank_bonus(MIXUP_LENGTH)[listed.places]
    ranked = index.ranked(rows, scores, asked.n, asked.filters.exclude)
    return ranked, _ranks_in(listed, ranked.rows)


def _ranks_in(listed: Listed, rows: Rows) -> list[int]:
    """The 1-based rank of each article in a list, 0 where it is not in it."""
    place_of = dict(zip(listed.rows.tolist(), listed.places.tolist(), strict=True))
    return [place_of.get(row, -1) + 1 for row in rows.tolist()]


def _columns(ranked: Ranked, ranks: Mapping[str, Sequence[int]]) -> RankedArticles:
    return RankedArticles(ranked.article_ids, ranked.scores.tolist(), ranks, ranked.rows)


def _followed_by(leading: RankedArticles, nearest: Ranked, others: NDArray[np.int64], source: str) -> RankedArticles:
    """``leading``, and after it what stands at the places ``others`` of ``nearest``, with a score of 0."""
    behind, none = len(others), [0] * len(leading.article_ids)
    return RankedArticles(
        [*leading.article_ids, *(nearest.article_ids[place] for place in others.tolist())],
        [*leading.scores, *[0.0] * behind],
        {name: [*of, *[0] * behind] for name, of in leading.ranks.items()} | {source: [*none, *(others + 1).tolist()]},
        np.concatenate([leading.rows, nearest.rows[others]]),
    )
