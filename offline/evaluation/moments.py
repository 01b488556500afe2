"""What depends on a moment alone, for customers of whom most, or all, are asked at the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row", bound=NDArray[Any])


class ByMoment(Generic[Row]):
    """``make`` gives a row (N) for a moment, Unix seconds; the latest one is kept, and not made again."""

    def __init__(self, make: Callable[[int], Row]):
        self._make = make
        self._latest: tuple[int, Row] | None = None

    def at(self, moment: int) -> Row:
        """The row of one moment, (N)."""
        if self._latest is None or self._latest[0] != moment:
            self._latest = moment, self._make(moment)
        return self._latest[1]

    def distinct(self, moments: NDArray[np.int64]) -> tuple[Row, NDArray[np.int64]]:
        """The rows of M different ones among B ``moments``, (M, N), and which row is whose, int64 (B)."""
        several, which = np.unique(moments, return_inverse=True)
        rows: Any = np.stack([self.at(moment) for moment in several.tolist()])
        return rows, which

    def rows(self, moments: NDArray[np.int64]) -> Row:
        """The rows of B moments, (B, N)."""
        rows, which = self.distinct(moments)
        return rows[which]  # type: ignore[return-value]
