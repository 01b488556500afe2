"""Ranks → figures: AUC, leading ranks, and how many recommendations cover a share of the purchases (Zalando §3.4).

Ties are never broken: every figure is its expectation over all orders of the articles that score the same. So a model
that knows nothing gets exactly AUC ½, whatever the order of the table it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from offline.evaluation.ranks import Places

Float64 = NDArray[np.float64]
COVERED = (0.1, 0.5, 0.9)
LEADING = (1, 5, 10, 50, 100)
"""How many leading ranks are looked at."""
_SAMPLES_AT_ONCE = 50  # 13 MB for 17,000 purchases of different ranks


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
        rise, fall = np.searchsorted(self.positions, above), np.searchsorted(self.positions, ends)
        rate, purchase = 1.0 / tied, np.arange(len(above))
        entries = (np.concatenate([rate, -rate]), (np.concatenate([rise, fall]), np.tile(purchase, 2)))
        self._slopes = csr_array(entries, shape=(len(self.positions), len(above)))

    def curve(self, weights: Float64) -> Float64:
        """R_j at ``positions``, (J), where purchase p counts ``weights[p]`` times; (J, S) of ``weights`` (P', S)."""
        slope = np.cumsum(self._slopes @ weights, axis=0)[:-1]
        steps = np.diff(self.positions).reshape(-1, *[1] * (weights.ndim - 1))
        curve: Float64 = np.concatenate([np.zeros_like(slope[:1]), np.cumsum(slope * steps, axis=0)])
        return curve

    def needed(self, weights: Float64, shares: Iterable[float] = COVERED) -> list[float]:
        """Smallest whole j for which R_j reaches each share of all purchases."""
        return [float(needed) for [needed] in self.needed_each(weights[:, None], shares)]

    def needed_each(self, weights: Float64, shares: Iterable[float] = COVERED) -> list[Float64]:
        """The same for each of S columns of ``weights`` (P', S): float64 (S) for each share."""
        curve = self.curve(weights)
        return [self._reach(curve, share) for share in shares]

    def _reach(self, curve: Float64, share: float) -> Float64:
        level, slack = share * curve[-1], 1e-9 * curve[-1]  # sums of fractions 1/t are not exact
        index, column = np.argmax(curve >= level - slack, axis=0), np.arange(curve.shape[1])
        before = np.maximum(index - 1, 0)
        low, high = curve[before, column], curve[index, column]
        left, right = self.positions[before], self.positions[index]
        part = (level - low) / np.where(high > low, high - low, 1.0)
        return np.where(index > 0, np.ceil(left + part * (right - left) - 1e-6), float(self.positions[0]))


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
        return Figures(*self.figures_each(counts[None])[0].tolist())

    def figures_each(self, counts: Float64) -> Float64:
        """Figures of S samples at once, (S, F), from ``counts`` (S, K)."""
        found = np.full((len(counts), len(Figures._fields)), math.nan)
        weights = counts[:, self._customer].T  # (P', S)
        drawn = weights.sum(axis=0) > 0
        if self.coverage is None or not drawn.any():
            return found
        weights = weights[:, drawn]
        means = self._means @ weights / weights.sum(axis=0)
        found[drawn] = np.stack([*means, *self.coverage.needed_each(weights)], axis=1)
        return found


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


def bootstrap(
    cards: list[Scorecard], customers: int, samples: int, seed: int, advance: Callable[[int], None]
) -> tuple[Float64, Float64]:
    """Figures of the data, (C, F), and of every resample, (S, C, F), of C scorecards; all see the same customers."""
    sampled = np.empty((samples, len(cards), len(Figures._fields)))
    drawn = resamples(customers, samples, seed)
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        counts = np.stack(list(islice(drawn, _SAMPLES_AT_ONCE)))
        for index, card in enumerate(cards):
            sampled[start : start + len(counts), index] = card.figures_each(counts)
        advance(len(counts))
    return np.array([card.figures(np.ones(customers)) for card in cards]), sampled
