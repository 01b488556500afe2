"""Arrays that the engine is made of."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]
"""Rows of an index: an article has the same one for as long as it is in the catalogue."""

NO_ROWS: Rows = np.zeros(0, np.int64)


class Listed(NamedTuple):
    """Articles of a list, or some of them: their ``rows``, and their ``places`` int64, from 0, in the whole of it."""

    rows: Rows
    places: NDArray[np.int64]

    @classmethod
    def whole(cls, rows: Rows) -> Listed:
        """All of a list."""
        return cls(rows, np.arange(len(rows)))


_Value = TypeVar("_Value", bound=np.generic)


def grown(array: NDArray[_Value], size: int, axis: int = 0) -> NDArray[_Value]:
    """``array`` with zeros behind, so that ``axis`` is ``size`` long."""
    shape = list(array.shape)
    shape[axis] = size
    longer = np.zeros(shape, array.dtype)
    longer[(slice(None),) * axis + (slice(0, array.shape[axis]),)] = array
    return longer


class Marks:
    """A mark for each row, by which one look-up tells who is in a list. ``capacity`` rows."""

    def __init__(self, capacity: int):
        self._marks: NDArray[np.bool_] = np.zeros(capacity, bool)

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._marks = grown(self._marks, capacity)

    def outside(self, rows: Rows, excluded: Rows) -> Rows:
        """``rows`` without ``excluded``."""
        self._marks[excluded] = True
        kept: Rows = rows[~self._marks[rows]]
        self._marks[excluded] = False
        return kept


def united(*lists: Rows) -> Rows:
    """The rows of all lists, none twice, ascending. (``np.unique`` takes three times as long for a few hundred.)"""
    rows = np.sort(np.concatenate(lists))
    first = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    distinct: Rows = rows[first]
    return distinct


def inner_products(vectors: Float32, query: Float32) -> Float32:
    """Of each row of ``vectors`` (…, N, 128) with ``query`` (…, 128), float32 (…, N): whatever the other rows are.

    A product of a matrix and a vector is none of that: in which order it sums depends on where a row stands.
    """
    products: Float32 = np.vecdot(vectors, query)
    return products


def largest(values: Float32, k: int) -> np.float32:
    """The ``k``-th largest value."""
    kth: np.float32 = np.partition(values, len(values) - k)[len(values) - k]
    return kth
