"""One kind of vector of many rows, and the search among them for the highest inner products.

Where few rows are allowed, all of them are summed, and the answer is exact. Where there are many, they are looked for
in cells (``service.engine.cells``), and what is found is scored again: scores are always those of the vectors
themselves, and of the best at least 99 in 100 are found.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.errors import ModisteError
from service.engine.allowed import Allowed
from service.engine.arrays import Float32, Rows, grown, inner_products, largest
from service.engine.cells import MARGIN, Asked, Cells

SIZE = DNA_SIZE
"""Components of every vector: of a Fashion DNA, and of a title's and an id's embedding alike."""

MAX_COMPONENT = 1e9
"""Largest magnitude of a vector's component: far beyond any model's output, and safe against overflow."""

CELLS_FROM = 4_096
"""Rows from which on there are cells: for fewer, plain sums are as quick."""
_SUMMED = 4_096  # allowed rows that are summed rather than looked for in cells
_ROUNDING = SIZE * 2.0**-23  # two float32 sums of the same 128 products differ by less than this times both norms


class InvalidVector(ModisteError):
    """A vector has the wrong shape, or components that are not finite."""


def check_vectors(vectors: NDArray[np.floating], what: str) -> Float32:
    """``vectors`` (…, 128) as contiguous float32. Raises InvalidVector, naming ``what``, where they cannot be used."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.shape[-1:] != (SIZE,):
        raise InvalidVector(f"{what}: has shape {array.shape} instead of (…, {SIZE})")
    if float(np.vdot(array, array)) < MAX_COMPONENT:  # as nearly always: then it is sound, and that was quick
        return array
    if not (array.max(initial=0.0) <= MAX_COMPONENT and array.min(initial=0.0) >= -MAX_COMPONENT):  # nor may it be NaN
        raise InvalidVector(f"{what}: holds NaN, infinity or a component beyond {MAX_COMPONENT:g}")
    return array


class Candidates(NamedTuple):
    """Rows in no order, among which the best are, ties of the last included: ``scores`` float32 (len(rows)).

    ``beyond``: no other row has a higher score; -inf where there is no other.
    """

    rows: Rows
    scores: Float32
    beyond: float


class Space:
    """Vectors float32 (capacity, 128) by row, which are ``asked`` for by queries of that kind.

    ``vectors`` is taken as it is, not copied; ``rows`` of it are in use.
    """

    def __init__(self, vectors: Float32, asked: Asked, rows: int = 0, cells_from: int = CELLS_FROM):
        self._vectors, self._asked, self._rows, self._cells_from = vectors, asked, rows, cells_from
        self._few = min(_SUMMED, cells_from // 2)
        self._max_norm = 0.0
        self._cells: Cells | None = None
        self._measure(vectors[:rows])

    # Changes

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._vectors = grown(self._vectors, capacity)

    def write(self, rows: Rows, vectors: Float32) -> None:
        """Keep ``vectors`` float32 (len(rows), 128) under ``rows``, all distinct."""
        changed = (rows >= self._rows) | (self._vectors[rows] != vectors).any(axis=1)
        self._rows = max(self._rows, int(rows.max(initial=-1)) + 1)
        self._vectors[rows] = vectors
        self._measure(vectors)
        if self._cells is not None and changed.any():
            self._cells.write(rows[changed], vectors[changed])

    def _measure(self, vectors: Float32) -> None:
        longest = np.sqrt(np.vecdot(vectors, vectors, dtype=np.float64).max(initial=0.0))
        self._max_norm = max(self._max_norm, float(longest))

    def settle(self) -> None:
        """Make cells, or better ones, where there should be some: about a second for 190,000 rows.

        A search does so otherwise.
        """
        if self._rows >= self._cells_from and (self._cells is None or self._cells.worn(self._rows)):
            self._cells = Cells(self._vectors[: self._rows], self._asked)

    # What is here

    def one(self, row: int) -> Float32:
        """A copy of one vector, float32 (128)."""
        vector: Float32 = self._vectors[row].copy()
        return vector

    def of(self, rows: Rows) -> Float32:
        """A copy of the vectors, float32 (…, 128) for ``rows`` (…)."""
        return self._vectors.take(rows, axis=0)

    def scores(self, rows: Rows, query: Float32) -> Float32:
        """Inner products float32 (len(rows)), which do not depend on what else is asked."""
        return inner_products(self.of(rows), query)

    def rounding(self, query: Float32) -> float:
        """How far float32 inner products of ``query`` with one row, summed in different orders, may lie apart."""
        return _ROUNDING * math.sqrt(float(np.vdot(query, query))) * self._max_norm

    # Search

    def candidates(self, query: Float32, k: int, allowed: Allowed) -> Candidates:
        """The best ``k`` by inner product with ``query`` (128), and perhaps more, of the rows ``allowed``."""
        return self.candidates_many(query[None], k, allowed)[0]

    def candidates_many(self, queries: Float32, k: int, allowed: Allowed) -> list[Candidates]:
        """``candidates`` for each of ``queries`` float32 (B, 128)."""
        self.settle()
        if self._cells is None or allowed.size <= self._few:
            return [self._summed(query, k, allowed) for query in queries]
        found = self._cells.nearest_many(queries, k + MARGIN, allowed)
        all_scores = inner_products(self.of(found), queries[:, None])
        return [self._found(rows, scores, allowed) for rows, scores in zip(found, all_scores, strict=True)]

    def _found(self, rows: Rows, scores: Float32, allowed: Allowed) -> Candidates:
        """What was found in cells: ``rows`` int64 (K), -1 for none, and their ``scores`` float32 (K)."""
        if rows[-1] < 0:  # fewer than were looked for
            rows, scores = rows[rows >= 0], scores[rows >= 0]
        return Candidates(rows, scores, float(scores.min()) if len(rows) < allowed.size else -math.inf)

    def _summed(self, query: Float32, k: int, allowed: Allowed) -> Candidates:
        """The answer by float32 sums over all that is allowed, those within a rounding error of the best k kept."""
        rows = allowed.rows
        if 2 * len(rows) > self._rows:
            approximate = (self._vectors[: self._rows] @ query)[rows]
        else:
            approximate = self._vectors.take(rows, axis=0) @ query
        beyond = -math.inf
        if k < len(rows):
            beyond = float(largest(approximate, k))
            rows = rows[approximate >= beyond - 2 * self.rounding(query)]
        return Candidates(rows, self.scores(rows, query), beyond)
