"""The task of a backtest: which customers, at which moment, among which candidates, and what they went on to buy.

Candidates and every statistic come from stock and from sales before the window. Nothing but the targets themselves,
and the moment of each customer's first purchase, depends on what was sold inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet, Purchases
from model_store.errors import InvalidConfig, InvalidData
from model_store.popularity import TRENDING_DAYS
from offline.evaluation.ranks import TIERS, Targets
from offline.style_lstm import customer_index

DAY = 86_400
RECENT_DAYS = 28
_BETRAYED, _AHEAD = 0.9, 0.1
RECENT, KNOWN, NEW = range(TIERS)
"""Tiers of candidates: sold in the 28 days before the window; sold only earlier; never sold before it."""


@dataclass(frozen=True)
class Window:
    """start ≤ evaluation < until, Unix seconds."""

    start: int
    until: int


@dataclass(frozen=True)
class Task:
    """A backtest over K customers, N candidates and P purchases (distinct pairs of customer and article)."""

    window: Window
    customer_ids: list[str]
    """(K)"""
    history: Purchases
    """what was known when the window started: all purchases before it, of all customers"""
    first_sale: NDArray[np.int64]
    """(K) t_k, the customer's first purchase in the window: when the ranking is made"""
    candidates: NDArray[np.int64]
    """(N) index into the data set's articles, tier by tier"""
    targets: Targets
    first_time: Targets
    """targets never bought before by their customer, who is not shown what was bought before: as the service answers"""
    first_order: NDArray[np.bool_]
    """(P) which of the targets belong to their customer's first order in the window"""
    sales: NDArray[np.float64]
    """(N) sales of the 7 days before the window"""
    newcomer: NDArray[np.bool_]
    """(N) created in those 7 days or later"""
    entering: NDArray[np.bool_]
    """(N) not in stock when the window starts: (re-)enters the inventory during it"""
    average_sales: float
    """sales of those 7 days, averaged over the articles that were in stock in them"""
    repeated: int
    """purchases in the window that repeat an article the same customer bought in it: counted once"""
    out_of_stock: int
    """purchases in the window of articles that the availability table says were never in stock in it: left out"""

    @cached_property
    def known_customer(self) -> NDArray[np.int64]:
        """(K) index into ``history.customer_ids``, −1 for a customer without purchases before the window."""
        return customer_index(self.history, self.customer_ids)

    @cached_property
    def history_sizes(self) -> NDArray[np.int64]:
        """(K) number of purchases before the window."""
        sizes = np.append(np.diff(self.history.offsets), 0)
        return sizes[self.known_customer]

    @property
    def new_candidates(self) -> int:
        """How many candidates were never sold before the window."""
        return int(self.targets.tier_ends[NEW] - self.targets.tier_ends[KNOWN])

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

    @property
    def new_candidates_bought(self) -> int:
        """How many of those were bought in it."""
        return len(np.unique(self.targets.candidate[self.targets.tier == NEW]))


def choose_window(data: DataSet, cutoff: int, until: int | None = None, days: int | None = None) -> Window:
    """From the run's cut-off to the end of the data, or the last ``days`` days before ``until`` (exclusive).

    Raises InvalidConfig where the window is empty or reaches back before the cut-off.
    """
    end = data.last_event + 1 if until is None else until
    start = cutoff if days is None else end - days * DAY
    if start < cutoff:
        raise InvalidConfig(
            f"the window would start on {_date(start)}, before the run's cut-off of {_date(cutoff)}: choose fewer "
            "days, or train with an earlier cut-off"
        )
    if start >= end:
        raise InvalidConfig(
            f"nothing to evaluate on between the run's cut-off, {_date(cutoff)}, and {_date(end)}: train with test days"
        )
    return Window(start, end)


def _date(time: int) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"


def make_task(data: DataSet, window: Window) -> Task:
    """Gather the task. Raises InvalidData where no candidate was bought in the window."""
    start, until = window.start, window.until
    known = data.purchases(known_at=start)
    bought = data.purchases(known_at=until).between(start, until)
    in_stock = data.availability.in_stock_between(start, until)
    tiers = _tiers(known, start, len(data.article_ids))
    candidates = np.concatenate([np.flatnonzero(in_stock & (tiers == tier)) for tier in range(TIERS)])
    tier_ends = np.cumsum([np.count_nonzero(in_stock & (tiers == tier)) for tier in range(TIERS)])

    customer, article = _distinct_pairs(bought, len(data.article_ids))
    sellable = in_stock[article]
    buyers, row = np.unique(customer[sellable], return_inverse=True)
    if not len(buyers):
        raise InvalidData(
            f"nobody bought an article in stock between {_date(start)} and {_date(until)}: choose another window"
        )
    position = np.full(len(data.article_ids), -1, np.int64)
    position[candidates] = np.arange(len(candidates))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(buyers)))])

    customer_ids = [bought.customer_ids[index] for index in buyers]
    targets = Targets.among_all(offsets, position[article[sellable]], tier_ends)
    week = np.bincount(known.between(start - TRENDING_DAYS * DAY, start).article, minlength=len(data.article_ids))
    on_sale = np.count_nonzero(data.availability.in_stock_between(start - TRENDING_DAYS * DAY, start))
    return Task(
        window,
        customer_ids,
        known,
        bought.timestamp[bought.offsets[buyers]],
        candidates,
        targets,
        _first_time(targets, known, customer_index(known, customer_ids), position),
        _in_first_order(bought, customer[sellable], article[sellable]),
        week[candidates].astype(np.float64),
        data.created_at[candidates] >= start - TRENDING_DAYS * DAY,
        ~data.availability.in_stock_at(start)[candidates],
        float(week.sum() / max(on_sale, 1)),
        len(bought) - len(customer),
        int(np.count_nonzero(~sellable)),
    )


def _tiers(known: Purchases, start: int, articles: int) -> NDArray[np.int64]:
    """(articles) RECENT, KNOWN or NEW, by the purchases known when the window starts."""
    tiers = np.full(articles, NEW)
    tiers[known.article] = KNOWN
    tiers[known.article[known.timestamp >= start - RECENT_DAYS * DAY]] = RECENT
    return tiers


def _distinct_pairs(bought: Purchases, articles: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(customer, article) of each pair that occurs, sorted: the paper ranks the set of articles a customer bought."""
    pairs = np.unique(bought.customer.astype(np.int64) * articles + bought.article)
    return pairs // articles, pairs % articles


def _in_first_order(bought: Purchases, customer: NDArray[np.int64], article: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each pair of customer and article occurs in the customer's first order among ``bought``."""
    articles = int(bought.article.max(initial=0)) + 1
    first = bought.order == bought.order[bought.offsets[bought.customer]]
    pairs = bought.customer[first].astype(np.int64) * articles + bought.article[first]
    return np.isin(customer * articles + article, pairs)


def _first_time(
    targets: Targets, known: Purchases, known_customer: NDArray[np.int64], position: NDArray[np.int64]
) -> Targets:
    """Targets less repeats. ``position`` (articles): place among the candidates, −1 for what is none."""
    owned = [_owned(known, customer, position) for customer in known_customer.tolist()]
    kept = [
        np.setdiff1d(targets.candidate[low:high], own)
        for low, high, own in zip(targets.offsets, targets.offsets[1:], owned, strict=False)
    ]
    return Targets(_ends(kept), np.concatenate(kept), targets.tier_ends, _ends(owned), np.concatenate(owned))


def _owned(known: Purchases, customer: int, position: NDArray[np.int64]) -> NDArray[np.int64]:
    if customer < 0:
        return np.zeros(0, np.int64)
    places = np.unique(position[known.article[known.offsets[customer] : known.offsets[customer + 1]]])
    return places[places >= 0]


def _ends(groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64)
