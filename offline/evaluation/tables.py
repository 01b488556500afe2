"""Which purchases are ranked among which candidates: the tables of a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.window import KNOWN, NEW, RECENT, RECENT_DAYS, Task

ALL = "all"


@dataclass(frozen=True)
class Table:
    """A choice of purchases, bool (P), and of the tiers of candidates among which they are ranked."""

    name: str
    title: str
    tiers: tuple[int, ...]
    chosen: NDArray[np.bool_]


def tables(task: Task) -> list[Table]:
    """All tables of a task; some may be empty."""
    return [*_by_article(task), *_by_history(task)]


def _by_article(task: Task) -> list[Table]:
    tier, every = task.targets.tier, (RECENT, KNOWN, NEW)
    return [
        Table(ALL, "All purchases, among all articles in stock", every, np.ones(len(tier), bool)),
        Table("new", "New articles: purchases of articles never sold before, among all in stock", every, tier == NEW),
        Table("new_only", "New articles among themselves: only never sold ones are ranked", (NEW,), tier == NEW),
        Table("known", "Known articles only: only articles sold before are ranked", (RECENT, KNOWN), tier != NEW),
        Table(
            "recent",
            f"Recent articles only: only articles sold in the {RECENT_DAYS} days before are ranked",
            (RECENT,),
            tier == RECENT,
        ),
    ]


def _by_history(task: Task) -> list[Table]:
    sizes = task.history_sizes[task.targets.customer]
    steps = (
        (0, 0, "no earlier purchase"),
        (1, 3, "1 to 3 earlier purchases"),
        (4, 10, "4 to 10"),
        (11, None, "11 and more"),
    )
    return [
        Table(
            f"history_{low}" if low == high else f"history_{low}_{'' if high is None else high}".rstrip("_"),
            f"All purchases, of customers with {words}",
            (RECENT, KNOWN, NEW),
            (sizes >= low) & (sizes <= (np.inf if high is None else high)),
        )
        for low, high, words in steps
    ]
