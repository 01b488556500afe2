"""The backtest as a whole: a run and a data set in, figures with intervals out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Blend
from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.time_features import TimeSpec
from offline.article_offsets import read_dna, trained_offsets
from offline.config import Config
from offline.evaluation.baselines import BaselineRanking, Baselines, baselines_of
from offline.evaluation.calibration import Calibration, calibrations
from offline.evaluation.cost import Clock, Cost, Stopwatch
from offline.evaluation.counting import co_purchase, markov, own_history
from offline.evaluation.first_ten import FirstTenFigures, FirstTenWatcher, Yardsticks
from offline.evaluation.held_out import make_held_out_task
from offline.evaluation.measure import Contest, Counted, TableResult, measure, measure_shown, stock_tells_sales
from offline.evaluation.rankings import (
    DYNAMIC,
    STATIC,
    GeneratedRanking,
    PersonalRanking,
    PopularityThen,
    StaticStyles,
    blended,
    popularity,
    static_styles,
)
from offline.evaluation.ranks import Ranking, rank
from offline.evaluation.task import POPULARITY_DAYS, Task, Window
from offline.evaluation.window import choose_windows, make_task
from offline.generating import GeneratingModel, sessions_before
from offline.hold_out import BY_TIME, HeldOut, Protocol, training_data
from offline.popularity import Popularity
from offline.progress import Progress
from offline.run import Run, Split
from offline.sequences import Example
from offline.style_lstm import styles_at, trained_network


@dataclass(frozen=True)
class Options:
    """How to evaluate. ``until`` (Unix seconds, exclusive) and ``days`` choose the window; else all after cut-off."""

    until: int | None = None
    days: int | None = None
    windows: int = 1
    """how many windows, end to end, each of ``days``, are pooled"""
    samples: int = 1_000
    """resamples of the bootstrap"""
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """All that a backtest found."""

    contests: Sequence[Contest]
    """one for each window, in order of time"""
    baselines: Baselines
    """what other models were ranked by"""
    options: Options
    tables: Sequence[TableResult]
    first_ten: Mapping[str, FirstTenFigures]
    """by model"""
    calibration: Sequence[Calibration]
    """of the static model"""
    cost: Cost

    @property
    def protocol(self) -> Protocol:
        """What was asked."""
        return self.contests[0].task.protocol

    @property
    def stock_tells_sales(self) -> bool:
        """Whether in any window being new tells of having been bought."""
        return stock_tells_sales(self.contests)

    @property
    def customers(self) -> int:
        """Different customers who were asked for."""
        return len({name for contest in self.contests for name in contest.task.customer_ids})

    @property
    def span(self) -> Window:
        """From the first window's start to the last one's end."""
        windows = [contest.task.window for contest in self.contests]
        return Window(windows[0].start, windows[-1].until)

    def total(self, count: Callable[[Task], int]) -> int:
        """A number of each window, summed."""
        return sum(count(contest.task) for contest in self.contests)


def run_backtest(data: DataSet, run: Run, options: Options, progress: Progress, clock: Clock = perf_counter) -> Result:
    """Evaluate a trained run. Raises InvalidConfig, InvalidData or TrainingError in one line."""
    parts, ranking = Stopwatch(clock), Stopwatch(clock)
    with parts.timing("what is asked"):
        chosen = tasks(data, run, options)
        others = baselines_of(run, chosen)
    for line in others.left_out:
        progress.say(line)
    contests = [
        _contest(_Asked(task, data, run, rankings), progress, parts, ranking)
        for task, rankings in zip(chosen, others.rankings, strict=True)
    ]
    parts.seconds["ranking"] = sum(ranking.seconds.values())
    trained_on, samples, seed = training_data(data, chosen[0].protocol), options.samples, options.seed
    with parts.timing("figures and intervals"):
        measured, shown = measure(contests, samples, seed, progress), measure_shown(contests, samples, seed)
    with parts.timing("probabilities"):
        calibrated = calibrations(data, trained_on, run, chosen, samples, seed)
    sizes = [(task.targets.customers, task.targets.candidates) for task in chosen]
    scores = sum(customers * candidates for customers, candidates in sizes)
    cost = Cost(parts.seconds, ranking.seconds, sum(customers for customers, _ in sizes), scores)
    return Result(contests, others, options, measured, shown, calibrated, cost)


def tasks(data: DataSet, run: Run, options: Options) -> list[Task]:
    """The tasks of the protocol that the run was trained for: one for each window.

    Raises InvalidConfig where the data are not the run's, or where the windows are none.
    """
    split = run.load_model("split", Split)
    held = HeldOut.of(data, split.hold_out)
    trained_on = data if held is None else held.left_out_of(data)
    if split.fingerprint != trained_on.fingerprint:
        raise InvalidConfig(
            f"the run was trained on '{split.data_set}' with other content than {data.folder} has now: train it again"
        )
    if held is None:
        windows = choose_windows(data, split.cutoff, options.until, options.days, options.windows)
        return [make_task(data, window) for window in windows]
    if options.until is not None or options.days is not None or options.windows != 1:
        raise InvalidConfig(
            "the run was trained without the end of each history, which is evaluated whenever it was: no window"
        )
    return [make_held_out_task(data, held, trained_on.purchases())]


class _Asked(NamedTuple):
    """One window's task, and what is asked."""

    task: Task
    data: DataSet
    run: Run
    others: Sequence[BaselineRanking]


def _contest(asked: _Asked, progress: Progress, parts: Stopwatch, ranking_times: Stopwatch) -> Contest:
    task, data, run, others = asked
    with parts.timing("what is generated"):
        generated = _generated_lists(task, data, run, progress)
    with parts.timing("styles and counts"):
        rankings, static = _rankings(task, data, run, generated)
    rankings = [*rankings[:-1], *others, rankings[-1]]  # what is served stands last
    yardsticks = Yardsticks(task, run.load_arrays("article_dna")["dna"][task.candidates])
    ranks, first_ten = {}, {}
    for ranking in rankings:
        watcher = FirstTenWatcher(yardsticks)
        bar_of = progress.bar(f"ranking: {ranking.name}", task.targets.customers)
        with ranking_times.timing(ranking.name), bar_of as bar:
            counted = rank(ranking, (task.targets, task.first_time), bar.advance, [watcher])
        ranks[ranking.name], first_ten[ranking.name] = Counted(*counted), watcher.found()
    listed = None if generated is None else sum(len(one) > 0 for one in generated.lists)
    return Contest(task, ranks, {one.name: one.parameters for one in rankings}, first_ten, static.unknown, listed)


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
    sessions = sessions_of(task, data, model.spec.prompt.actions)
    return _Generated(model.lists(data, sessions, task.candidates, progress), model.parameters)


def sessions_of(task: Task, data: DataSet, actions: int) -> list[Example | None]:
    """(K) what each customer did right before, the latest ``actions``, without clicks on what is to be found."""
    names = [data.article_ids[row] for row in task.candidates[task.targets.candidate]]
    bought = [set(names[low:high]) for low, high in pairwise(task.targets.offsets.tolist())]
    return sessions_before(data, task.window.start, task.window.until, task.customer_ids, task.moment, bought, actions)


def _rankings(task: Task, data: DataSet, run: Run, generated: _Generated | None) -> tuple[list[Ranking], StaticStyles]:
    (by_static, static), dynamic = static_ranking(task, run), dynamic_ranking(task, data, run)
    articles = len(data.article_ids)
    blend, generating = run.load_model("blend", Blend), generated.parameters if generated else 0
    served = blended(dynamic, task, blend, generated.lists if generated else (), generating)
    rankings: list[Ranking] = [
        *(popularity(task, days) for days in POPULARITY_DAYS),
        *(make(task, articles) for make in (own_history, co_purchase, markov)),
        by_static,
        dynamic,
        *([GeneratedRanking(generated.lists, served, generating)] if generated else []),
        served,
    ]
    return rankings, static


def static_ranking(task: Task, run: Run) -> tuple[PersonalRanking, StaticStyles]:
    """A run's static model (§3.2)."""
    dna, trained = run.load_arrays("article_dna")["dna"], run.load_arrays("static")
    styles = static_styles(task.customer_ids, run.load_json("static_customers"), trained["style"])
    candidates = np.ascontiguousarray(dna[task.candidates])
    return PersonalRanking(STATIC, trained["style"].size + trained["bias"].size, styles.style, candidates), styles


def dynamic_ranking(task: Task, data: DataSet, run: Run) -> PersonalRanking:
    """A run's dynamic model (§3.3)."""
    dna, network, offsets = read_dna(run), trained_network(run), trained_offsets(run)
    style = styles_at(
        network, run.load_model("time_spec", TimeSpec), dna, task.history, task.known_customer, task.moment
    )
    weights = sum(weight.numel() for weight in network.parameters()) + (0 if offsets is None else offsets.size)
    candidates = np.ascontiguousarray(dna[task.candidates])
    return PersonalRanking(DYNAMIC, weights, style, candidates, _popularity(task, data, run))


def _popularity(task: Task, data: DataSet, run: Run) -> PopularityThen | None:
    """By time, as the run's bundle holds it; where the ends of histories are ranked, as bundles of then would have."""
    if not run.load_model("config", Config).fashion_dna.popularity:
        return None
    cutoff = np.full(task.targets.customers, run.load_model("split", Split).cutoff)
    popularity = Popularity(task.recent, data.availability, run.load_json("popularity")["half_life_days"])
    return PopularityThen(popularity, task.candidates, cutoff if task.protocol == BY_TIME else task.sales_until)
