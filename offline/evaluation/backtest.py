"""The backtest as a whole: a run and a data set in, figures with intervals out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Blend
from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.time_features import TimeSpec
from offline.evaluation.counting import co_purchase, markov, own_history
from offline.evaluation.last_order import make_last_order_task
from offline.evaluation.metrics import Estimate, Figures, Float64, Scorecard, bootstrap, estimate
from offline.evaluation.rankings import (
    COMPARED,
    GeneratedRanking,
    StaticStyles,
    blended,
    personal,
    popularity,
    static_styles,
)
from offline.evaluation.ranks import Places, Ranking, Ranks, rank
from offline.evaluation.tables import Table, tables
from offline.evaluation.task import POPULARITY_DAYS, Task
from offline.evaluation.window import choose_window, make_task
from offline.generating import GeneratingModel, sessions_before
from offline.hold_out import LAST_ORDER, LastOrders
from offline.progress import Progress
from offline.run import Run, Split
from offline.style_lstm import styles_at, trained_network


@dataclass(frozen=True)
class Options:
    """How to evaluate. ``until`` (Unix seconds, exclusive) and ``days`` choose the window; else all after cut-off."""

    until: int | None = None
    days: int | None = None
    samples: int = 1_000
    """resamples of the bootstrap"""
    seed: int = 0


@dataclass(frozen=True)
class TableResult:
    """One table: figures per model and differences per pair, each field of ``Figures`` with its interval."""

    table: Table
    purchases: int
    customers: int
    candidates: int
    models: dict[str, dict[str, Estimate]]
    differences: dict[tuple[str, str], dict[str, Estimate]]


class Counted(NamedTuple):
    """One model's ranks of all targets, and of the first-time ones."""

    every: Ranks
    first_time: Ranks

    def places(self, table: Table) -> Places:
        """Places of a table's purchases."""
        return (self.first_time if table.first_time else self.every).places(table.tiers, table.chosen)


@dataclass(frozen=True)
class Result:
    """All that a backtest found."""

    task: Task
    options: Options
    rankings: Sequence[Ranking]
    ranks: dict[str, Counted]
    """by model"""
    tables: Sequence[TableResult]
    static_unknown: int
    """customers of the window whom the static model does not know"""
    generated_for: int | None
    """customers of the window for whom something was generated; None without a generating half"""


def run_backtest(data: DataSet, run: Run, options: Options, progress: Progress) -> Result:
    """Evaluate a trained run. Raises InvalidConfig, InvalidData or TrainingError in one line."""
    task = _task(data, run, options)
    generated = _generated_lists(task, data, run, progress)
    rankings, static = _rankings(task, run, generated)
    ranks = {}
    for ranking in rankings:
        with progress.bar(f"ranking: {ranking.name}", task.targets.customers) as bar:
            ranks[ranking.name] = Counted(*rank(ranking, (task.targets, task.first_time), bar.advance))
    listed = None if generated is None else sum(len(one) > 0 for one in generated.lists)
    return Result(task, options, rankings, ranks, _measure(task, ranks, options, progress), static.unknown, listed)


def _task(data: DataSet, run: Run, options: Options) -> Task:
    """The task of the protocol that the run was trained for."""
    split = run.load_model("split", Split)
    held = LastOrders.of(data) if split.hold_out == LAST_ORDER else None
    trained_on = data if held is None else held.left_out_of(data)
    if split.fingerprint != trained_on.fingerprint:
        raise InvalidConfig(
            f"the run was trained on '{split.data_set}' with other content than {data.folder} has now: train it again"
        )
    if held is None:
        return make_task(data, choose_window(data, split.cutoff, options.until, options.days))
    if options.until is not None or options.days is not None:
        raise InvalidConfig(
            "the run was trained without last orders, which are evaluated whenever they were: no window"
        )
    return make_last_order_task(data, held, trained_on.purchases())


@dataclass(frozen=True)
class _Generated:
    """Mixup lists of the task's customers, empty where nothing could be generated, and the model's size."""

    lists: list[NDArray[np.int64]]
    parameters: int


def _generated_lists(task: Task, data: DataSet, run: Run, progress: Progress) -> _Generated | None:
    """What the run's language model writes for each customer right before their first purchase in the window."""
    model = GeneratingModel.of_run(run, data)
    if model is None:
        return None
    names = [data.article_ids[row] for row in task.candidates[task.targets.candidate]]
    bought = [set(names[low:high]) for low, high in pairwise(task.targets.offsets.tolist())]
    sessions = sessions_before(
        data,
        task.window.start,
        task.window.until,
        task.customer_ids,
        task.moment,
        bought,
        model.spec.prompt.actions,
    )
    return _Generated(model.lists(data, sessions, task.candidates, progress), model.parameters)


def _rankings(task: Task, run: Run, generated: _Generated | None) -> tuple[list[Ranking], StaticStyles]:
    dna = run.load_arrays("article_dna")["dna"]
    network = trained_network(run)
    trained = run.load_arrays("static")
    static = static_styles(task.customer_ids, run.load_json("static_customers"), trained["style"])
    style = styles_at(
        network, run.load_model("time_spec", TimeSpec), dna, task.history, task.known_customer, task.moment
    )
    candidates = np.ascontiguousarray(dna[task.candidates])
    weights = sum(weight.numel() for weight in network.parameters())
    dynamic = personal("dynamic", weights, style, candidates)
    blend, generating = run.load_model("blend", Blend), generated.parameters if generated else 0
    served = blended(dynamic, task, blend, generated.lists if generated else (), generating)
    rankings: list[Ranking] = [
        *(popularity(task, days) for days in POPULARITY_DAYS),
        *(make(task, len(dna)) for make in (own_history, co_purchase, markov)),
        personal("static", trained["style"].size + trained["bias"].size, static.style, candidates),
        dynamic,
        *([GeneratedRanking(generated.lists, served, generating)] if generated else []),
        served,
    ]
    return rankings, static


def _measure(task: Task, ranks: dict[str, Counted], options: Options, progress: Progress) -> list[TableResult]:
    """Bootstrap all tables at once, so that every figure and difference sees the same resampled customers."""
    chosen = [table for table in tables(task) if table.chosen.any()]
    cards = [Scorecard(model.places(table)) for table in chosen for model in ranks.values()]
    with progress.bar("bootstrap", options.samples) as bar:
        values, sampled = bootstrap(cards, task.targets.customers, options.samples, options.seed, bar.advance)
    shape = (len(chosen), len(ranks), len(Figures._fields))
    values, sampled = values.reshape(shape), sampled.reshape(-1, *shape)
    return [
        _table_result(task, table, list(ranks), values[index], sampled[:, index]) for index, table in enumerate(chosen)
    ]


def _table_result(task: Task, table: Table, models: list[str], values: Float64, sampled: Float64) -> TableResult:
    sizes = np.diff(task.targets.tier_ends, prepend=0)
    row = {model: index for index, model in enumerate(models)}
    return TableResult(
        table,
        int(table.chosen.sum()),
        len(np.unique((task.first_time if table.first_time else task.targets).customer[table.chosen])),
        int(sizes[list(table.tiers)].sum()),
        {model: _named(values[index], sampled[:, index]) for model, index in row.items()},
        {
            (one, other): _named(values[row[one]] - values[row[other]], sampled[:, row[one]] - sampled[:, row[other]])
            for one, other in COMPARED
            if one in row and other in row
        },
    )


def _named(value: Float64, sampled: Float64) -> dict[str, Estimate]:
    return dict(zip(Figures._fields, estimate(value, sampled), strict=True))
