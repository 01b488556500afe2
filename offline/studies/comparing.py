"""Several rankings over one task: the figures of every evaluation, and each one's paired difference to a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.measure import Contest, Counted, TableResult, measure_tables
from offline.evaluation.ranks import Float32, Ranking, rank
from offline.evaluation.report import table_json
from offline.evaluation.tables import Table
from offline.evaluation.task import Task
from offline.progress import Progress

Json = dict[str, Any]


@dataclass(frozen=True)
class Named:
    """A ranking by the name that a study gives it."""

    name: str
    ranking: Ranking

    @property
    def parameters(self) -> int | None:
        """Of the ranking."""
        return self.ranking.parameters

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        return self.ranking.scores(customers)


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn: by ``samples`` resamples of the customers."""

    samples: int = 1_000
    seed: int = 0


def compare(
    task: Task,
    rankings: Sequence[Ranking],
    tables: Sequence[Table],
    compared: Sequence[tuple[str, str]],
    sampling: Sampling,
    progress: Progress,
) -> list[Json]:
    """The ``tables`` that hold a purchase, as report.json has them, with the differences ``compared``."""
    ranks = {}
    for ranking in rankings:
        with progress.bar(f"ranking: {ranking.name}", task.targets.customers) as bar:
            ranks[ranking.name] = Counted(*rank(ranking, (task.targets, task.first_time), bar.advance))
    contest = Contest(task, ranks, {one.name: one.parameters for one in rankings}, {}, 0, None)
    found = measure_tables([contest], [tables], compared, sampling.samples, sampling.seed, progress)
    return [_json(one) for one in found]


def against(reference: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Each of ``names`` compared with ``reference``."""
    return [(name, reference) for name in names if name != reference]


def table(
    name: str, title: str, tiers: tuple[int, ...], task: Task, chosen: NDArray[np.bool_], *, first_time: bool = False
) -> Table:
    """A table of the ``chosen`` (P) purchases of articles in ``tiers``, ranked among those."""
    targets = task.first_time if first_time else task.targets
    return Table(name, title, tiers, chosen & np.isin(targets.tier, tiers), first_time)


def _json(one: TableResult) -> Json:
    return {"name": one.table.name, **table_json(one)}
