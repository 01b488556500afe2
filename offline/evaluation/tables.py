"""Which purchases are ranked among which candidates: the tables of a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.slices import AGES, DECILES, NOT_TOLD, ages, between_days, popularity_deciles
from offline.evaluation.task import KNOWN, NEW, RECENT, RECENT_DAYS, Task

ALL, KNOWN_ONLY = "all", "known"
_EVERY = (RECENT, KNOWN, NEW)
HISTORY, AGE, POPULARITY = "history", "age", "popularity"
SLICES = {
    HISTORY: "length of the customer's history",
    AGE: "age of the article",
    POPULARITY: "popularity of the article",
}
"""What purchases are grouped by, in words: each group is a table of its own."""


@dataclass(frozen=True)
class Table:
    """A choice of purchases, bool (P), and of the tiers of candidates among which they are ranked."""

    name: str
    title: str
    tiers: tuple[int, ...]
    chosen: NDArray[np.bool_]
    first_time: bool = False
    """whether P counts the task's ``first_time`` targets"""
    slice: str = ""
    """what this table is one group of (``SLICES``), if it is"""
    label: str = ""
    """the group's own words, beside its slice's"""


def tables(task: Task, stock_tells_sales: bool) -> list[Table]:
    """All tables of a task, always the same ones; some may be empty.

    ``stock_tells_sales``: rank known articles only wherever new ones among all others would give themselves away.
    """
    fair = fair_tiers(stock_tells_sales)
    next_order = (
        [next_order_table(task, *fair)] if task.protocol == "by_time" else []
    )  # else all targets are of one order
    groups = [*_by_history(task, *fair), *_by_age(task, *fair), *_by_popularity(task, *fair)]
    return [*_by_article(task), *next_order, _first_time(task, *fair), *groups]


def fair_tiers(stock_tells_sales: bool) -> tuple[tuple[int, ...], str]:
    """The tiers that may be ranked together, and words that say so where they are not all."""
    return ((RECENT, KNOWN), ", known articles only") if stock_tells_sales else (_EVERY, "")


def _by_article(task: Task) -> list[Table]:
    tier = task.targets.tier
    by_time = task.protocol == "by_time"
    every, before = ("all articles in stock", "before") if by_time else ("all articles", "in training")
    recent = f"Recent articles only: only articles sold in the {RECENT_DAYS} days before are ranked"
    known = f"Known articles only: only articles sold {before} are ranked"
    return [
        Table(ALL, f"All purchases, among {every}", _EVERY, np.ones(len(tier), bool)),
        Table("new", f"New articles: purchases of articles never sold {before}, among {every}", _EVERY, tier == NEW),
        Table(
            "new_only", f"New articles among themselves: only those never sold {before} are ranked", (NEW,), tier == NEW
        ),
        Table(KNOWN_ONLY, known, (RECENT, KNOWN), tier != NEW),
        Table("recent", recent, (RECENT,), tier == RECENT),
    ]


def next_order_table(task: Task, tiers: tuple[int, ...], among: str) -> Table:
    """What a generation speaks of."""
    chosen = task.first_order & np.isin(task.targets.tier, tiers)
    return Table(
        "next_order", f"Next order: the articles of each customer's first order in the window{among}", tiers, chosen
    )


def _first_time(task: Task, tiers: tuple[int, ...], among: str) -> Table:
    chosen = np.isin(task.first_time.tier, tiers)
    title = f"First-time purchases: what a customer bought before is not ranked, as in the service{among}"
    return Table("first_time", title, tiers, chosen, first_time=True)


def _by_history(task: Task, tiers: tuple[int, ...], among: str) -> list[Table]:
    """By how much is known of the customer."""
    sizes = task.history_sizes[task.targets.customer]
    counted = np.isin(task.targets.tier, tiers)
    groups = (
        ("history_some", "1 or more", "at least 1 earlier purchase", sizes >= 1),
        ("history_none", "none", "no earlier purchase", sizes == 0),
        ("history_1", "1", "1 earlier purchase", sizes == 1),
        ("history_2_3", "2 or 3", "2 or 3 earlier purchases", (sizes >= 2) & (sizes <= 3)),
        ("history_4_9", "4 to 9", "4 to 9 earlier purchases", (sizes >= 4) & (sizes <= 9)),
        ("history_10", "10 or more", "10 earlier purchases or more", sizes >= 10),
    )
    return [
        Table(name, f"Customers with {words}{among}", tiers, counted & group, slice=HISTORY, label=label)
        for name, label, words, group in groups
    ]


def _by_age(task: Task, tiers: tuple[int, ...], among: str) -> list[Table]:
    """By how long the article was in the shop when it was ranked."""
    age, counted = ages(task), np.isin(task.targets.tier, tiers)
    told = [
        Table(name, f"Articles in the shop for {words}{among}", tiers, counted & group, slice=AGE, label=words)
        for name, words, group in (
            (name, words, between_days(age, low, high)) for name, (words, low, high) in AGES.items()
        )
    ]
    untold = counted & (age == NOT_TOLD)
    title = f"Articles whose age is not told{among}"
    return [*told, Table("age_not_told", title, tiers, untold, slice=AGE, label="not told")]


def _by_popularity(task: Task, tiers: tuple[int, ...], among: str) -> list[Table]:
    """By how much the article sold before."""
    decile, counted = popularity_deciles(task), np.isin(task.targets.tier, tiers)
    words = {1: ", the best sellers", DECILES: ", which sold least"}
    sold = [
        Table(
            f"decile_{number}",
            f"Articles of decile {number} by sales before{words.get(number, '')}{among}",
            tiers,
            counted & (decile == number),
            slice=POPULARITY,
            label=f"{number}",
        )
        for number in range(1, DECILES + 1)
    ]
    never = Table(
        "decile_none",
        f"Articles that never sold before{among}",
        tiers,
        counted & (decile == 0),
        slice=POPULARITY,
        label="never sold",
    )
    return [*sold, never]
