"""Which purchases are ranked among which candidates: the tables of a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.window import KNOWN, NEW, RECENT, RECENT_DAYS, Task

ALL, KNOWN_ONLY = "all", "known"
_EVERY = (RECENT, KNOWN, NEW)


@dataclass(frozen=True)
class Table:
    """A choice of purchases, bool (P), and of the tiers of candidates among which they are ranked."""

    name: str
    title: str
    tiers: tuple[int, ...]
    chosen: NDArray[np.bool_]
    first_time: bool = False
    """whether P counts the task's ``first_time`` targets"""


def tables(task: Task) -> list[Table]:
    """All tables of a task; some may be empty."""
    return [*_by_article(task), _next_order(task), _first_time(task), *_by_history(task)]


def _by_article(task: Task) -> list[Table]:
    tier = task.targets.tier
    recent = f"Recent articles only: only articles sold in the {RECENT_DAYS} days before are ranked"
    return [
        Table(ALL, "All purchases, among all articles in stock", _EVERY, np.ones(len(tier), bool)),
        Table("new", "New articles: purchases of articles never sold before, among all in stock", _EVERY, tier == NEW),
        Table("new_only", "New articles among themselves: only never sold ones are ranked", (NEW,), tier == NEW),
        Table(KNOWN_ONLY, "Known articles only: only articles sold before are ranked", (RECENT, KNOWN), tier != NEW),
        Table("recent", recent, (RECENT,), tier == RECENT),
    ]


def _next_order(task: Task) -> Table:
    tiers, among = _fair(task)
    chosen = task.first_order & np.isin(task.targets.tier, tiers)
    return Table(
        "next_order", f"Next order: the articles of each customer's first order in the window{among}", tiers, chosen
    )


def _first_time(task: Task) -> Table:
    tiers, among = _fair(task)
    chosen = np.isin(task.first_time.tier, tiers)
    title = f"First-time purchases: what a customer bought before is not ranked, as in the service{among}"
    return Table("first_time", title, tiers, chosen, first_time=True)


def _fair(task: Task) -> tuple[tuple[int, ...], str]:
    """All candidates, or the known ones where stock gives the new ones away."""
    return ((RECENT, KNOWN), ", known articles only") if task.stock_tells_sales else (_EVERY, "")


def _by_history(task: Task) -> list[Table]:
    """By how much is known of the customer."""
    sizes = task.history_sizes[task.targets.customer]
    tiers, among = _fair(task)
    counted = np.isin(task.targets.tier, tiers)
    groups = (
        ("history_some", "at least 1 earlier purchase", sizes >= 1),
        ("history_none", "no earlier purchase", sizes == 0),
        ("history_1_3", "1 to 3 earlier purchases", (sizes >= 1) & (sizes <= 3)),
        ("history_4_10", "4 to 10 earlier purchases", (sizes >= 4) & (sizes <= 10)),
        ("history_11", "11 earlier purchases or more", sizes >= 11),
    )
    return [Table(name, f"Customers with {words}{among}", tiers, counted & group) for name, words, group in groups]
