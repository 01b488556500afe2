"""What filters and trends look at of every article: facets, price, and when it was created; by row of the index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.records import Article
from service.engine.arrays import Rows, grown
from service.engine.filters import FACETS, Filters


class Columns:
    """Columns with room for ``capacity`` rows."""

    def __init__(self, capacity: int):
        self._prices: NDArray[np.float64] = np.zeros(capacity, np.float64)  # NaN where unknown
        self._created: NDArray[np.int64] = np.zeros(capacity, np.int64)  # -1 where unknown
        self._codes: dict[str, NDArray[np.int32]] = {
            facet: np.zeros(capacity, np.int32) for facet in FACETS
        }  # 0 where unknown
        self._code_of: dict[str, dict[str, int]] = {facet: {} for facet in FACETS}
        self._spelt: dict[str, list[str]] = {facet: [""] for facet in FACETS}  # by code, as each was first written

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._prices = grown(self._prices, capacity)
        self._created = grown(self._created, capacity)
        self._codes = {facet: grown(codes, capacity) for facet, codes in self._codes.items()}

    def write(self, rows: Rows, articles: Sequence[Article]) -> None:
        """Keep what is known of ``articles`` under ``rows``."""
        self._prices[rows] = [np.nan if article.price is None else article.price for article in articles]
        self._created[rows] = [-1 if article.created_at is None else article.created_at for article in articles]
        for facet, codes in self._codes.items():
            codes[rows] = [self._code(facet, getattr(article, facet)) for article in articles]

    def _code(self, facet: str, value: str | None) -> int:
        if value is None:
            return 0
        known, spelt = self._code_of[facet], self._spelt[facet]
        code = known.setdefault(value.casefold(), len(spelt))
        if code == len(spelt):
            spelt.append(value)
        return code

    def frequent(self, facet: str, rows: Rows, most: int) -> list[str]:
        """The values of a facet that most of ``rows`` have, as each was first written, the most frequent first."""
        counts = np.bincount(self._codes[facet][rows], minlength=1)
        first = np.argsort(-counts[1:], kind="stable")[:most] + 1
        return [self._spelt[facet][code] for code in first.tolist() if counts[code]]

    def since(self, time: int, rows: Rows | slice) -> NDArray[np.bool_]:
        """Which of ``rows`` were created at ``time`` (Unix seconds) or later."""
        return self._created[rows] >= time

    def match(self, filters: Filters, rows: Rows | slice) -> NDArray[np.bool_]:
        """Which of ``rows`` pass all of ``filters`` but ``exclude``."""
        prices = self._prices[rows]
        passes = np.ones(len(prices), dtype=bool)
        for facet in FACETS:
            wanted: frozenset[str] = getattr(filters, facet)
            if wanted:
                known = self._code_of[facet]
                codes = {known[value] for value in map(str.casefold, wanted) if value in known}
                passes &= _any_of(self._codes[facet][rows], codes)
        if filters.price_min is not None:
            passes &= prices >= filters.price_min  # False where the price is NaN
        if filters.price_max is not None:
            passes &= prices <= filters.price_max
        return passes


def _any_of(codes: NDArray[np.int32], wanted: set[int]) -> NDArray[np.bool_]:
    passes = np.zeros(len(codes), dtype=bool)
    for code in wanted:
        passes |= codes == code
    return passes
