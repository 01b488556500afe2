"""Lists of the nearest articles that were asked for lately, kept abreast of the index.

A search costs some tenths of a millisecond, and a customer's generation stays the same for several requests, while
stock changes in between. A kept list holds some more articles than are asked for; what changed in the index since is
taken out of it and put in again where it now belongs, so that it stays as good as a search.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.arrays import Float32, Rows
from service.engine.filters import Filters
from service.engine.index import ArticleIndex, Ranked

MOST_LISTS = 2_048  # about 3 KB each, for lists of some 230 articles
SPARE = 32
"""Articles that a list holds beyond what is asked for: so many may sell out, or be excluded, before it is too short."""

Search = Callable[[ArticleIndex, Float32, int, Filters], Ranked]
"""The k best of an index by a vector, among those that pass."""
Score = Callable[[ArticleIndex, Rows, Float32], Float32]
"""Scores of rows in stock, float32 (len(rows)), as the search gives them."""


class _List(NamedTuple):
    """The best ``rows`` int32 (n), as it was true at ``revision`` of the index, with their ``scores`` float32 (n).

    ``last``: whatever is not in it ranks behind that place; None where nothing else passes.
    """

    rows: NDArray[np.int32]
    scores: Float32
    last: tuple[float, str] | None
    revision: int


class KeptLists:
    """Lists of one kind of search over one index at a time."""

    def __init__(self, search: Search, score: Score, most: int = MOST_LISTS):
        self._search, self._score, self._most = search, score, most
        self._index: ArticleIndex | None = None
        self._lists: OrderedDict[tuple[bytes, Filters], _List] = OrderedDict()  # the least lately used first

    def nearest(self, index: ArticleIndex, vector: Float32, k: int, filters: Filters) -> Rows:
        """Rows of the best ``k`` articles by ``vector`` float32 (128), equal scores in order of id.

        Fewer where fewer pass.
        """
        if index is not self._index:
            self._lists.clear()
            self._index = index
        kept = self._kept(index, vector, k, filters)
        rows = kept.rows.astype(np.int64)
        if filters.exclude:
            rows = index.marks.outside(rows, index.excluded(filters))
        chosen = rows[:k]
        if len(chosen) == k or kept.last is None:
            return chosen
        return self._search(index, vector, k, filters).rows

    def _kept(self, index: ArticleIndex, vector: Float32, k: int, filters: Filters) -> _List:
        """What passes but for ``exclude``: at least ``k`` articles where there are as many."""
        wide = filters.wide
        key = (vector.tobytes(), wide)
        kept = self._lists.pop(key, None)
        if kept is not None and kept.revision != index.revision:
            kept = self._followed(index, vector, wide, kept)
        if kept is None or (kept.last is not None and len(kept.rows) < k):
            best = self._search(index, vector, k + SPARE, wide)
            full = len(best.rows) == k + SPARE
            last = (-float(best.scores[-1]), best.article_ids[-1]) if full else None
            kept = _List(best.rows.astype(np.int32), best.scores.copy(), last, index.revision)
        self._lists[key] = kept
        if len(self._lists) > self._most:
            self._lists.popitem(last=False)
        return kept

    def _followed(self, index: ArticleIndex, vector: Float32, filters: Filters, kept: _List) -> _List | None:
        """The list after what changed since; None where that is not known any more."""
        touched = index.touched_since(kept.revision)
        if touched is None:
            return None
        if not touched:
            return kept._replace(revision=index.revision)
        # A row that another article has now is touched by that one's coming.
        names = index.ids_of(kept.rows)
        entries = [
            (-score, name, row)
            for row, score, name in zip(kept.rows.tolist(), kept.scores.tolist(), names, strict=True)
            if name not in touched
        ]
        rows = index.allowed_among(touched, filters)
        scores = (-self._score(index, rows, vector)).tolist()
        entries += zip(scores, index.ids_of(rows), rows.tolist(), strict=True)
        entries = sorted(entry for entry in entries if kept.last is None or entry[:2] <= kept.last)
        return _List(
            np.array([row for _, _, row in entries], np.int32),
            np.array([-score for score, _, _ in entries], np.float32),
            kept.last,
            index.revision,
        )
