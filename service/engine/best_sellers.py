"""The best sellers in stock, by what a bundle knows of sales: a list that the blended ranking adds to.

The popularity component of Fashion DNA tells how much an article sold, by and large. This list says what leads, since
in the first ten ranks models lose to popularity (Zalando 2017, §3.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_store.generation import rank_bonus
from model_store.popularity import BEST_SELLERS
from service.engine.arrays import NO_ROWS, Listed, Rows
from service.engine.filters import Filters
from service.engine.index import ArticleIndex

MOST = 1_000
"""Articles that a list is made from: the longer it is, the more may sell out before it gets short."""

BONUSES = rank_bonus(BEST_SELLERS, BEST_SELLERS)
"""What each place is worth, float32 (10): 1 for the first."""


class BestSellers:
    """The list as it stands in an index: the first ``BEST_SELLERS`` of ``article_ids`` that are in stock.

    ``article_ids``: what sold most first; those beyond ``MOST`` are left aside.
    """

    def __init__(self, article_ids: Sequence[str] = ()):
        self._article_ids = tuple(article_ids[:MOST])
        self._read: tuple[ArticleIndex, int] | None = None  # which index, and its revision
        self._rows = NO_ROWS

    def leading(self, index: ArticleIndex, filters: Filters) -> Listed:
        """What of the list passes ``filters``, ``exclude`` left aside, at the places that it has among all."""
        if self._read != (index, index.revision):
            self._read, self._rows = (index, index.revision), self._first(index)
        listed, passes = Listed.whole(self._rows), index.passes(self._rows, filters)
        return listed if passes is None else Listed(listed.rows[passes], listed.places[passes])

    def _first(self, index: ArticleIndex) -> Rows:
        """Rows of the first in stock; a few are looked up at a time, since as a rule nearly all of those are."""
        found, step = NO_ROWS, 2 * BEST_SELLERS
        for start in range(0, len(self._article_ids), step):
            rows = index.rows_of(self._article_ids[start : start + step])
            found = np.concatenate([found, rows[rows >= 0]])[:BEST_SELLERS]
            if len(found) == BEST_SELLERS:
                break
        return found
