"""Ranks → figures: AUC, leading ranks, and how many recommendations cover a share of the purchases (Zalando §3.4).

Ties are never broken: every figure is its expectation over all orders of the articles that score the same. So a model
that knows nothing gets exactly AUC ½, whatever the order of the table it was given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from offline.evaluation.ranks import Places

Float64 = NDArray[np.float64]
COVERED = (0.1, 0.5, 0.9)
LEADING = (1, 5, 10, 50, 100)
"""How many leading ranks are looked at."""
SLACK = 1e-9
"""Of all purchases: by how little less than wanted is enough."""


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
    (j - a) / t, clipped to 0 … 1. Purchases of one ``customer``, int64 (P') of 0 … K' − 1, count alike; unless that is
    given, each is another's.
    """

    def __init__(self, above: NDArray[np.int64], tied: NDArray[np.int64], customer: NDArray[np.int64] | None = None):
        self._above, self._tied = above, tied
        self._customer = np.arange(len(above)) if customer is None else customer
        self._customers = int(self._customer.max(initial=-1)) + 1
        ends = above + tied
        self.positions = np.unique(np.concatenate([[0], above, ends]))
        """Breakpoints j, int64 ascending, from 0 on."""
        rise, fall = np.searchsorted(self.positions, above), np.searchsorted(self.positions, ends)
        rate = 1.0 / tied
        entries = (np.concatenate([rate, -rate]), (np.concatenate([rise, fall]), np.tile(self._customer, 2)))
        self.bends = csr_array(entries, shape=(len(self.positions), self._customers))
        """(J, K') by how much the slope changes at each position, for each customer"""

    def curve(self, weights: Float64) -> Float64:
        """R_j at ``positions``, (J), where customer k counts ``weights[k]`` times; (J, S) of ``weights`` (K', S)."""
        start = np.zeros((1, *weights.shape[1:]))
        return self.curve_from(0, start, np.cumsum(self.bends @ weights, axis=0)[:-1])

    def curve_from(self, first: int, start: Float64, slopes: Float64) -> Float64:
        """R_j from ``positions[first]`` on, where it is ``start`` (1, …), by the ``slopes`` (I, …) behind each."""
        steps = np.diff(self.positions[first : first + len(slopes) + 1]).reshape(-1, *[1] * (slopes.ndim - 1))
        curve: Float64 = np.concatenate([start, start + np.cumsum(slopes * steps, axis=0)])
        return curve

    def at(self, position: int) -> Float64:
        """(K') R_j of each customer's purchases at ``positions[position]``."""
        found = np.clip((self.positions[position] - self._above) / self._tied, 0.0, 1.0)
        return self._by_customer(found)

    def slope_at(self, position: int) -> Float64:
        """(K') slope of each customer's R_j right behind ``positions[position]``."""
        j = self.positions[position]
        return self._by_customer(((self._above <= j) & (j < self._above + self._tied)) / self._tied)

    def needed(self, weights: Float64, shares: Iterable[float] = COVERED) -> list[float]:
        """Smallest whole j for which R_j reaches each share of all purchases."""
        curve = self.curve(weights[:, None])
        return [float(self.reached(0, curve, share * curve[-1], curve[-1])[0]) for share in shares]

    def reached(self, first: int, curve: Float64, wanted: Float64, every: Float64) -> Float64:
        """Smallest whole j at which ``curve`` (I, S), from ``positions[first]`` on, is ``wanted`` (S), of ``every``."""
        # Sums of fractions 1/t are not exact.
        index, column = np.argmax(curve >= wanted - SLACK * every, axis=0), np.arange(curve.shape[1])
        before = np.maximum(index - 1, 0)
        low, high = curve[before, column], curve[index, column]
        left, right = self.positions[first + before], self.positions[first + index]
        part = (wanted - low) / np.where(high > low, high - low, 1.0)
        return np.where(index > 0, np.ceil(left + part * (right - left) - 1e-6), float(self.positions[first]))

    def _by_customer(self, values: Float64) -> Float64:
        return np.bincount(self._customer, values, self._customers).astype(np.float64)


class Scorecard:
    """One model's figures in one table, as a function of how often each customer counts (``bootstrap``)."""

    def __init__(self, places: Places):
        self.customers, customer = np.unique(places.customer, return_inverse=True)
        """(K') who has purchases here, sorted"""
        self.coverage = Coverage(places.above, places.tied, customer) if len(customer) else None
        columns = [
            places.auc,
            *(_share_within(n, places) for n in LEADING),
            *(_discounted_gain(n, places) for n in LEADING),
            _reciprocal_rank(places),
            np.ones(len(customer)),
        ]
        sums = [np.bincount(customer, column, len(self.customers)) for column in columns]
        self.sums = np.stack(sums).astype(np.float64)
        """(13, K') by customer: sums of all figures that are means over purchases, then the number of purchases"""


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
    gaps = np.isnan(sampled).any(axis=0)
    low_and_high = np.full((2, len(value)), math.nan)
    if len(sampled) and not gaps.all():
        low_and_high[:, ~gaps] = np.percentile(sampled[:, ~gaps], [2.5, 97.5], axis=0)
    for index in np.flatnonzero(gaps):
        valid = sampled[~np.isnan(sampled[:, index]), index]
        if len(valid):
            low_and_high[:, index] = np.percentile(valid, [2.5, 97.5])
    return [Estimate(*map(float, one)) for one in zip(value, *low_and_high, strict=True)]
