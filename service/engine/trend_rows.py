"""What trends, as it stands in an index: rows and Fashion DNA, best seller first, kept abreast of every change.

What passes a filter changes with the index, what a customer has bought with the customer: the one is kept, so that a
ranking only has to look at the other.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from service.engine.arrays import NO_ROWS, Float32, Rows, largest
from service.engine.filters import Filters
from service.engine.index import ArticleIndex
from service.engine.space import Candidates
from service.engine.trending import TrendSnapshot

_KEPT_FILTERS = 16
_FIRST = 256
"""Places that are looked at first, to learn how far down a search for contenders has to go."""


class _Passing(NamedTuple):
    """Places in a snapshot whose articles are in stock and pass a filter: as truth values (T), and int64, ascending."""

    mask: NDArray[np.bool_]
    places: Rows

    @property
    def all(self) -> bool:
        return len(self.places) == len(self.mask)


class Contenders(NamedTuple):
    """``rows`` that can be among the best; ``least``: so much as many articles as are asked for have at least."""

    rows: Rows
    least: float


class TrendRows:
    """A snapshot's articles, newcomers with them, as they stand in an index.

    ``scores`` float32 (T), highest first. For a place that is not in stock, ``rows`` int64 (T) holds -1.
    """

    def __init__(self, index: ArticleIndex, snapshot: TrendSnapshot):
        self._index = index
        self._snapshot = snapshot.with_newcomers(index.created_since(snapshot.since), index.in_stock_count)
        self.scores = self._snapshot.scores
        self.rows = np.full(len(self.scores), -1, np.int64)
        self._scores_or_none = np.append(self.scores, np.float32(0))  # of a place, and 0 at -1
        self._falling: list[float] = (-self.scores).tolist()
        self._dna_and_score: Float32 = np.zeros((len(self.scores), DNA_SIZE + 1), np.float32)  # of what is in stock
        self._dna_and_score[:, DNA_SIZE] = self.scores
        self._place_at = np.full(index.rows, -1, np.int64)  # of each row
        self._passing: dict[Filters, _Passing] = {}
        self._read(np.arange(len(self.scores)), self._snapshot.article_ids)

    def follow(self) -> bool:
        """Take in what changed in the index; False where so much did that it is better to begin again."""
        if self._revision == self._index.revision:
            return True
        touched = self._index.touched_since(self._revision)
        places = self._snapshot.places
        if touched is None or any(
            article_id not in places and self._index.is_newer(article_id, self._snapshot.since)
            for article_id in touched
        ):
            return False
        article_ids = [article_id for article_id in touched if article_id in places]
        self._read(np.array([places[article_id] for article_id in article_ids], np.int64), article_ids)
        return True

    def _read(self, places: Rows, article_ids: Sequence[str]) -> None:
        self._revision = self._index.revision
        height = self._index.rows
        if height > len(self._place_at):
            more = np.full(height + height // 8 - len(self._place_at), -1, np.int64)
            self._place_at = np.concatenate([self._place_at, more])
        if not len(places):
            return
        self._passing.clear()
        before, rows = self.rows[places], self._index.rows_of(article_ids)
        self.rows[places] = rows
        self._place_at[before[before >= 0]] = -1
        here, rows = places[rows >= 0], rows[rows >= 0]
        self._place_at[rows] = here
        self._dna_and_score[here, :DNA_SIZE] = self._index.vectors_of(rows)

    def bonuses(self, rows: Rows) -> Float32:
        """The trend score of each of ``rows``, all in stock, float32 (len(rows)); 0 for what does not trend."""
        return self._scores_or_none[self._place_at[rows]]

    def leading(self, filters: Filters, n: int) -> Rows:
        """Rows of the best sellers in stock that pass ``filters``: ``n`` of them, besides those that are excluded."""
        return self.rows[self._that_pass(filters).places[: n + len(filters.exclude)]]

    def ranks(self, rows: Rows, filters: Filters) -> list[int]:
        """The 1-based rank of each of ``rows`` among all that trends and may be shown; 0 where it does not trend.

        ``rows`` may be shown, too.
        """
        passing, places = self._that_pass(filters), self._place_at[rows]
        before = (places if passing.all else np.searchsorted(passing.places, places)).tolist()
        named = map(self._snapshot.places.get, filters.exclude)
        excluded = sorted(place for place in named if place is not None and passing.mask[place])
        return [
            0 if place < 0 else 1 + passing_before - bisect_left(excluded, place)
            for place, passing_before in zip(places.tolist(), before, strict=True)
        ]

    def _that_pass(self, filters: Filters) -> _Passing:
        """What is in stock and passes all but ``exclude``."""
        wide = filters.wide
        passing = self._passing.get(wide)
        if passing is None:
            mask = self.rows >= 0
            passes = self._index.passes(self.rows[mask], wide)
            if passes is not None:
                mask[mask] = passes
            passing = _Passing(mask, np.flatnonzero(mask))
            if len(self._passing) >= _KEPT_FILTERS:
                self._passing.pop(next(iter(self._passing)))
            self._passing[wide] = passing
        return passing

    def rounding(self, query: Float32, weight: float) -> float:
        """How far float32 sums of f·query + weight · trend score, made in different orders, may lie apart."""
        return 2 * self._index.rounding(query) + 2.0**-22 * weight * float(self._scores_or_none[0])

    def contenders(
        self, query: Float32, weight: float, n: int, filters: Filters, nearest: Candidates, least: float
    ) -> Contenders:
        """Rows that, with ``nearest``, hold the ``n`` best of all that is in stock by f·query + weight · trend score.

        ``nearest`` by f·query alone; ``least``: so much ``n`` articles have that may be shown. Only the best sellers
        have to be looked at: whatever sold so little that even with the f·query ``nearest.beyond`` it would have less
        than the n best, is not among them, unless it is in ``nearest`` (the threshold algorithm of Fagin, Lotem & Naor
        2001, "Optimal aggregation algorithms for middleware").
        """
        if nearest.beyond == -math.inf:
            return Contenders(NO_ROWS, least)
        passing, most = self._that_pass(filters), n + len(filters.exclude)
        error = 2 * self.rounding(query, weight)
        query_and_weight = np.append(query, np.float32(weight))
        sums = self._sums(passing, query_and_weight, 0, _FIRST)
        if len(sums) > most:
            least = max(least, float(largest(sums, most)))
        end = self._with_at_least(passing, (least - nearest.beyond - error) / weight)
        if end > _FIRST:
            sums = np.concatenate([sums, self._sums(passing, query_and_weight, _FIRST, end)])
        reach = np.flatnonzero(sums >= least - error)
        if len(reach) > 2 * most:
            reaching = sums[reach]
            least = max(least, float(largest(reaching, most)))
            reach = reach[reaching >= least - error]
        return Contenders(self.rows[reach if passing.all else passing.places[reach]], least)

    def _sums(self, passing: _Passing, query_and_weight: Float32, start: int, end: int) -> Float32:
        """f·query + weight · trend score of what passes, from the ``start``-th to before the ``end``-th best seller."""
        chosen = slice(start, end) if passing.all else passing.places[start:end]
        sums: Float32 = self._dna_and_score[chosen] @ query_and_weight
        return sums

    def _with_at_least(self, passing: _Passing, score: float) -> int:
        """How many that pass have at least this trend score."""
        place = bisect_right(self._falling, -score)
        return place if passing.all else int(np.searchsorted(passing.places, place))
