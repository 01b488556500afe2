"""One kind of vector of many rows, and the search among them for the highest inner products.

Where few rows are allowed, all of them are summed, and the answer is exact. Where there are many, they are looked for
in cells (``service.engine.cells``), and what is found is scored again: scores are always those of the vectors
themselves, and of the best at least 99 in 100 are found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.errors import ModisteError
from service.engine.allowed import Allowed
from service.engine.arrays import NO_ROWS, Float32, Rows, grown, inner_products, largest
from service.engine.cells import MARGIN, Asked, Cells

SIZE = DNA_SIZE
"""Components of every vector: of a Fashion DNA, and of a title's and an id's embedding alike."""

MAX_COMPONENT = 1e9
"""Largest magnitude of a vector's component: far beyond any model's output, and safe against overflow."""

CELLS_FROM = 4_096
"""Rows from which on there are cells: for fewer, plain sums are as quick."""
_SUMMED = 4_096  # allowed rows that are summed rather than looked for in cells
_ROUNDING = SIZE * 2.0**-23  # two float32 sums of the same 128 products differ by less than this times both norms

COSINE_ROUNDING = 4 * _ROUNDING
"""Two cosines of the same vectors differ by less than this, however they were summed."""


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
        self._lengths: Float32 = np.zeros(len(vectors), np.float32)
        self._cells: Cells | None = None
        self._written: list[Rows] | None = None  # while new cells are made
        self._measure(slice(rows), vectors[:rows])

    # Changes

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._vectors = grown(self._vectors, capacity)
        self._lengths = grown(self._lengths, capacity)

    def write(self, rows: Rows, vectors: Float32) -> None:
        """Keep ``vectors`` float32 (len(rows), 128) under ``rows``, all distinct."""
        changed = (rows >= self._rows) | (self._vectors[rows] != vectors).any(axis=1)
        self._rows = max(self._rows, int(rows.max(initial=-1)) + 1)
        self._vectors[rows] = vectors
        self._measure(rows, vectors)
        if not changed.any():
            return
        if self._cells is not None:
            self._cells.write(rows[changed], vectors[changed])
        if self._written is not None:
            self._written.append(rows[changed])

    def _measure(self, rows: Rows | slice, vectors: Float32) -> None:
        lengths = np.sqrt(np.vecdot(vectors, vectors, dtype=np.float64))
        self._lengths[rows] = lengths
        self._max_norm = max(self._max_norm, float(lengths.max(initial=0.0)))

    @property
    def worn(self) -> bool:
        """Whether there should be cells, or better ones."""
        return self._rows >= self._cells_from and (self._cells is None or self._cells.worn(self._rows))

    def settle(self) -> None:
        """Make cells, or better ones, where there should be some: about a second for 190,000 rows.

        The first search does so otherwise, unless they are made already.
        """
        if self.worn:
            self._cells = Cells(self._vectors[: self._rows], self._asked)

    def refit(self) -> Callable[[], Cells]:
        """What makes new cells, in any thread, while others search and write here. ``adopt`` then takes them."""
        vectors, asked, self._written = self._vectors[: self._rows], self._asked, []
        return lambda: Cells(vectors, asked)

    def adopt(self, cells: Cells | None) -> None:
        """Search in ``cells`` from now on, which ``refit`` made, or go on as before; what was written since is in."""
        written, self._written = self._written, None
        if cells is not None and written is not None:
            rows = np.unique(np.concatenate([NO_ROWS, *written]))
            cells.write(rows, self._vectors[rows])
            self._cells = cells

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

    def cosines(self, rows: Rows, query: Float32) -> Float32:
        """Cosines float32 (len(rows)) with ``query``, nearly: sums of many rows are made together. 0 of a zero row."""
        return self._over_lengths(self._products(rows, query), rows, query)

    def exact_cosines(self, rows: Rows, query: Float32) -> Float32:
        """``cosines`` which do not depend on what else is asked."""
        return self._over_lengths(self.scores(rows, query), rows, query)

    def _over_lengths(self, products: Float32, rows: Rows, query: Float32) -> Float32:
        lengths = self._lengths[rows] * np.float32(np.linalg.norm(query))
        cosines = np.divide(products, lengths, out=np.zeros(len(rows), np.float32), where=lengths > 0)
        clipped: Float32 = np.clip(cosines, -1.0, 1.0)
        return clipped

    def rounding(self, query: Float32) -> float:
        """How far float32 inner products of ``query`` with one row, summed in different orders, may lie apart."""
        return _ROUNDING * math.sqrt(float(np.vdot(query, query))) * self._max_norm

    # Search

    def candidates(self, query: Float32, k: int, allowed: Allowed) -> Candidates:
        """The best ``k`` by inner product with ``query`` (128), and perhaps more, of the rows ``allowed``."""
        return self.candidates_many(query[None], k, allowed)[0]

    def candidates_many(self, queries: Float32, k: int, allowed: Allowed) -> list[Candidates]:
        """``candidates`` for each of ``queries`` float32 (B, 128)."""
        if self._cells is None and self._written is None:
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
        approximate = self._products(rows, query)
        beyond = -math.inf
        if k < len(rows):
            beyond = float(largest(approximate, k))
            rows = rows[approximate >= beyond - 2 * self.rounding(query)]
        return Candidates(rows, self.scores(rows, query), beyond)

    def _products(self, rows: Rows, query: Float32) -> Float32:
        """Inner products float32 (len(rows)), summed in any order; of most rows without a copy of them."""
        if 2 * len(rows) > self._rows:
            products: Float32 = (self._vectors[: self._rows] @ query)[rows]
        else:
            products = self._vectors.take(rows, axis=0) @ query
        return products
