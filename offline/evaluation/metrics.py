"""Ranks → figures: AUC, leading ranks, and how many recommendations cover a share of the purchases (Zalando §3.4).

Ties are never broken: every figure is its expectation over all orders of the articles that score the same. So a model
that knows nothing gets exactly AUC ½, whatever the order of the table it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.ranks import Places

Float64 = NDArray[np.float64]
COVERED = (0.1, 0.5, 0.9)
LEADING = (1, 5, 10, 50, 100)
"""How many leading ranks are looked at."""


class Figures(NamedTuple):
    """One model's figures in one table; NaN where the table has no purchases.

    ``auc``: mean over purchases of the share of articles not bought that rank lower. ``recall_…``: share of purchases
    among so many leading ones. ``ndcg_…``: mean of 1 / log2(1 + rank) within them, which is NDCG with one article to be
    found at a time. ``mrr``: mean of 1 / rank. ``cover_…``: number of recommendations that cover this percentage of
    purchases, R_j / R_z of equation 4.
    """

    auc: float
    recall_1: float
    recall_5: float
    recall_10: float
    recall_50: float
    recall_100: float
    ndcg_1: float
    ndcg_5: float
    ndcg_10: float
    ndcg_50: float
    ndcg_100: float
    mrr: float
    cover_10: float
    cover_50: float
    cover_90: float


class Coverage:
    """R_j of equation 4, the expected number of purchases among the first j recommendations, piecewise linear in j.

    An article with a better ones above it and t equals (itself included) lies within the first j with probability
    (j - a) / t, clipped to 0 … 1.
    """

    def __init__(self, above: NDArray[np.int64], tied: NDArray[np.int64]):
        ends = above + tied
        self.positions = np.unique(np.concatenate([[0], above, ends]))
        """Breakpoints j, int64 ascending, from 0 on."""
        self._start, self._end = np.searchsorted(self.positions, above), np.searchsorted(self.positions, ends)
        self._rate = 1.0 / tied

    def curve(self, weights: Float64) -> Float64:
        """R_j at ``positions`` where purchase p counts ``weights[p]`` times."""
        size = len(self.positions)
        slope = np.bincount(self._start, weights * self._rate, size) - np.bincount(
            self._end, weights * self._rate, size
        )
        rises = np.cumsum(slope)[:-1] * np.diff(self.positions)
        return np.concatenate([[0.0], np.cumsum(rises)])

    def needed(self, weights: Float64, shares: Iterable[float] = COVERED) -> list[float]:
        """Smallest whole j for which R_j reaches each share of all purchases."""
        curve = self.curve(weights)
        return [self._reach(curve, share * curve[-1]) for share in shares]

    def _reach(self, curve: Float64, level: float) -> float:
        slack = 1e-9 * curve[-1]  # sums of fractions 1/t are not exact
        index = int(np.searchsorted(curve, level - slack))
        if index == 0:
            return float(self.positions[0])
        low, high = curve[index - 1], curve[index]
        left, right = self.positions[index - 1], self.positions[index]
        return float(math.ceil(left + (level - low) / (high - low) * (right - left) - 1e-6))


class Scorecard:
    """One model's figures in one table, as a function of how often each customer counts."""

    def __init__(self, places: Places):
        self._customer = places.customer
        self.coverage = Coverage(places.above, places.tied) if len(places.customer) else None
        self._means = np.stack(
            [
                places.auc,
                *(_share_within(n, places) for n in LEADING),
                *(_discounted_gain(n, places) for n in LEADING),
                _reciprocal_rank(places),
            ]
        )  # (12, P')

    def figures(self, counts: Float64) -> Figures:
        """``counts`` (K): how often each customer is in the sample, 1 for the data as they are."""
        weights = counts[self._customer]
        total = weights.sum()
        if self.coverage is None or not total:
            return Figures(*[math.nan] * len(Figures._fields))
        return Figures(*(self._means @ weights / total).tolist(), *self.coverage.needed(weights))


def _share_within(n: int, places: Places) -> Float64:
    share: Float64 = np.clip((n - places.above) / places.tied, 0.0, 1.0)
    return share


def _discounted_gain(n: int, places: Places) -> Float64:
    """Mean of 1 / log2(1 + r), 0 beyond the first ``n``, over the ranks above + 1 … above + tied."""
    gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(1.0 + np.arange(1, n + 1)))])
    low, high = np.minimum(places.above, n), np.minimum(places.above + places.tied, n)
    mean: Float64 = (gains[high] - gains[low]) / places.tied
    return mean


def _reciprocal_rank(places: Places) -> Float64:
    """Mean of 1/r over the ranks above + 1 … above + tied, by differences of harmonic numbers."""
    ends = places.above + places.tied
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, max(ends, default=0) + 1))])
    mean: Float64 = (harmonic[ends] - harmonic[places.above]) / places.tied
    return mean


def resamples(customers: int, samples: int, seed: int) -> Iterator[Float64]:
    """Bootstrap over customers: ``samples`` times how often each of K was drawn, float64 (K)."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(rng.integers(customers, size=customers), minlength=customers).astype(np.float64)


class Estimate(NamedTuple):
    """A figure with its 95% interval (percentiles of the bootstrap)."""

    value: float
    low: float
    high: float


def estimate(value: Float64, sampled: Float64) -> list[Estimate]:
    """Estimates from the figures of the data, (F), and of the S resamples, (S, F). NaN resamples do not count."""
    return [Estimate(float(one), *_interval(column)) for one, column in zip(value, sampled.T, strict=True)]


def _interval(column: Float64) -> tuple[float, float]:
    valid = column[~np.isnan(column)]
    if not len(valid):
        return math.nan, math.nan
    low, high = np.percentile(valid, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(
    cards: list[Scorecard], customers: int, samples: int, seed: int, advance: Callable[[int], None]
) -> tuple[Float64, Float64]:
    """Figures of the data, (C, F), and of every resample, (S, C, F), of C scorecards; all see the same customers."""

    def figures(counts: Float64) -> Float64:
        return np.asarray([card.figures(counts) for card in cards])

    sampled = np.empty((samples, len(cards), len(Figures._fields)))
    for index, counts in enumerate(resamples(customers, samples, seed)):
        sampled[index] = figures(counts)
        advance(1)
    return figures(np.ones(customers)), sampled
