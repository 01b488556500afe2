"""Weights of the blended ranking, fitted on the validation window (design §4).

The served score is a sum of f·d and of what ``model_store.bundle.Blend`` weighs. The weights are fitted one by one,
and all once more, since each depends on the others: each is the one with the highest discounted gain over the whole
ranking (mean of 1 / log2(1 + rank), which the top decides) among those whose AUC is no lower than without. f·d has
whatever scale its loss gave it, so weights are tried as multiples of its spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Blend
from model_store.generation import rank_bonus
from model_store.generation_spec import MIXUP_LENGTH
from model_store.popularity import trend_score
from model_store.purchases import Purchases
from offline.popularity import RecentSales, best_seller_bonus
from offline.validation import Window, auc, discounted_gain, ranks

_MULTIPLES = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0, 3.0)
_LIST_MULTIPLES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
_ROUNDS = 2
_MOST_CUSTOMERS = 3_000
_COLD_PURCHASES = 30  # fewer say nothing

Float32 = NDArray[np.float32]
Lists = Sequence[NDArray[np.int64]]
Tried = list[tuple[float, float, float]]


@dataclass(frozen=True)
class BlendFit:
    """The fitted weights, and what those that were tried gave: by name (weight, AUC, discounted gain), 0 first.

    What is told of a weight is of the last time that it was fitted, beside the others as they stood.
    """

    blend: Blend
    tried: Mapping[str, Tried]
    """in the order in which they were fitted"""
    cold: tuple[float, float] | None
    """discounted gain of customers without purchases: with what trends first, and by style; None where they are few"""


def fit_blend(
    window: Window,
    dna: Float32,
    styles: Float32,
    purchases: Purchases,
    created_at: NDArray[np.int64],
    until: int,
    owned: Lists,
    lists: Lists | None = None,
    popularity: Float32 | None = None,
) -> BlendFit:
    """Fit on ``window`` with ``styles`` float32 (C, 128) of its customers.

    ``purchases``: sales of all customers, of which those count that were known at ``until`` (Unix seconds), as in the
    evaluation by time; ``created_at`` int64 (N): when each article was made (Unix seconds, -1 unknown).
    ``owned`` (C): what each customer bought before, the latest first, positions among the candidates; who bought
    nothing is ranked like all others where that is better for them. ``lists`` (C): each customer's mixup list, in the
    same way, empty where nothing was generated; their weight is fitted on those who have one. ``popularity`` float32
    (N): that component of f, where the run has it.
    """
    window, styles = _at_most(window, styles, _MOST_CUSTOMERS)
    owned, lists = owned[: len(window.customers)], None if lists is None else lists[: len(window.customers)]
    sales = RecentSales(purchases, len(created_at))
    trends = trend_score(sales.trend(until, window.candidates, created_at[window.candidates]))
    spread = float(np.std(styles @ dna[window.candidates].T, axis=1).mean())
    parts: dict[str, tuple[Float32, float, Sequence[float]]] = {"trend": (trends, spread, _MULTIPLES)}
    if popularity is not None and (component := popularity[window.candidates]).any():
        unit = spread / float(component.std() or 1.0)
        best = best_seller_bonus(component)
        parts = {
            "popularity": (component, unit, _MULTIPLES),
            **parts,
            "best_sellers": (best, spread, _LIST_MULTIPLES),
        }
    grids = {name: np.multiply(multiples, unit).tolist() for name, (_, unit, multiples) in parts.items()}
    of_lists = np.multiply(_LIST_MULTIPLES, spread).tolist()
    grids = {**grids, "bought_before": of_lists} if any(map(len, owned)) else grids
    gains = {name: part for name, (part, _, _) in parts.items()}
    weights, tried = dict.fromkeys(grids, 0.0), dict[str, Tried]()
    for _ in range(_ROUNDS):
        for name, grid in grids.items():
            tried[name] = [
                _measured(window, dna, styles, weight, _bonus({**weights, name: weight}, gains, owned))
                for weight in grid
            ]
            weights[name] = _best(tried[name])
    if lists is not None and any(map(len, lists)):
        listed = np.array([len(one) > 0 for one in lists])
        asked, had, written = _only(window, listed), list(compress(owned, listed)), list(compress(lists, listed))
        tried["generated"] = [
            _measured(asked, dna, styles[listed], weight, _bonus({**weights, "generated": weight}, gains, had, written))
            for weight in of_lists
        ]
        weights["generated"] = _best(tried["generated"])
    by_style, found = _cold(window, dna, styles, np.array([not len(one) for one in owned]), weights, gains)
    return BlendFit(Blend(**weights, cold_by_style=by_style), tried, found)


def _measured(
    window: Window, dna: Float32, styles: Float32, weight: float, bonus: Callable[[int, int], Float32]
) -> tuple[float, float, float]:
    rank = ranks(window, dna, styles, bonus)
    return weight, auc(window, rank), discounted_gain(rank)


def _cold(
    window: Window,
    dna: Float32,
    styles: Float32,
    cold: NDArray[np.bool_],
    weights: Mapping[str, float],
    gains: Mapping[str, Float32],
) -> tuple[bool, tuple[float, float] | None]:
    """Whether those who bought nothing yet are better ranked like all others than by what trends first."""
    if np.count_nonzero(cold[window.row]) < _COLD_PURCHASES:
        return False, None
    asked, own = _only(window, cold), styles[cold]
    above_all = 2 * float(np.abs(own @ dna[window.candidates].T).max()) + 1.0
    # So steep that f·d only decides where the trend is the same.
    trends = gains["trend"]
    first = np.where(trends > 0, above_all * (1.0 + 100.0 * trends), 0.0).astype(np.float32)
    trending = ranks(asked, dna, own, _bonus({"trend": 1.0}, {"trend": first}))
    fused = ranks(asked, dna, own, _bonus(weights, gains))
    found = discounted_gain(trending), discounted_gain(fused)
    return found[1] > found[0] and auc(asked, fused) >= auc(asked, trending), found


def _best(tried: Tried) -> float:
    """The weight with the highest gain among those that do not lower the AUC."""
    allowed = [entry for entry in tried if entry[1] >= tried[0][1]]
    return max(allowed, key=lambda entry: (entry[2], -entry[0]))[0]


def _bonus(
    weights: Mapping[str, float], gains: Mapping[str, Float32], owned: Lists = (), lists: Lists = ()
) -> Callable[[int, int], Float32]:
    """What ``weights`` add to f·d. ``gains`` float32 (A) of the candidates whoever asks; customers' own ``lists``."""
    always = np.sum([np.float32(weights[name]) * gain for name, gain in gains.items()], axis=0, dtype=np.float32)
    again, generated = np.float32(weights.get("bought_before", 0.0)), np.float32(weights.get("generated", 0.0))

    def rows(low: int, high: int) -> Float32:
        bonus: Float32 = np.tile(always, (high - low, 1))
        for row, had in zip(bonus, owned[low:high], strict=False):
            row[had[:MIXUP_LENGTH]] += again * rank_bonus(len(had))
        for row, listed in zip(bonus, lists[low:high], strict=False):
            row[listed] += generated * rank_bonus(len(listed))
        return bonus

    return rows


def _at_most(window: Window, styles: Float32, most: int) -> tuple[Window, Float32]:
    """The first ``most`` customers: they were drawn at random, or are sorted by an id that tells nothing."""
    if len(window.customers) <= most:
        return window, styles
    first = np.arange(len(window.customers)) < most
    return _only(window, first), styles[:most]


def _only(window: Window, chosen: NDArray[np.bool_]) -> Window:
    """The window of the ``chosen`` (C) customers."""
    kept, number = chosen[window.row], np.cumsum(chosen) - 1
    return Window(
        [customer for customer, wanted in zip(window.customers, chosen, strict=True) if wanted],
        window.times[chosen],
        window.candidates,
        number[window.row[kept]],
        window.target[kept],
    )
