"""What trends, as it stands in an index: rows and Fashion DNA, best seller first, kept abreast of every change.

What passes a filter changes with the index, what a customer has bought with the customer: the one is kept, so that a
ranking only has to look at the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store import DNA_SIZE
from service.engine.arrays import Float32, Rows, within_reach
from service.engine.filters import Filters
from service.engine.index import ArticleIndex
from service.engine.trending import TrendSnapshot

_KEPT_FILTERS = 16


@dataclass(frozen=True)
class Shown:
    """Places in a snapshot whose articles may be shown: those ``passing``, less the ``excluded`` ones among them.

    Both int64, ascending.
    """

    passing: Rows
    excluded: Rows

    def places(self) -> Rows:
        """All of them, int64, ascending."""
        if not len(self.excluded):
            return self.passing
        stay = np.ones(len(self.passing), bool)
        stay[np.searchsorted(self.passing, self.excluded)] = False
        return self.passing[stay]

    def ranks(self, places: Rows) -> list[int]:
        """How many are shown up to each of ``places``, itself included, which is shown; 0 for a place of -1."""
        ranks = np.searchsorted(self.passing, places) - np.searchsorted(self.excluded, places) + 1
        counted: list[int] = np.where(places < 0, 0, ranks).tolist()
        return counted


class TrendRows:
    """A snapshot's articles, newcomers with them, as they stand in an index.

    ``scores`` float32 (T), highest first. For a place that is not in stock, ``rows`` int64 (T) holds -1.
    """

    def __init__(self, index: ArticleIndex, snapshot: TrendSnapshot):
        self._index = index
        self._snapshot = snapshot.with_newcomers(index.created_since(snapshot.since), index.in_stock_count)
        self.scores = self._snapshot.scores
        self.rows = np.full(len(self.scores), -1, np.int64)
        self._dna: Float32 = np.zeros((len(self.scores), DNA_SIZE), np.float32)  # of what is in stock
        self._place_at = np.full(index.rows, -1, np.int64)  # of each row
        self._passing: dict[Filters, Rows] = {}
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
        self._dna[here] = self._index.vectors_of(rows)

    def places(self, rows: Rows) -> Rows:
        """The place in the snapshot of the article at each of ``rows``, all in stock; -1 where it is not there."""
        return self._place_at[rows]

    def shown(self, filters: Filters) -> Shown:
        """What is in stock and passes the filters."""
        excluded = self._index.excluded(filters)
        passes = self._index.passes(excluded, filters.wide)
        places = self.places(excluded if passes is None else excluded[passes])
        return Shown(self._passing_but_for_exclude(filters.wide), np.sort(places[places >= 0]))

    def _passing_but_for_exclude(self, wide: Filters) -> Rows:
        passing = self._passing.get(wide)
        if passing is None:
            passing = np.flatnonzero(self.rows >= 0)
            passes = self._index.passes(self.rows[passing], wide)
            if passes is not None:
                passing = passing[passes]
            if len(self._passing) >= _KEPT_FILTERS:
                self._passing.pop(next(iter(self._passing)))
            self._passing[wide] = passing
        return passing

    def contenders(self, shown: Shown, query: Float32, bonuses: Float32, n: int) -> Rows:
        """Rows of what may be among the ``n`` best of all that is shown by f·query + bonus; perhaps some more.

        ``bonuses`` float32 (T), of every place.
        """
        approximate = self._dna @ query + bonuses
        error = self._index.rounding(query) + 2.0**-22 * float(np.abs(approximate).max(initial=0.0))
        places = shown.places()
        return self.rows[places[within_reach(approximate[places], n, error)]]
