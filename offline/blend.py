"""Weights of the blended ranking, fitted on the validation window (design §4).

The served score is a sum of f·d and of what ``model_store.bundle.Blend`` weighs. The weights are fitted one by one,
and all once more, since each depends on the others: each is the one with the highest discounted gain over the whole
ranking (mean of 1 / log2(1 + rank), which the top decides) among those whose AUC is no lower than without. f·d has
whatever scale its loss gave it, so weights are tried as multiples of its spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Blend
from model_store.generation import rank_bonus
from model_store.generation_spec import MIXUP_LENGTH
from model_store.popularity import POPULARITY
from offline.popularity import best_seller_bonus
from offline.validation import AsOf, Window, auc, discounted_gain, ranks

_MULTIPLES = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0, 3.0)
_LIST_MULTIPLES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
_ROUNDS = 2
_MOST_CUSTOMERS = 3_000
_COLD_PURCHASES = 30  # fewer say nothing
_BLOCK = 256  # customers

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
    trend: AsOf,
    owned: Lists,
    lists: Lists | None = None,
    popularity: AsOf | None = None,
) -> BlendFit:
    """Fit on ``window`` with ``styles`` float32 (C, 128) of its customers, as what is known then ranks ``dna``.

    ``dna`` float32 (N, 128) is without the ``popularity`` component of f, which is given for the candidates where the
    run has it. ``trend``: log(1 + sales) of the week before. ``owned`` (C): what each customer bought before, positions
    among the candidates, the latest first; who bought nothing is ranked like all others where that is better for them.
    ``lists`` (C): each customer's mixup list, in the same way, empty where nothing was generated; their weight is
    fitted on those who have one.
    """
    gains = {"trend": trend}
    if popularity is not None and popularity.table.any():
        gains = {"popularity": popularity, **gains, "best_sellers": popularity.map(best_seller_bonus)}
    asked = _Asked(window, dna, styles, gains, owned, lists or ()).first(_MOST_CUSTOMERS)
    spread = asked.spread()
    of_scores, of_lists = (np.multiply(tried, spread) for tried in (_MULTIPLES, _LIST_MULTIPLES))
    grids = {"trend": of_scores.tolist()}
    if "popularity" in gains:
        unit = float(gains["popularity"].table.std() or 1.0)
        grids = {"popularity": (of_scores / unit).tolist(), **grids, "best_sellers": of_lists.tolist()}
    if any(map(len, asked.owned)):
        grids["bought_before"] = of_lists.tolist()
    weights, tried = dict.fromkeys(grids, 0.0), dict[str, Tried]()
    for _ in range(_ROUNDS):
        for name, grid in grids.items():
            tried[name] = [asked.measured(name, weight, weights) for weight in grid]
            weights[name] = _best(tried[name])
    if any(map(len, asked.lists)):
        listed = asked.only(np.array([len(one) > 0 for one in asked.lists]))
        tried["generated"] = [listed.measured("generated", weight, weights) for weight in of_lists.tolist()]
        weights["generated"] = _best(tried["generated"])
    by_style, found = _cold(asked, weights)
    return BlendFit(Blend(**weights, cold_by_style=by_style), tried, found)


@dataclass(frozen=True)
class _Asked:
    """C customers of a window, and all that their ranking is made of but the weights."""

    window: Window
    dna: Float32
    styles: Float32
    gains: Mapping[str, AsOf]
    """what is added whoever asks, by the name of its weight; popularity is part of f·d besides"""
    owned: Lists
    lists: Lists
    """(C), or none at all"""

    def ranks(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """Of the purchases; what has no weight is left out."""

        def bonus(low: int, high: int) -> Float32:
            rows = self._popular_part(low, high)
            for name, gain in self.gains.items():
                if weight := np.float32(weights.get(name, 0.0)):
                    rows += weight * gain.rows(low, high)
            again, generated = np.float32(weights.get("bought_before", 0.0)), np.float32(weights.get("generated", 0.0))
            for row, had in zip(rows, self.owned[low:high], strict=False):
                row[had[:MIXUP_LENGTH]] += again * rank_bonus(len(had))
            for row, listed in zip(rows, self.lists[low:high], strict=False):
                row[listed] += generated * rank_bonus(len(listed))
            return rows

        return ranks(self.window, self.dna, self.styles, bonus)

    def measured(self, name: str, weight: float, weights: Mapping[str, float]) -> tuple[float, float, float]:
        """(weight, AUC, discounted gain) of one ``weight`` beside the others."""
        rank = self.ranks({**weights, name: weight})
        return weight, auc(self.window, rank), discounted_gain(rank)

    def by_style(self, low: int, high: int) -> Float32:
        """f·d of the customers low … high - 1, float32 (high - low, A)."""
        scores: Float32 = self.styles[low:high] @ self.dna[self.window.candidates].T
        return scores + self._popular_part(low, high)

    def spread(self) -> float:
        """How far f·d of one customer varies from article to article: the mean of standard deviations."""
        blocks = range(0, len(self.styles), _BLOCK)
        return float(np.concatenate([np.std(self.by_style(low, low + _BLOCK), axis=1) for low in blocks]).mean())

    def only(self, chosen: NDArray[np.bool_]) -> _Asked:
        """The ``chosen`` (C) customers."""
        gains = {name: gain.only(chosen) for name, gain in self.gains.items()}
        owned, lists = list(compress(self.owned, chosen)), list(compress(self.lists, chosen))
        return _Asked(self.window.only(chosen), self.dna, self.styles[chosen], gains, owned, lists)

    def first(self, most: int) -> _Asked:
        """The first ``most`` customers: they were drawn at random, or are sorted by an id that tells nothing."""
        return self if len(self.styles) <= most else self.only(np.arange(len(self.styles)) < most)

    def _popular_part(self, low: int, high: int) -> Float32:
        styles = self.styles[low:high]
        if "popularity" not in self.gains:
            return np.zeros((len(styles), len(self.window.candidates)), np.float32)
        part: Float32 = styles[:, POPULARITY, None] * self.gains["popularity"].rows(low, high)
        return part


def _cold(asked: _Asked, weights: Mapping[str, float]) -> tuple[bool, tuple[float, float] | None]:
    """Whether those who bought nothing yet are better ranked like all others than by what trends first.

    Besides, the discounted gain of both: with what trends first, and like all others.
    """
    cold = np.array([not len(one) for one in asked.owned])
    if np.count_nonzero(cold[asked.window.row]) < _COLD_PURCHASES:
        return False, None
    theirs = asked.only(cold)
    above_all = 2 * float(np.abs(theirs.by_style(0, len(theirs.styles))).max()) + 1.0
    # So steep that f·d only decides where the trend is the same.
    steep = theirs.gains["trend"].map(lambda row: np.where(row > 0, above_all * (1 + 100 * row), 0).astype(np.float32))
    trending = replace(theirs, gains={**theirs.gains, "trend": steep}).ranks({"trend": 1.0})
    fused = theirs.ranks({**weights, "generated": 0.0})
    found = discounted_gain(trending), discounted_gain(fused)
    return found[1] > found[0] and auc(theirs.window, fused) >= auc(theirs.window, trending), found


def _best(tried: Tried) -> float:
    """The weight with the highest gain among those that do not lower the AUC."""
    allowed = [entry for entry in tried if entry[1] >= tried[0][1]]
    return max(allowed, key=lambda entry: (entry[2], -entry[0]))[0]
