"""The task of a backtest, whichever protocol sets it: who is asked for, when, among what, and what they bought.

Letters beyond those of ``model_store``: K customers, N candidates, P purchases (pairs of customer and article).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_store.popularity import TRENDING_DAYS
from model_store.purchases import Purchases
from offline.evaluation.ranks import TIERS, Targets
from offline.hold_out import Protocol
from offline.popularity import RecentSales
from offline.style_lstm import customer_index
from offline.validation import bought_candidates, candidate_places, owned_candidates

RECENT_DAYS = 28
POPULARITY_DAYS = (TRENDING_DAYS, 28)
_BETRAYED, _AHEAD = 0.9, 0.1
RECENT, KNOWN, NEW = range(TIERS)
"""Tiers of candidates: sold in the 28 days before the window; sold only earlier; never sold before it.

Where the ends of histories are ranked: KNOWN was sold in training, NEW was not, and none is RECENT.
"""
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """start ≤ evaluation < until, Unix seconds."""

    start: int
    until: int


@dataclass(frozen=True)
class Task:
    """A backtest over K customers, N candidates and P purchases."""

    protocol: Protocol
    window: Window
    """the moments of all targets lie in it"""
    customer_ids: list[str]
    """(K)"""
    history: Purchases
    """what was known when the ranking is made: purchases of all customers"""
    moment: NDArray[np.int64]
    """(K) t_k, the customer's first purchase of the targets: when the ranking is made"""
    sales_until: NDArray[np.int64]
    """(K) up to when sales are known at that moment"""
    candidates: NDArray[np.int64]
    """(N) index into the data set's articles, tier by tier"""
    targets: Targets
    first_time: Targets
    """targets never bought before by their customer, who is not shown what was bought before: as the service answers"""
    first_order: NDArray[np.bool_]
    """(P) which of the targets belong to their customer's first order among them"""
    recent: RecentSales
    """of what is known"""
    created_at: NDArray[np.int64]
    """(N) Unix seconds, -1 where that is not told"""
    entering: NDArray[np.bool_]
    """(N) not in stock when the window starts: (re-)enters the inventory during it"""
    average_sales: Mapping[int, float]
    """by number of days: sales in those before the window, averaged over the articles that were in stock in them"""
    repeated: int
    """purchases that repeat an article which the same customer bought among the targets: counted once"""
    out_of_stock: int
    """purchases of articles that the availability table says were never in stock in the window: left out"""

    @cached_property
    def known_customer(self) -> NDArray[np.int64]:
        """(K) index into ``history.customer_ids``, −1 for a customer without purchases before."""
        return customer_index(self.history, self.customer_ids)

    @cached_property
    def bought(self) -> list[NDArray[np.int64]]:
        """(K) which candidates each customer bought before, the latest first."""
        articles = int(max(self.candidates.max(initial=-1), self.history.article.max(initial=-1))) + 1
        return bought_candidates(candidate_places(self.candidates, articles), self.history, self.known_customer)

    @cached_property
    def history_sizes(self) -> NDArray[np.int64]:
        """(K) number of purchases before."""
        sizes = np.append(np.diff(self.history.offsets), 0)
        return sizes[self.known_customer]

    @cached_property
    def first_sold(self) -> NDArray[np.int64]:
        """(N) Unix seconds of each candidate's first known sale, −1 where there is none."""
        never = np.iinfo(np.int64).max
        first = np.full(max(int(part.max(initial=-1)) for part in (self.candidates, self.history.article)) + 1, never)
        np.minimum.at(first, self.history.article, self.history.timestamp)
        first[first == never] = -1
        return first[self.candidates]

    def trend(self, moment: int) -> Float64:
        """Sales of the week before ``moment``, float64 (N), as the service counts them: newcomers get the average."""
        return self.recent.trend(moment, self.candidates, self.created_at)

    @property
    def new_candidates(self) -> int:
        """How many candidates were never sold before."""
        return int(self.targets.tier_ends[NEW] - self.targets.tier_ends[KNOWN])

    @property
    def new_candidates_bought(self) -> int:
        """How many of those were bought."""
        return len(np.unique(self.targets.candidate[self.targets.tier == NEW]))

    @property
    def stock_tells_sales(self) -> bool:
        """Whether nearly every never-sold candidate was bought, and not of the others: then being one tells the answer.

        In a small shop where nearly everything sells, nearly all that is new sells too, and nothing is told.
        """
        if not self.new_candidates:
            return False
        known = len(self.candidates) - self.new_candidates
        known_bought = len(np.unique(self.targets.candidate[self.targets.tier != NEW]))
        share = self.new_candidates_bought / self.new_candidates
        return share >= _BETRAYED and share > known_bought / max(known, 1) + _AHEAD


def distinct(
    customer: NDArray[np.integer], article: NDArray[np.integer], articles: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(customer, article) of each pair that occurs, sorted: what is ranked is the set of articles a customer bought."""
    pairs = np.unique(customer.astype(np.int64) * articles + article)
    return pairs // articles, pairs % articles


def first_time_targets(
    targets: Targets, known: Purchases, known_customer: NDArray[np.int64], position: NDArray[np.int64]
) -> Targets:
    """Targets less repeats. ``position`` (articles): place among the candidates, −1 for what is none."""
    owned = owned_candidates(position, known, known_customer)
    kept = [
        np.setdiff1d(targets.candidate[low:high], own)
        for low, high, own in zip(targets.offsets, targets.offsets[1:], owned, strict=False)
    ]
    return Targets(_ends(kept), np.concatenate(kept), targets.tier_ends, _ends(owned), np.concatenate(owned))


def _ends(groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64)
