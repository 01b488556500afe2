"""Rankings of baselines that another process trained (``offline.baselines``), where their answers fit the questions.

They fit where data, split, windows, customers and what was known of them are the very same: answers to other questions
are left out, with a line that says so, and never ranked by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.purchases import Purchases
from offline.baselines import FOLDER, MODELS, results
from offline.baselines.questions import About, Asked, Sequences
from offline.baselines.results import AnsweredTest, Results
from offline.evaluation.ranks import Float32
from offline.evaluation.task import Task
from offline.run import Run, Split


class Table(Protocol):
    """Scores, float32 (K, M), wherever they are."""

    def __getitem__(self, rows: slice, /) -> Float32:
        """float32 (B, M)"""


@dataclass(frozen=True)
class BaselineRanking:
    """Scores ``table`` float32 (K, M) of the articles that a model knows; all others tie below the lowest of them."""

    name: str
    parameters: int
    table: Table
    column: NDArray[np.int64]
    """(N) each candidate's column, −1 where the model does not know it"""

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        known = self.table[customers]
        below = np.nextafter(known.min(axis=1, keepdims=True), np.float32(-np.inf))
        found: Float32 = np.concatenate([known, below], axis=1)[:, self.column]
        return found


@dataclass(frozen=True)
class Baselines:
    """The models that fit, with a ranking for each task, and why the others do not."""

    results: Sequence[Results]
    rankings: Sequence[Sequence[BaselineRanking]]
    """by task, then by model"""
    left_out: Sequence[str]
    """a line each"""


def about(split: Split) -> About:
    """What questions of a run with this split are about."""
    return About(**split.model_dump())


def asked(task: Task) -> Asked:
    """What the baselines are told of a task: no target."""
    histories = histories_of(task.history, task.known_customer)
    return Asked(task.window.start, task.window.until, task.customer_ids, task.moment, histories)


def histories_of(purchases: Purchases, customers: NDArray[np.int64]) -> Sequences:
    """All purchases of each of these customers, indices into ``customer_ids``; none of −1."""
    ends = [(purchases.offsets[who], purchases.offsets[who + 1]) if who >= 0 else (0, 0) for who in customers.tolist()]
    return Sequences.of(purchases.article[low:high].astype(np.int64) for low, high in ends)


def baselines_of(run: Run, tasks: Sequence[Task]) -> Baselines:
    """What the run's folder holds of baselines, in the order of ``MODELS``."""
    expected = about(run.load_model("split", Split))
    tests = [AnsweredTest(one.start, one.until, one.digest) for one in map(asked, tasks)]
    fitting, left_out = [], []
    for model in MODELS:
        found = results.read(run.folder / FOLDER / model)
        if found is None:
            continue
        reason = _misfit(found, expected, tests)
        if reason is None:
            fitting.append(found)
        else:
            left_out.append(f"{model} is left out: {reason}; 'make baselines' asks it anew")
    return Baselines(
        fitting, [_rankings(run, task, test, fitting) for task, test in zip(tasks, tests, strict=True)], left_out
    )


def _misfit(found: Results, expected: About, tests: Sequence[AnsweredTest]) -> str | None:
    """Why answers do not fit; None where they do."""
    for name, value in asdict(expected).items():
        answered = getattr(found.about, name)
        if answered != value:
            return f"its {name} is {answered}, the run's {value}"
    missing = [test for test in tests if test not in found.tests]
    return f"it was not asked for {len(missing)} of the {len(tests)} windows as they are" if missing else None


def _rankings(run: Run, task: Task, test: AnsweredTest, fitting: Sequence[Results]) -> list[BaselineRanking]:
    return [_ranking(run, task, list(one.tests).index(test), one) for one in fitting]


def _ranking(run: Run, task: Task, number: int, one: Results) -> BaselineRanking:
    folder = run.folder / FOLDER / one.recipe.model
    article = results.known_articles(folder)
    place = np.minimum(np.searchsorted(article, task.candidates), len(article) - 1)
    column = np.where(article[place] == task.candidates, place, -1)
    return BaselineRanking(one.recipe.model, one.parameters, results.scores(folder, number), column)
