"""Ranks of one or several windows → the tables of a report: figures of all models, with intervals.

Windows are pooled: every purchase counts once, whichever window it fell into. Resamples draw customers, each with the
purchases of all windows, since those of one customer resemble each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.bootstrap import bootstrap
from offline.evaluation.first_ten import FirstTen, FirstTenFigures, Shown, measure_first_ten
from offline.evaluation.metrics import Estimate, Figures, Float64, Scorecard, estimate
from offline.evaluation.rankings import COMPARED
from offline.evaluation.ranks import Places, Ranks
from offline.evaluation.tables import Table, tables
from offline.evaluation.task import Task
from offline.progress import Progress


class Counted(NamedTuple):
    """One model's ranks of all targets, and of the first-time ones."""

    every: Ranks
    first_time: Ranks

    def places(self, table: Table) -> Places:
        """Places of a table's purchases."""
        return (self.first_time if table.first_time else self.every).places(table.tiers, table.chosen)


@dataclass(frozen=True)
class Contest:
    """What all models made of one window's task."""

    task: Task
    ranks: Mapping[str, Counted]
    """by model"""
    parameters: Mapping[str, int | None]
    """by model: number of weights, None where there is nothing to learn"""
    first_ten: Mapping[str, FirstTen]
    """by model: what is shown first"""
    static_unknown: int
    """customers whom the static model does not know"""
    generated_for: int | None
    """customers for whom something was generated; None without a generating half"""


class Lead(NamedTuple):
    """Which model is best by one figure, the next best one, and by how much it is ahead (above zero either way)."""

    model: str
    next: str
    by: Estimate


@dataclass(frozen=True)
class TableResult:
    """One table: figures per model and differences per pair, each field of ``Figures`` with its interval."""

    table: Table
    """as the first window has it"""
    purchases: int
    customers: int
    candidates: int
    """of the window that has most"""
    places: Callable[[str], Places]
    """of a model; customers are numbered over all windows"""
    models: dict[str, dict[str, Estimate]]
    differences: dict[tuple[str, str], dict[str, Estimate]]
    leads: dict[str, Lead]
    """by figure"""


@dataclass(frozen=True)
class _Pooled:
    """One table over all W windows. Places of a model are gathered when they are asked for: those of all take much."""

    contests: Sequence[Contest]
    """(W)"""
    tables: Sequence[Table]
    """(W) the table, as each window has it"""
    numbers: Sequence[NDArray[np.int64]]
    """(W) numbers of each window's customers"""

    @property
    def candidates(self) -> int:
        """Of the window that has most."""
        sizes = [np.diff(contest.task.targets.tier_ends, prepend=0) for contest in self.contests]
        return max(int(size[list(table.tiers)].sum()) for size, table in zip(sizes, self.tables, strict=True))

    def places(self, model: str) -> Places:
        """Of all windows together; customers are numbered over them."""
        parts = [contest.ranks[model].places(table) for contest, table in zip(self.contests, self.tables, strict=True)]
        return Places(
            np.concatenate([number[one.customer] for one, number in zip(parts, self.numbers, strict=True)]),
            np.concatenate([one.above for one in parts]),
            np.concatenate([one.tied for one in parts]),
            np.concatenate([one.auc for one in parts]),
        )


def measure(contests: Sequence[Contest], samples: int, seed: int, progress: Progress) -> list[TableResult]:
    """All tables of the windows, pooled."""
    of_contests = [tables(contest.task, stock_tells_sales(contests)) for contest in contests]
    return measure_tables(contests, of_contests, COMPARED, samples, seed, progress)


def measure_tables(
    contests: Sequence[Contest],
    of_contests: Sequence[Sequence[Table]],
    compared: Sequence[tuple[str, str]],
    samples: int,
    seed: int,
    progress: Progress,
) -> list[TableResult]:
    """Bootstrap all tables at once, so that every figure and difference sees the same resampled customers.

    ``of_contests``: the same tables of each window; ``compared``: pairs of models whose difference is wanted.
    """
    numbers, customers = _numbered(contests)
    pooled = [
        _Pooled(contests, same, numbers)
        for same in zip(*of_contests, strict=True)
        if any(table.chosen.any() for table in same)
    ]
    models = list(contests[0].ranks)
    cards = (Scorecard(one.places(model)) for one in pooled for model in models)
    with progress.bar("bootstrap", len(pooled) * len(models)) as bar:
        values, sampled = bootstrap(cards, customers, samples, seed, bar.advance)
    shape = (len(pooled), len(models), len(Figures._fields))
    values, sampled = values.reshape(shape), sampled.reshape(-1, *shape)
    return [_result(one, models, compared, values[index], sampled[:, index]) for index, one in enumerate(pooled)]


def measure_shown(contests: Sequence[Contest], samples: int, seed: int) -> dict[str, FirstTenFigures]:
    """What each model shows first, over all windows; the resampled customers are those of ``measure``."""
    numbers, customers = _numbered(contests)
    windows = [
        Shown(contest.task.candidates, number, contest.first_ten)
        for contest, number in zip(contests, numbers, strict=True)
    ]
    return measure_first_ten(windows, customers, samples, seed)


def stock_tells_sales(contests: Sequence[Contest]) -> bool:
    """Whether in any window being new tells of having been bought."""
    return any(contest.task.stock_tells_sales for contest in contests)


def _numbered(contests: Sequence[Contest]) -> tuple[list[NDArray[np.int64]], int]:
    """Numbers of each window's customers, the same wherever a customer returns, and how many there are."""
    number: dict[str, int] = {}
    windows = [contest.task.customer_ids for contest in contests]
    numbers = [np.array([number.setdefault(name, len(number)) for name in names], np.int64) for names in windows]
    return numbers, len(number)


def _result(
    one: _Pooled, models: list[str], compared: Sequence[tuple[str, str]], values: Float64, sampled: Float64
) -> TableResult:
    row = {model: index for index, model in enumerate(models)}
    customer = one.places(models[0]).customer
    return TableResult(
        one.tables[0],
        len(customer),
        len(np.unique(customer)),
        one.candidates,
        one.places,
        {model: _named(values[index], sampled[:, index]) for model, index in row.items()},
        {
            (first, other): _named(
                values[row[first]] - values[row[other]], sampled[:, row[first]] - sampled[:, row[other]]
            )
            for first, other in compared
            if first in row and other in row
        },
        _leads(models, values, sampled),
    )


def _leads(models: list[str], values: Float64, sampled: Float64) -> dict[str, Lead]:
    """From ``values`` (M, F) and ``sampled`` (S, M, F); of ``cover_…`` less is better. None without a second model."""
    leads = {}
    for index, name in enumerate(Figures._fields):
        better = -1.0 if name.startswith("cover_") else 1.0
        order = np.argsort(-better * values[:, index], kind="stable")
        if len(order) > 1 and not np.isnan(values[:, index]).any():
            best, second = order[:2].tolist()
            ahead, drawn = (better * (of[..., best, index] - of[..., second, index]) for of in (values, sampled))
            leads[name] = Lead(models[best], models[second], estimate(np.atleast_1d(ahead), drawn[:, None])[0])
    return leads


def _named(value: Float64, sampled: Float64) -> dict[str, Estimate]:
    return dict(zip(Figures._fields, estimate(value, sampled), strict=True))
