"""The protocol by time (Zalando 2017, §3): rank what is in stock at each customer's first purchase in a window.

Candidates and every statistic come from stock and from sales before the window. Nothing but the targets themselves,
and the moment of each customer's first purchase, depends on what was sold inside it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, InvalidData
from model_store.purchases import Purchases
from offline.evaluation.ranks import TIERS, Targets
from offline.evaluation.task import (
    KNOWN,
    NEW,
    POPULARITY_DAYS,
    RECENT,
    RECENT_DAYS,
    Task,
    Window,
    distinct,
    first_time_targets,
)
from offline.popularity import DAY, RecentSales
from offline.style_lstm import customer_index
from offline.validation import candidate_places

WEEK = 7


def choose_windows(
    data: DataSet, cutoff: int, until: int | None = None, days: int | None = None, count: int = 1
) -> list[Window]:
    """``count`` windows of ``days`` (7 where several are asked for), end to end, the last one up to ``until``.

    ``until`` (exclusive) is the end of the data unless given. One window without ``days`` begins at the run's cut-off.
    Raises InvalidConfig where the windows are empty or reach back before the cut-off.
    """
    end = data.last_event + 1 if until is None else until
    if days is None and count == 1:
        starts = [cutoff]
    else:
        length = (days or WEEK) * DAY
        starts = [end - number * length for number in range(count, 0, -1)]
    if starts[0] < cutoff:
        what = "the window" if count == 1 else "the first window"
        fewer = "days" if count == 1 else "days or windows"
        raise InvalidConfig(
            f"{what} would start on {_date(starts[0])}, before the run's cut-off of {_date(cutoff)}: choose fewer "
            f"{fewer}, or train with an earlier cut-off"
        )
    if starts[0] >= end:
        raise InvalidConfig(
            f"nothing to evaluate on between the run's cut-off, {_date(cutoff)}, and {_date(end)}: train with test days"
        )
    return [Window(start, later) for start, later in pairwise([*starts, end])]


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

    customer, article = distinct(bought.customer, bought.article, len(data.article_ids))
    sellable = in_stock[article]
    buyers, row = np.unique(customer[sellable], return_inverse=True)
    if not len(buyers):
        raise InvalidData(
            f"nobody bought an article in stock between {_date(start)} and {_date(until)}: choose another window"
        )
    position = candidate_places(candidates, len(data.article_ids))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(buyers)))])

    customer_ids = [bought.customer_ids[index] for index in buyers]
    targets = Targets.among_all(offsets, position[article[sellable]], tier_ends)
    return Task(
        protocol="by_time",
        window=window,
        customer_ids=customer_ids,
        history=known,
        moment=bought.timestamp[bought.offsets[buyers]],
        sales_until=np.full(len(buyers), start),
        candidates=candidates,
        targets=targets,
        first_time=first_time_targets(targets, known, customer_index(known, customer_ids), position),
        first_order=_in_first_order(bought, customer[sellable], article[sellable]),
        recent=RecentSales(known, len(data.article_ids)),
        created_at=data.created_at[candidates],
        entering=~data.availability.in_stock_at(start)[candidates],
        average_sales={days: _average_sales(data, known, start - days * DAY, start) for days in POPULARITY_DAYS},
        repeated=len(bought) - len(customer),
        out_of_stock=int(np.count_nonzero(~sellable)),
    )


def _average_sales(data: DataSet, known: Purchases, start: int, end: int) -> float:
    """Over the articles that were in stock at some moment between ``start`` and ``end``."""
    on_sale = int(np.count_nonzero(data.availability.in_stock_between(start, end)))
    return len(known.between(start, end)) / max(on_sale, 1)


def _tiers(known: Purchases, start: int, articles: int) -> NDArray[np.int64]:
    """(articles) RECENT, KNOWN or NEW, by the purchases known when the window starts."""
    tiers = np.full(articles, NEW)
    tiers[known.article] = KNOWN
    tiers[known.article[known.timestamp >= start - RECENT_DAYS * DAY]] = RECENT
    return tiers


def _in_first_order(bought: Purchases, customer: NDArray[np.int64], article: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each pair of customer and article occurs in the customer's first order among ``bought``."""
    articles = int(bought.article.max(initial=0)) + 1
    first = bought.order == bought.order[bought.offsets[bought.customer]]
    pairs = bought.customer[first].astype(np.int64) * articles + bought.article[first]
    return np.isin(customer * articles + article, pairs)
