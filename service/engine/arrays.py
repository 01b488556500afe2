"""Arrays that the engine is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]
"""Rows of an index: an article has the same one for as long as it is in the catalogue."""

NO_ROWS: Rows = np.zeros(0, np.int64)

_Value = TypeVar("_Value", bound=np.generic)


def grown(array: NDArray[_Value], size: int, axis: int = 0) -> NDArray[_Value]:
    """``array`` with zeros behind, so that ``axis`` is ``size`` long."""
    shape = list(array.shape)
    shape[axis] = size
    longer = np.zeros(shape, array.dtype)
    longer[(slice(None),) * axis + (slice(0, array.shape[axis]),)] = array
    return longer


class Marks:
    """A number for each row, 0 but for the length of a ``with``: who is in a list, and where, in one look-up.

    For few rows of very many this takes a fraction of what sorting and comparing them does. ``capacity`` rows.
    """

    def __init__(self, capacity: int):
        self._marks: NDArray[np.int16] = np.zeros(capacity, np.int16)

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._marks = grown(self._marks, capacity)

    @contextmanager
    def places(self, rows: Rows) -> Iterator[NDArray[np.int16]]:
        """The 1-based place in ``rows``, all distinct, of every row, int16 (capacity); 0 where it is not there."""
        self._marks[rows] = np.arange(1, len(rows) + 1)
        try:
            yield self._marks
        finally:
            self._marks[rows] = 0

    def outside(self, rows: Rows, excluded: Rows) -> Rows:
        """``rows`` without ``excluded``."""
        self._marks[excluded] = 1
        kept: Rows = rows[self._marks[rows] == 0]
        self._marks[excluded] = 0
        return kept

    def united(self, *lists: Rows) -> Rows:
        """The rows of all lists, in each of which they are distinct, where they come first: none twice."""
        parts: list[Rows] = []
        for rows in lists:
            new = rows[self._marks[rows] == 0]
            self._marks[new] = 1
            parts.append(new)
        united: Rows = np.concatenate(parts)
        self._marks[united] = 0
        return united


def inner_products(vectors: Float32, query: Float32) -> Float32:
    """Of each row of ``vectors`` (N, 128) with ``query`` (128), float32 (N): the same whatever the other rows are.

    A product of a matrix and a vector is none of that: in which order it sums depends on where a row stands.
    """
    products: Float32 = np.vecdot(vectors, query)
    return products


def largest(values: Float32, k: int) -> np.float32:
    """The ``k``-th largest value."""
    kth: np.float32 = np.partition(values, len(values) - k)[len(values) - k]
    return kth
