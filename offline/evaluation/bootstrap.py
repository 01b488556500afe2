"""Figures of all scorecards for the data as they are, and for every resample of the customers.

One scorecard is in memory at a time, beside how often each customer was drawn: bytes, 100 MB for a thousand resamples
of 100,000 customers. How many recommendations cover a share of the purchases hardly differs between resamples of many
customers, so of R_j only that stretch is drawn up in which all of them reach the share: the figures are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.metrics import COVERED, SLACK, Coverage, Figures, Float64, Scorecard, resamples

_NUMBERS_AT_ONCE = 4_000_000  # 32 MB of float64
_SPREAD = 4.0  # standard deviations of a share of as many purchases as there are customers, at first


class Draws:
    """How often each of K customers is in each of S samples, ``counts`` (K, S)."""

    def __init__(self, counts: NDArray[np.uint8] | Float64):
        self.counts = counts

    @classmethod
    def of_resamples(cls, customers: int, samples: int, seed: int) -> Draws:
        """The bootstrap's. Bytes hold them: that one of 100,000 customers is drawn 256 times has a chance of 1e-500."""
        counts = np.empty((samples, customers), np.uint8)
        for row, drawn in zip(counts, resamples(customers, samples, seed), strict=True):
            row[:] = drawn
        return cls(np.ascontiguousarray(counts.T))

    @property
    def samples(self) -> int:
        """S."""
        return int(self.counts.shape[1])

    def of(self, customers: NDArray[np.int64]) -> Draws:
        """The same of K' of the customers."""
        return self if len(customers) == len(self.counts) else Draws(self.counts[customers])

    def parts(self, rows: int) -> Iterator[tuple[slice, Float64]]:
        """Some samples at a time, so many that ``rows`` (or K) times them is not too much: float64 (K, S')."""
        size = max(1, _NUMBERS_AT_ONCE // max(rows, len(self.counts), 1))
        for start in range(0, self.samples, size):
            part = slice(start, min(start + size, self.samples))
            yield part, self.counts[:, part].astype(np.float64)

    def totals(self, columns: Float64) -> Float64:
        """Of each row of ``columns`` (C, K) its sum over the customers drawn: (C, S)."""
        totals = np.empty((len(columns), self.samples))
        for part, counts in self.parts(0):
            totals[:, part] = columns @ counts
        return totals


def bootstrap(
    cards: Iterable[Scorecard], customers: int, samples: int, seed: int, advance: Callable[[int], None]
) -> tuple[Float64, Float64]:
    """Figures of the data, (C, F), and of every resample, (S, C, F), of C scorecards; all see the same customers.

    ``advance`` hears of each scorecard that is done.
    """
    draws, values, sampled = Draws.of_resamples(customers, samples, seed), [], []
    for card in cards:
        values.append(figures(card, np.ones(customers)))
        sampled.append(figures_each(card, draws))
        advance(1)
    return np.array(values), np.stack(sampled, axis=1)


def figures(card: Scorecard, counts: Float64) -> Figures:
    """``counts`` (K): how often each customer counts, 1 for the data as they are."""
    return Figures(*figures_each(card, Draws(counts[:, None]))[0].tolist())


def figures_each(card: Scorecard, draws: Draws) -> Float64:
    """Figures of each sample, (S, F); NaN where none of its customers has purchases in the table."""
    found = np.full((draws.samples, len(Figures._fields)), np.nan)
    if card.coverage is None:
        return found
    draws = draws.of(card.customers)
    *sums, purchases = draws.totals(card.sums)
    drawn = purchases > 0
    if not drawn.any():
        return found
    means = np.stack(sums)[:, drawn] / purchases[drawn]
    covered = [_needed(card.coverage, draws, share, purchases)[drawn] for share in COVERED]
    found[drawn] = np.stack([*means, *covered], axis=1)
    return found


def _needed(coverage: Coverage, draws: Draws, share: float, purchases: Float64) -> Float64:
    """(S) smallest whole j for which R_j reaches the ``share`` of ``purchases`` (S)."""
    low, high, start = _stretch(coverage, draws, share, purchases)
    slope = draws.totals(coverage.slope_at(low)[None])
    bends = coverage.bends[low + 1 : high]
    concerned = np.unique(bends.indices)
    bends, drawn, needed = bends[:, concerned], draws.of(concerned), np.empty(draws.samples)
    for part, counts in drawn.parts(high - low):
        slopes = np.cumsum(np.concatenate([slope[:, part], bends @ counts]), axis=0)
        curve = coverage.curve_from(low, start[None, part], slopes)
        needed[part] = coverage.reached(low, curve, share * purchases[part], purchases[part])
    return needed


def _stretch(coverage: Coverage, draws: Draws, share: float, purchases: Float64) -> tuple[int, int, Float64]:
    """Two positions between which R_j reaches the share in every sample, and R_j (S) at the first of them."""
    curve = coverage.curve(np.ones(len(draws.counts)))
    spread, last = _SPREAD * np.sqrt(share * (1 - share) / len(draws.counts)), len(curve) - 1
    while True:
        ends = np.searchsorted(curve, [(share - spread) * curve[-1], (share + spread) * curve[-1]])
        low, high = max(int(ends[0]) - 1, 0), min(int(ends[1]) + 1, last)
        at_low, at_high = draws.totals(np.stack([coverage.at(low), coverage.at(high)]))
        wanted = share * purchases - SLACK * purchases
        below, above = at_low < wanted, at_high >= wanted
        if ((below | (low == 0)) & (above | (high == last))).all():
            return low, high, at_low
        spread *= 2
