"""Which rows an answer may hold, for filters that were asked for lately, kept abreast of every change.

An article sells out or comes in a thousand times a second, a filter is asked for again and again: so what passes is
worked out once for each filter, and afterwards only for the rows that change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.arrays import Rows, grown
from service.engine.filters import EVERYTHING, Filters

MOST_FILTERS = 32
"""Filters that are kept: 2.1 bytes each and article."""

Match = Callable[[Filters, Rows | slice], NDArray[np.bool_]]


class Allowed(NamedTuple):
    """Rows that a search may find: as truth values by row, the same as bits (little-endian), and how many there are.

    ``filters`` says who asks, where the same is asked for again; ``changes`` then counts rows that came or went.
    """

    mask: NDArray[np.bool_]
    bits: NDArray[np.uint8]
    size: int
    filters: Filters | None = None
    changes: int = 0

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Allowed:
        """The rows at which ``mask`` is true."""
        return cls(mask, np.packbits(mask, bitorder="little"), int(np.count_nonzero(mask)))

    @property
    def rows(self) -> Rows:
        """The rows themselves, ascending."""
        return np.flatnonzero(self.mask)


class AllowedRows:
    """Rows in stock, by what passes: of every filter asked for lately, ``match`` says which rows do.

    ``capacity`` rows, a multiple of 8.
    """

    def __init__(self, match: Match, capacity: int):
        self._match = match
        self._slot_of: OrderedDict[Filters, int] = OrderedDict({EVERYTHING: 0})  # the least lately used first
        self._in_stock = np.zeros(capacity, bool)
        self._passes = np.zeros((MOST_FILTERS, capacity), bool)
        self._allowed = np.zeros((MOST_FILTERS, capacity), bool)  # passes, and is in stock
        self._bits = np.zeros((MOST_FILTERS, capacity // 8), np.uint8)  # the same, little-endian
        self._counts = np.zeros(MOST_FILTERS, np.int64)
        self._changes = np.zeros(MOST_FILTERS, np.int64)
        self._passes[0] = True

    @property
    def in_stock(self) -> NDArray[np.bool_]:
        """Whether each row is in stock. Do not write to it."""
        return self._in_stock

    @property
    def in_stock_count(self) -> int:
        return int(self._counts[0])

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows, a multiple of 8."""
        self._in_stock = grown(self._in_stock, capacity)
        self._passes = grown(self._passes, capacity, axis=1)
        self._passes[0] = True
        self._allowed = grown(self._allowed, capacity, axis=1)
        self._bits = grown(self._bits, capacity // 8, axis=1)

    def write(self, rows: Rows, in_stock: NDArray[np.bool_]) -> None:
        """Take in what ``rows``, all distinct, hold now."""
        for filters, slot in self._slot_of.items():
            if slot:
                self._passes[slot, rows] = self._match(filters, rows)
        self.set_stock(rows, in_stock)

    def set_stock(self, rows: Rows, in_stock: NDArray[np.bool_]) -> None:
        """Let ``rows``, all distinct, be in stock or not."""
        used = len(self._slot_of)
        self._in_stock[rows] = in_stock
        before, allowed = self._allowed[:used, rows], self._passes[:used, rows] & in_stock
        self._counts[:used] += np.count_nonzero(allowed, axis=1) - np.count_nonzero(before, axis=1)
        self._changes[:used] += np.count_nonzero(allowed != before, axis=1)
        self._allowed[:used, rows] = allowed
        octets = np.unique(rows >> 3)
        around = self._allowed[:used, (octets[:, None] * 8 + np.arange(8)).ravel()]
        self._bits[:used, octets] = np.packbits(around, axis=1, bitorder="little")

    def of(self, filters: Filters) -> Allowed:
        """The rows that may be shown by ``filters``, ``exclude`` left aside. Good until the next change."""
        filters = filters.wide
        slot = self._slot_of.get(filters)
        if slot is None:
            slot = self._enter(filters)
        elif slot:
            self._slot_of.move_to_end(filters)
        size, changes = int(self._counts[slot]), int(self._changes[slot])
        return Allowed(self._allowed[slot], self._bits[slot], size, filters, changes)

    def _enter(self, filters: Filters) -> int:
        slot = len(self._slot_of)
        if slot == MOST_FILTERS:
            oldest = next(kept for kept, place in self._slot_of.items() if place)
            slot = self._slot_of.pop(oldest)
        self._slot_of[filters] = slot
        self._passes[slot] = self._match(filters, slice(None))
        self._allowed[slot] = self._passes[slot] & self._in_stock
        self._bits[slot] = np.packbits(self._allowed[slot], bitorder="little")
        self._counts[slot] = np.count_nonzero(self._allowed[slot])
        self._changes[slot] = self._changes[0]  # what came or went since it was here before, and more
        return slot
