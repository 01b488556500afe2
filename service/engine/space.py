"""One kind of vector of many rows, and the exact search among them.

The answer is exact: whatever the approximate scan proposes is scored again, and accepted only where an error bound
proves that nothing better was left out; where it cannot prove that, everything is summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.errors import ModisteError
from service.engine.scan import QuantisedScan

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]

SIZE = DNA_SIZE
"""Components of every vector: of a Fashion DNA, and of a title's and an id's embedding alike."""

MAX_COMPONENT = 1e9
"""Largest magnitude of a vector's component: far beyond any model's output, and safe against overflow."""

SCAN_FROM = 4_096  # rows: for fewer, plain sums are as quick
NO_ROWS: Rows = np.zeros(0, np.int64)
_FIRST = 256
"""Proposals beyond twice what is wanted: some more cost a scan little, and too few a second one. With 190,000 articles
and 20 wanted, 92 proposals do not suffice for 59% of queries, 296 for less than 1%, at 1.2 times the time."""
_COMPARED = 50_000  # pairs of rows: for fewer, comparing each is quicker than sorting
_ROUNDING = SIZE * 2.0**-23  # a float32 sum of 128 products errs by less than this times both norms


class InvalidVector(ModisteError):
    """A vector has the wrong shape, or components that are not finite."""


def check_vectors(vectors: NDArray[np.floating], what: str) -> Float32:
    """``vectors`` (…, 128) as contiguous float32. Raises InvalidVector, naming ``what``, where they cannot be used."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.shape[-1:] != (SIZE,):
        raise InvalidVector(f"{what}: has shape {array.shape} instead of (…, {SIZE})")
    if not (array.max(initial=0.0) <= MAX_COMPONENT and array.min(initial=0.0) >= -MAX_COMPONENT):  # nor may it be NaN
        raise InvalidVector(f"{what}: holds NaN, infinity or a component beyond {MAX_COMPONENT:g}")
    return array


@dataclass(frozen=True)
class Few:
    """Allowed rows, ascending."""

    rows: Rows


@dataclass(frozen=True)
class Many:
    """Allowed rows as bits (little-endian)."""

    bitmap: NDArray[np.uint8]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Many:
        """The rows at which ``mask`` is true."""
        return cls(np.packbits(mask, bitorder="little"))

    @property
    def rows(self) -> Rows:
        """The same, ascending."""
        return np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little"))


class Candidates(NamedTuple):
    """Rows in no order, among which the best are, ties of the last included: ``scores`` float32 (len(rows))."""

    rows: Rows
    scores: Float32


class Space:
    """Vectors float32 (capacity, 128) by row; once there are many, an 8-bit copy of them is scanned first.

    ``vectors`` is taken as it is, not copied.
    """

    def __init__(self, vectors: Float32, scan_from: int = SCAN_FROM):
        self._vectors, self._scan_from = vectors, scan_from
        self._max_norm = 0.0
        self._scan: QuantisedScan | None = None

    @classmethod
    def fixed(cls, vectors: Float32, scan_from: int = SCAN_FROM) -> Space:
        """A space whose rows are all there, and never change."""
        space = cls(vectors, scan_from)
        space._written(np.arange(len(vectors)), vectors, len(vectors))
        return space

    # Changes

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        grown = np.zeros((capacity, SIZE), np.float32)
        grown[: len(self._vectors)] = self._vectors
        self._vectors = grown
        if self._scan is not None:
            self._scan.grow(capacity)

    def write(self, rows: Rows, vectors: Float32, size: int) -> None:
        """Keep ``vectors`` float32 (len(rows), 128) under ``rows``; ``size`` rows are in use then."""
        self._vectors[rows] = vectors
        self._written(rows, vectors, size)

    def _written(self, rows: Rows, vectors: Float32, size: int) -> None:
        longest = np.sqrt(np.vecdot(vectors, vectors, dtype=np.float64).max(initial=0.0))
        self._max_norm = max(self._max_norm, float(longest))
        if self._scan is not None and not self._scan.worn(size):
            self._scan.write(rows, vectors)
        elif size >= self._scan_from:
            self._scan = QuantisedScan(self._vectors, size)

    def move(self, to: Rows, from_: Rows) -> None:
        """Let rows ``to`` hold what rows ``from_`` do."""
        self._vectors[to] = self._vectors[from_]
        if self._scan is not None:
            self._scan.move(to, from_)

    # What is here

    def one(self, row: int) -> Float32:
        """A copy of one vector, float32 (128)."""
        vector: Float32 = self._vectors[row].copy()
        return vector

    def of(self, rows: Rows) -> Float32:
        """A copy of the vectors, float32 (len(rows), 128)."""
        return self._vectors.take(rows, axis=0)

    def scores(self, rows: Rows, query: Float32) -> Float32:
        """Inner products float32 (len(rows)), summed in float64, so that they do not depend on what else is asked."""
        products: Float32 = (self._vectors[rows].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        return products

    def rounding(self, query: Float32) -> float:
        """How far a float32 inner product of ``query`` with a row may lie from the exact one."""
        return _ROUNDING * float(np.linalg.norm(query.astype(np.float64))) * self._max_norm

    # Search

    def candidates(
        self, query: Float32, k: int, size: int, allowed: Few | Many | None, excluded: Rows = NO_ROWS
    ) -> Candidates:
        """The best ``k`` by inner product with ``query`` (128), and perhaps more, of the first ``size`` rows.

        ``allowed``: of these rows only; ``excluded``: of none of those.
        """
        if self._scan is not None and not isinstance(allowed, Few):
            found = self._scanned(self._scan, query, k, size, allowed, excluded)
            if found is not None:
                return found
        return self._summed(query, k, size, allowed, excluded)

    def _scanned(
        self, scan: QuantisedScan, query: Float32, k: int, size: int, allowed: Many | None, excluded: Rows
    ) -> Candidates | None:
        """The answer by the quantised scan, or None where that cannot prove one: ties, or a margin too wide."""
        wanted = k + len(excluded)
        for proposals in (2 * wanted + _FIRST, 12 * wanted + 2 * _FIRST):
            if proposals >= size:
                return None
            rows, bound = scan.propose(query, proposals, size, None if allowed is None else allowed.bitmap)
            rows = rows[outside(rows, excluded)] if len(excluded) else rows
            scores = self.scores(rows, query)
            # A score below the bound can round up to a float32 just above it, but no further.
            if bound == -np.inf or (len(rows) >= k and bound < np.nextafter(_largest(scores, k), np.float32(-np.inf))):
                return Candidates(rows, scores)
        return None

    def _summed(self, query: Float32, k: int, size: int, allowed: Few | Many | None, excluded: Rows) -> Candidates:
        """The answer by float32 sums over all that is allowed, those within a rounding error of the best k kept."""
        if allowed is None:
            rows, approximate = np.arange(size), self._vectors[:size] @ query
        else:
            rows = allowed.rows
            approximate = self._vectors.take(rows, axis=0) @ query
        if len(excluded):
            keep = outside(rows, excluded)
            rows, approximate = rows[keep], approximate[keep]
        if k < len(rows):
            rows = rows[within_reach(approximate, k, self.rounding(query))]
        return Candidates(rows, self.scores(rows, query))


def outside(rows: Rows, excluded: Rows) -> NDArray[np.bool_]:
    """Which of ``rows`` are not among ``excluded``."""
    if len(rows) * len(excluded) > _COMPARED:
        return ~np.isin(rows, excluded)
    among: NDArray[np.bool_] = (rows[:, None] == excluded).any(axis=1)
    return ~among


def within_reach(approximate: Float32, k: int, error: float) -> Rows:
    """Places that may belong to the best ``k``, where each value may err by ``error``; ascending."""
    if k >= len(approximate):
        return np.arange(len(approximate))
    return np.flatnonzero(approximate >= float(_largest(approximate, k)) - 2 * error)


def _largest(values: Float32, k: int) -> np.float32:
    """The ``k``-th largest value."""
    kth: np.float32 = np.partition(values, len(values) - k)[len(values) - k]
    return kth
