"""What a ranking shows first, whether it is bought or not: coverage, Gini index, novelty and diversity of the ten.

Scores that tie are never broken here either. Of t articles that tie for the last r of the ten places each is among them
with chance r / t; every figure is its expectation where each customer's ties are ordered at random, independently. The
Gini index is that of the expected numbers of customers who are shown an article.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from offline.evaluation.metrics import Estimate, Float64, estimate, resamples
from offline.evaluation.moments import ByMoment
from offline.evaluation.ranks import Float32
from offline.evaluation.task import Task

TEN = 10
_GROUP = 64  # scores of which the best is looked at first


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


class Yardsticks:
    """What the ten of any model are measured by, for the candidates of one task. ``dna`` float32 (N, 128): theirs."""

    def __init__(self, task: Task, dna: Float32):
        self.task = task
        unit = (dna / np.maximum(np.linalg.norm(dna, axis=1, keepdims=True), 1e-12)).astype(np.float64)
        self.unit = np.column_stack([unit, unit.any(axis=1)])
        """(N, 129) Fashion DNA of length 1, then its squared length: 0 where there is no DNA"""
        self.surprise = ByMoment(self._surprise)
        """(N) −log2 of the share of the sales before a moment; one more for each, so that it is finite"""

    @cached_property
    def unit_sum(self) -> Float64:
        """(129)"""
        total: Float64 = self.unit.sum(axis=0)
        return total

    def _surprise(self, moment: int) -> Float64:
        sales = self.task.recent.before(moment, None)[self.task.candidates] + 1.0
        surprise: Float64 = -np.log2(sales / sales.sum())
        return surprise


class Ten(NamedTuple):
    """One customer's ten: those that are ``sure``, and ``tied`` for the places left; ``but``: all except ``tied`` are.

    Indices int64, so that what ties en masse is told by the few that do not.
    """

    sure: NDArray[np.int64]
    tied: NDArray[np.int64]
    but: bool


class FirstTenWatcher:
    """Gathers ``FirstTen`` while a ranking is scored."""

    def __init__(self, yardsticks: Yardsticks):
        targets, self._by = yardsticks.task.targets, yardsticks
        self._candidates, self._size = targets.candidates, min(TEN, targets.candidates)
        # Of each article beside what holds for all, and logarithms, so that no product of many is 0 too early.
        self._shown, self._shown_all = np.zeros(targets.candidates), 0.0
        self._absent, self._absent_all = np.zeros(targets.candidates), 0.0
        self._novelty, self._diversity = np.zeros(targets.customers), np.full(targets.customers, np.nan)

    def see(self, customers: slice, scores: Float32) -> None:
        """Enter the scores, float32 (B, N), of B consecutive customers."""
        tens = [_ten(row, bound, self._size) for row, bound in zip(scores, _bounds(scores, self._size), strict=True)]
        sure, tied = (_rows(columns, self._candidates) for columns in ([o.sure for o in tens], [o.tied for o in tens]))
        but = np.array([one.but for one in tens])
        count, told = np.diff(sure.indptr), np.diff(tied.indptr)
        ties, left = np.where(but, self._candidates - told, told), self._size - count
        self._count_shown(sure, tied, but, left / ties)
        moments = self._by.task.sales_until[customers]
        for moment in np.unique(moments).tolist():
            rows = np.flatnonzero(moments == moment)
            surprise = self._by.surprise.at(moment)
            of_ties = _but(but[rows], tied[rows] @ surprise, surprise.sum())
            of_ties *= left[rows] / ties[rows]
            self._novelty[customers.start + rows] = (sure[rows] @ surprise + of_ties) / self._size
        if self._size > 1:
            sums = sure @ self._by.unit, _but(but[:, None], tied @ self._by.unit, self._by.unit_sum)
            self._diversity[customers] = _distances(*sums, count, ties, left)

    def found(self) -> FirstTen:
        """What was gathered, once all customers were seen."""
        absent = np.exp(self._absent + self._absent_all)
        return FirstTen(self._shown + self._shown_all, absent, self._novelty, self._diversity)

    def _count_shown(self, sure: csr_array, tied: csr_array, but: NDArray[np.bool_], chance: Float64) -> None:
        """``chance`` (B): that an article which ties is among the ten."""
        with np.errstate(divide="ignore"):
            absent = np.log1p(-chance)  # −∞ where all that tie are among the ten
        self._shown_all += float(chance[but].sum())
        self._absent_all += float(absent[but].sum())
        sign = np.where(but, -1.0, 1.0)
        self._shown += self._summed(sure, np.ones(len(but))) + self._summed(tied, sign * chance)
        self._absent += self._summed(tied, sign * absent)
        self._absent[sure.indices] = -np.inf

    def _summed(self, rows: csr_array, each: Float64) -> Float64:
        """(N) the sum of what ``each`` (B) row gives to its articles."""
        weights = np.repeat(each, np.diff(rows.indptr))
        return np.bincount(rows.indices, weights, self._candidates).astype(np.float64)


def _bounds(scores: Float32, size: int) -> Float32:
    """(B) of each row a score below which none of its ``size`` best is, and few of the others above.

    It is the best of the group that stands behind the ``size`` groups whose bests are highest.
    """
    customers, candidates = scores.shape
    groups = candidates // _GROUP
    if groups <= size:
        return np.full(customers, -np.inf, np.float32)
    best = scores[:, :groups].copy()  # group g: articles g, g + groups, …
    for start in range(groups, candidates, groups):
        part = scores[:, start : start + groups]
        np.maximum(best[:, : part.shape[1]], part, out=best[:, : part.shape[1]])
    bounds: Float32 = np.partition(best, -size - 1, axis=1)[:, -size - 1]
    return bounds


def _ten(row: Float32, bound: np.float32, size: int) -> Ten:
    """The ``size`` best of ``row`` (N), none of which is below ``bound``: few are above it."""
    above = np.flatnonzero(row > bound)
    if len(above) >= size:
        scores = row[above]
        cut = np.partition(scores, -size)[-size]
        return Ten(above[scores > cut], above[scores == cut], but=False)
    tied = row == bound
    but = 2 * int(np.count_nonzero(tied)) > len(row)
    return Ten(above, np.flatnonzero(~tied if but else tied), but)


def _rows(columns: Sequence[NDArray[np.int64]], width: int) -> csr_array:
    """1 in these ``columns`` of each row."""
    ends = np.cumsum([0, *map(len, columns)])
    return csr_array((np.ones(ends[-1]), np.concatenate(columns), ends), shape=(len(columns), width))


def _but(but: NDArray[np.bool_], some: Float64, every: Float64 | float) -> Float64:
    """Sums of ``some``, or where it says so, of ``every`` but those."""
    return np.where(but, every - some, some)


def _distances(
    firsts: Float64, ties: Float64, count: NDArray[np.int64], t: NDArray[np.int64], left: NDArray[np.int64]
) -> Float64:
    """(B) expected mean distance of the pairs of each customer's ten, from sums (B, 129) of rows of ``unit``.

    Two of the ``t`` (B) that tie are both shown with chance r (r − 1) / (t (t − 1)), one with chance r / t, where
    r (B) places are ``left`` beside those of the ``count`` (B) that are sure.
    """
    lengths, tied_lengths = firsts[:, -1], ties[:, -1]
    firsts, ties = firsts[:, :-1], ties[:, :-1]
    within = _squares(firsts, firsts) - lengths
    across = 2 * left / t * _squares(firsts, ties)
    both = left * (left - 1) / np.maximum(t * (t - 1), 1) * (_squares(ties, ties) - tied_lengths)
    pairs = (count + left) * (count + left - 1)
    distances: Float64 = 1.0 - (within + across + both) / pairs
    return distances


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
