"""Lists of the nearest articles that were asked for lately, kept abreast of the index.

A search costs some tenths of a millisecond, and a customer's generation stays the same for several requests, while
stock changes in between. A kept list holds some more articles than are asked for; what changed in the index since is
taken out of it and put in again where it now belongs, so that it stays as good as a search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.arrays import Float32, Rows
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Ranked
from service.engine.slots import Slots, digest

MOST_LISTS = 2_048  # 2 KB each, for lists of 200 articles
SPARE = 32
"""Articles that a list holds beyond what is asked for: so many may sell out, or be excluded, before it is too short."""

_NEVER = -1  # a revision that no index has

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


class _Shelf:
    """``most`` lists of at most ``longest`` articles, in memory that is taken at once and never grows."""

    def __init__(self, most: int, longest: int):
        self._rows = np.full((most, longest), -1, np.int32)  # written to, so that it is really there
        self._scores = np.full((most, longest), np.nan, np.float32)
        self._lengths = np.full(most, 0, np.int32)
        self._last_scores = np.full(most, np.nan)
        self._last_names: list[str | None] = [None] * most
        self._revisions = np.full(most, _NEVER, np.int64)

    @property
    def longest(self) -> int:
        return self._rows.shape[1]

    def clear(self) -> None:
        """Forget all lists."""
        self._revisions.fill(_NEVER)

    def get(self, slot: int) -> _List | None:
        """The list in ``slot``; do not keep it, the next one there is written over it."""
        revision, length = int(self._revisions[slot]), self._lengths[slot]
        if revision == _NEVER:
            return None
        name = self._last_names[slot]
        last = None if name is None else (float(self._last_scores[slot]), name)
        return _List(self._rows[slot, :length], self._scores[slot, :length], last, revision)

    def put(self, slot: int, kept: _List) -> None:
        """Write a list of at most ``longest`` articles."""
        length = len(kept.rows)
        self._rows[slot, :length] = kept.rows
        self._scores[slot, :length] = kept.scores
        self._lengths[slot] = length
        self._last_scores[slot], self._last_names[slot] = (np.nan, None) if kept.last is None else kept.last
        self._revisions[slot] = kept.revision


class KeptLists:
    """Lists of one kind of search over one index at a time, for questions for the best ``longest`` articles at most."""

    def __init__(self, search: Search, score: Score, longest: int, most: int = MOST_LISTS):
        self._search, self._score = search, score
        self._index: ArticleIndex | None = None
        self._slots = Slots(most)
        self._shelf = _Shelf(most, longest + 2 * SPARE)  # as many again may come into stock

    def nearest(self, index: ArticleIndex, vector: Float32, k: int, filters: Filters) -> Rows:
        """Rows of the best ``k`` articles by ``vector`` float32 (128), equal scores in order of id.

        Fewer where fewer pass.
        """
        if index is not self._index:
            self._shelf.clear()
            self._index = index
        kept = self._kept(index, vector, k, filters.wide)
        rows = kept.rows.astype(np.int64)
        if filters.exclude:
            rows = index.marks.outside(rows, index.excluded(filters))
        chosen = rows[:k]
        if len(chosen) == k or kept.last is None:
            return chosen
        return self._search(index, vector, k, filters).rows

    def _kept(self, index: ArticleIndex, vector: Float32, k: int, wide: Filters) -> _List:
        """What passes: at least ``k`` articles where there are as many."""
        key = _key(vector, wide)
        slot = self._slots.find(key)
        kept = None if slot is None else self._shelf.get(slot)
        if kept is not None and kept.revision != index.revision:
            kept = self._followed(index, vector, wide, kept)
        elif kept is not None and _serves(kept, k):
            return kept
        if kept is None or not _serves(kept, k):
            best = self._search(index, vector, k + SPARE, wide)
            rows, names = best.rows.astype(np.int32), best.article_ids
            kept = _List(rows, best.scores, _last(names, best.scores, k + SPARE), index.revision)
        self._shelf.put(self._slots.give(key) if slot is None else slot, kept)
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
        room, last = self._shelf.longest, kept.last
        if len(entries) > room:
            last = entries[room - 1][:2]
        del entries[room:]
        return _List(
            np.array([row for _, _, row in entries], np.int32),
            np.array([-score for score, _, _ in entries], np.float32),
            last,
            index.revision,
        )


def _serves(kept: _List, k: int) -> bool:
    return len(kept.rows) >= k or kept.last is None


def _last(names: Sequence[str], scores: Float32, wanted: int) -> tuple[float, str] | None:
    """The place behind which all others rank, where as many were found as were wanted."""
    return (-float(scores[-1]), names[-1]) if len(names) == wanted else None


def _key(vector: Float32, wide: Filters) -> bytes:
    if wide is EVERYTHING:
        return digest(vector.tobytes())
    values = [sorted(value) if isinstance(value, frozenset) else value for value in vars(wide).values()]
    return digest(vector.tobytes(), repr(values).encode())
