"""What a ranking shows first, whether it is bought or not: coverage, Gini index, novelty and diversity of the ten.

Scores that tie are never broken here either. Of t articles that tie for the last r of the ten places each is among them
with chance r / t; every figure is its expectation where each customer's ties are ordered at random, independently. The
Gini index is that of the expected numbers of customers who are shown an article.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from offline.evaluation.metrics import Estimate, Float64, estimate, resamples
from offline.evaluation.ranks import Float32
from offline.evaluation.task import Task

TEN = 10
_PLACES_AT_ONCE = 1_000_000  # 8 MB of float64


@dataclass(frozen=True)
class FirstTen:
    """What one model shows first to K customers, of N candidates."""

    shown: Float64
    """(N) expected number of customers among whose ten the article is"""
    absent: Float64
    """(N) chance that it is among nobody's"""
    novelty: Float64
    """(K) mean of −log2 of each article's share of the sales known at that moment, with one more for each candidate"""
    diversity: Float64
    """(K) mean of 1 − cosine of Fashion DNA over all pairs of the ten; NaN where a single article is shown"""


class FirstTenWatcher:
    """Gathers ``FirstTen`` while a ranking is scored. ``dna`` float32 (N, 128): that of the task's candidates."""

    def __init__(self, task: Task, dna: Float32):
        customers, candidates = task.targets.customers, task.targets.candidates
        self._task, self._size = task, min(TEN, candidates)
        unit = (dna / np.maximum(np.linalg.norm(dna, axis=1, keepdims=True), 1e-12)).astype(np.float64)
        self._unit = np.column_stack([unit, unit.any(axis=1)])  # (N, 129), the last 0 where the DNA is
        self._sum = self._unit.sum(axis=0)
        self._shown, self._absent = np.zeros(candidates), np.ones(candidates)
        self._novelty, self._diversity = np.zeros(customers), np.full(customers, np.nan)
        self._surprise = lru_cache(maxsize=1)(self._surprise_at)

    def see(self, customers: slice, scores: Float32) -> None:
        """Enter the scores, float32 (B, N), of B consecutive customers."""
        several = max(1, _PLACES_AT_ONCE // scores.shape[1])
        for start in range(0, len(scores), several):
            part = scores[start : start + several]
            self._enter(slice(customers.start + start, customers.start + start + len(part)), part)

    def found(self) -> FirstTen:
        """What was gathered, once all customers were seen."""
        return FirstTen(self._shown, self._absent, self._novelty, self._diversity)

    def _enter(self, customers: slice, scores: Float32) -> None:
        cut = np.partition(scores, -self._size, axis=1)[:, [-self._size]]  # (B, 1) score of the last place
        sure, tied = scores > cut, scores == cut
        left = self._size - sure.sum(axis=1)  # (B) places for those that tie
        chance = left / tied.sum(axis=1)
        among = sure + tied * chance[:, None]  # (B, N)
        self._shown += among.sum(axis=0)
        self._absent *= np.prod(1.0 - among, axis=0)
        moments = self._task.sales_until[customers]
        for moment in np.unique(moments).tolist():
            rows = np.flatnonzero(moments == moment)
            self._novelty[customers.start + rows] = among[rows] @ self._surprise(moment) / self._size
        self._diversity[customers] = self._distances(sure, tied, left)

    def _surprise_at(self, moment: int) -> Float64:
        """(N) −log2 of the share of sales before ``moment``; one more for each, so that it is finite."""
        sales = self._task.recent.before(moment, None)[self._task.candidates] + 1.0
        surprise: Float64 = -np.log2(sales / sales.sum())
        return surprise

    def _distances(self, sure: NDArray[np.bool_], tied: NDArray[np.bool_], left: NDArray[np.int64]) -> Float64:
        """(B) expected mean distance of the pairs of each customer's ten, from sums of unit vectors.

        Two of the t that tie are both shown with chance r (r − 1) / (t (t − 1)), one with chance r / t.
        """
        if self._size < 2:
            return np.full(len(sure), np.nan)
        (firsts, lengths), (ties, tied_lengths) = self._sums(sure), self._sums(tied)
        count, t = sure.sum(axis=1), tied.sum(axis=1)
        within = _squares(firsts, firsts) - lengths
        across = 2 * left / t * _squares(firsts, ties)
        both = left * (left - 1) / np.maximum(t * (t - 1), 1) * (_squares(ties, ties) - tied_lengths)
        pairs = (count + left) * (count + left - 1)
        distances: Float64 = 1.0 - (within + across + both) / pairs
        return distances

    def _sums(self, chosen: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        """Sums over each row's ``chosen`` (B, N): (B, 128) of unit vectors, and (B) of their squared lengths.

        Where the others are fewer, what they leave of the sum of all.
        """
        many = chosen.sum(axis=1) * 2 > chosen.shape[1]
        sums = csr_array(chosen ^ many[:, None], dtype=np.float64) @ self._unit
        sums = np.where(many[:, None], self._sum - sums, sums)
        return sums[:, :-1], sums[:, -1]


def _squares(one: Float64, other: Float64) -> Float64:
    """(B) inner product of each row."""
    product: Float64 = np.einsum("ij,ij->i", one, other)
    return product


class FirstTenFigures(NamedTuple):
    """One model's figures over all windows. A resample of customers shows fewer articles, so two have no interval."""

    coverage: float
    """expected share of all that was a candidate which is among anybody's ten"""
    gini: float
    """of the expected numbers of customers that each of them is shown to: 0 all alike, near 1 always the same ten"""
    novelty: Estimate
    """mean over customers, in bits"""
    diversity: Estimate
    """mean over customers, 0 … 2"""


class Shown(NamedTuple):
    """One window: which articles (N) and customers (K, numbered over all windows) it has, and what was shown."""

    candidates: NDArray[np.int64]
    customers: NDArray[np.int64]
    first_ten: Mapping[str, FirstTen]


def measure_first_ten(windows: Sequence[Shown], customers: int, samples: int, seed: int) -> dict[str, FirstTenFigures]:
    """Figures of each model over all windows, with the resamples of all other figures for the same seed."""
    articles = np.unique(np.concatenate([window.candidates for window in windows]))
    number = np.concatenate([window.customers for window in windows])
    models = list(windows[0].first_ten)
    columns = [
        column
        for model in models
        for name in ("novelty", "diversity")
        for column in _sums_and_counts(
            np.concatenate([getattr(window.first_ten[model], name) for window in windows]), number, customers
        )
    ]
    value, *sampled = _ratios(np.stack(columns, axis=1), customers, samples, seed)
    means = estimate(value, np.array(sampled))
    return {
        model: FirstTenFigures(*_spread(windows, articles, model), *means[2 * index : 2 * index + 2])
        for index, model in enumerate(models)
    }


def _spread(windows: Sequence[Shown], articles: NDArray[np.int64], model: str) -> tuple[float, float]:
    """Coverage and Gini index over ``articles``, sorted: all that was a candidate in any window."""
    shown, absent = np.zeros(len(articles)), np.ones(len(articles))
    for window in windows:
        place = np.searchsorted(articles, window.candidates)
        shown[place] += window.first_ten[model].shown
        absent[place] *= window.first_ten[model].absent
    return float(1.0 - absent.mean()), gini(shown)


def _sums_and_counts(values: Float64, number: NDArray[np.int64], customers: int) -> tuple[Float64, Float64]:
    """(K) by customer: sum of ``values``, and how many there are; NaN counts nowhere."""
    told = ~np.isnan(values)
    counts = np.bincount(number[told], minlength=customers).astype(np.float64)
    return np.bincount(number[told], values[told], customers).astype(np.float64), counts


def _ratios(columns: Float64, customers: int, samples: int, seed: int) -> list[Float64]:
    """Mean of each pair of ``columns`` (K, 2 M), sums and counts: (M) of the data, then of each resample."""
    with np.errstate(invalid="ignore"):
        totals = [drawn @ columns for drawn in chain([np.ones(customers)], resamples(customers, samples, seed))]
        return [total[::2] / total[1::2] for total in totals]


def gini(shown: Float64) -> float:
    """Gini index of ``shown`` (N), none negative: half the mean difference of two of them, over their mean."""
    ordered, size = np.sort(shown), len(shown)
    ranks = 2 * np.arange(1, size + 1) - size - 1
    return float((ranks * ordered).sum() / (size * ordered.sum())) if ordered.sum() else 0.0
