"""Weights of the blended ranking, fitted on the validation window (design §4).

The served score is f·d + trend · log(1 + sales of the last 7 days) (``model_store.popularity``); an article listed in
those days counts with the average sales at least. The weight is the one
with the highest discounted gain over the whole ranking (mean of 1 / log2(1 + rank), which the top decides) among those
whose AUC is no lower than the style's alone. f·d has whatever scale its loss gave it, so weights are tried as
multiples of the spread of f·d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Blend
from model_store.dataset import Purchases
from model_store.popularity import TRENDING_DAYS, trend_score, with_newcomers
from offline.validation import Window, auc, discounted_gain, ranks

_MULTIPLES = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0, 3.0)
_MOST_CUSTOMERS = 3_000


@dataclass(frozen=True)
class BlendFit:
    """The fitted weights, and what each weight tried gave: (weight, AUC, discounted gain)."""

    blend: Blend
    tried: list[tuple[float, float, float]]


def fit_blend(
    window: Window,
    dna: NDArray[np.float32],
    styles: NDArray[np.float32],
    purchases: Purchases,
    created_at: NDArray[np.int64],
) -> BlendFit:
    """Fit on ``window`` with ``styles`` float32 (C, 128) of its customers.

    ``purchases``: sales of all customers; ``created_at`` int64 (N): when each article was (Unix seconds, -1 unknown).
    """
    window, styles = _at_most(window, styles, _MOST_CUSTOMERS)
    sales = RecentSales(purchases, created_at)
    spread = float(np.std(styles @ dna[window.candidates].T, axis=1).mean())
    tried: list[tuple[float, float, float]] = []
    for multiple in _MULTIPLES:
        weight = multiple * spread
        rank = ranks(window, dna, styles, _bonus(window, sales, weight) if weight else None)
        tried.append((weight, auc(window, rank), discounted_gain(rank)))
    allowed = [entry for entry in tried if entry[1] >= tried[0][1]]
    best = max(allowed, key=lambda entry: (entry[2], -entry[0]))
    return BlendFit(Blend(trend=best[0]), tried)


class RecentSales:
    """Sales of all customers, ordered by time, to be counted up to any moment. ``created_at`` as in ``fit_blend``."""

    def __init__(self, purchases: Purchases, created_at: NDArray[np.int64]):
        by_time = np.argsort(purchases.timestamp, kind="stable")
        self._created_at, self._articles = created_at, len(created_at)
        self._sold, self._when = purchases.article[by_time], purchases.timestamp[by_time]

    def among(self, candidates: NDArray[np.int64], time: int) -> NDArray[np.float64]:
        """Sales in the 7 days before ``time`` as they count for ``candidates`` int64 (A): float64 (A)."""
        newcomer = self._created_at[candidates] >= time - TRENDING_DAYS * 86_400
        return with_newcomers(self.before(time)[candidates], newcomer)

    def before(self, time: int) -> NDArray[np.float64]:
        """Sales of every article in the 7 days before ``time``, float64 (N); nothing at or after it counts."""
        low, high = np.searchsorted(self._when, [time - TRENDING_DAYS * 86_400, time], side="left")
        return np.bincount(self._sold[low:high], minlength=self._articles).astype(np.float64)


def _bonus(window: Window, sales: RecentSales, weight: float) -> Callable[[int, int], NDArray[np.float32]]:
    def rows(low: int, high: int) -> NDArray[np.float32]:
        times, which = np.unique(window.times[low:high], return_inverse=True)
        scores = np.stack([trend_score(sales.among(window.candidates, int(time))) for time in times])
        bonus: NDArray[np.float32] = np.float32(weight) * scores[which]
        return bonus

    return rows


def _at_most(window: Window, styles: NDArray[np.float32], most: int) -> tuple[Window, NDArray[np.float32]]:
    """The first ``most`` customers: they were drawn at random, or are sorted by an id that tells nothing."""
    if len(window.customers) <= most:
        return window, styles
    kept = window.row < most
    smaller = Window(
        window.customers[:most], window.times[:most], window.candidates, window.row[kept], window.target[kept]
    )
    return smaller, styles[:most]
