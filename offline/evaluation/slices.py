"""Purchases by what is known of the bought article when it is ranked: how old it is, and how much it sold before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.task import Float64, Task
from offline.popularity import DAY

AGES: Mapping[str, tuple[str, float, float]] = {
    "age_week": ("under 1 week", 0, 7),
    "age_4_weeks": ("1 to 4 weeks", 7, 28),
    "age_12_weeks": ("4 to 12 weeks", 28, 84),
    "age_older": ("12 weeks or more", 84, np.inf),
}
"""By name of the slice: its words, and the days from which on and under which an article belongs to it."""
DECILES = 10
NOT_TOLD = -1


def ages(task: Task) -> NDArray[np.int64]:
    """(P) age in seconds of each bought article when it is ranked: since it was created, where that is told.

    Else since its first sale known at that moment, and ``NOT_TOLD`` where there was none. What was created later than
    that moment is 0 seconds old.
    """
    moment = task.moment[task.targets.customer]
    created, sold = task.created_at[task.targets.candidate], task.first_sold[task.targets.candidate]
    since_sold = np.where((sold >= 0) & (sold < moment), moment - sold, NOT_TOLD)
    return np.where(created >= 0, np.maximum(moment - created, 0), since_sold)


def between_days(age: NDArray[np.int64], low: float, high: float) -> NDArray[np.bool_]:
    """Which ages in seconds are told and lie in low ≤ days < high."""
    inside: NDArray[np.bool_] = (age != NOT_TOLD) & (age >= low * DAY) & (age < high * DAY)
    return inside


def popularity_deciles(task: Task) -> NDArray[np.int64]:
    """(P) decile of each bought article among the candidates by all sales known when it is ranked; 0: never sold."""
    found = np.zeros(len(task.targets.candidate), np.int64)
    known_until = task.sales_until[task.targets.customer]
    order = np.argsort(known_until, kind="stable")
    moments, starts = np.unique(known_until[order], return_index=True)
    for moment, rows in zip(moments.tolist(), np.split(order, starts[1:]), strict=True):
        found[rows] = deciles(task.recent.before(moment, None)[task.candidates])[task.targets.candidate[rows]]
    return found


def deciles(sales: Float64) -> NDArray[np.int64]:
    """Decile, 1 … 10, of each of N candidates among those that ``sales`` (N) has above 0; 1 sold most, 0 never sold.

    Candidates that sold the same share the decile in which the middle of their places lies.
    """
    whole = sales.astype(np.int64)
    count = np.bincount(whole)  # candidates by number of sales
    count[0] = 0
    above = count.sum() - np.cumsum(count)
    middle = above + count / 2
    decile: NDArray[np.int64] = 1 + np.minimum(DECILES * middle // max(count.sum(), 1), DECILES - 1).astype(np.int64)
    decile[0] = 0
    found: NDArray[np.int64] = decile[whole]
    return found
