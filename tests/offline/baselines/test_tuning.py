from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from baseline_learners import CYCLE, Clock, Successors, cycle_questions
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import TrainingError
from offline.baselines.questions import Sequences, Validation
from offline.baselines.tuning import PATIENCE, Answering, Budget, Settings, Tuned, figures, ranks, tune
from offline.progress import Silent


def tuned(grid: list[Settings], seconds: float = 1e6) -> tuple[Tuned, Clock]:
    clock = Clock()
    found = tune(
        lambda settings, sequences, seed: Successors(settings, sequences, seed, clock),
        grid,
        cycle_questions(),
        Budget(seconds, clock, clock()),
        0,
        Silent(),
    )
    return found, clock


def test_the_best_epoch_of_the_best_setting_is_found() -> None:
    found, _ = tuned([{"peak": 10, "flaw": 2}, {"peak": 4}, {"peak": 12, "flaw": 1}])
    assert (found.settings, found.epochs) == ({"peak": 4}, 4)
    assert [len(trial.epochs) for trial in found.tried] == [10 + PATIENCE, 4 + PATIENCE, 12 + PATIENCE]
    best = found.tried[1].epochs[3]
    assert (best.discounted_gain, best.ndcg_10, best.recall_10) == (1.0, 1.0, 1.0)


def test_of_a_small_budget_enough_is_left_to_train_on_everything() -> None:
    found, clock = tuned([{"peak": 11, "seconds": 10.0}, {"peak": 12, "seconds": 10.0}], seconds=200)
    assert found.settings["peak"] == 11
    spent = clock() + found.epochs * 10 * 6 / 5  # everything is 6 purchases of each customer, not 5
    assert 200 - 10 * (1 + 6 / 5) < spent <= 200


def test_however_small_the_budget_each_setting_gets_an_epoch() -> None:
    found, _ = tuned([{"peak": 3, "seconds": 10.0}, {"peak": 1, "seconds": 10.0}], seconds=1)
    assert [len(trial.epochs) for trial in found.tried] == [1, 1]
    assert (found.settings["peak"], found.epochs) == (1, 1)


def test_a_loss_that_is_no_number_ends_with_a_word_on_the_rate() -> None:
    with pytest.raises(TrainingError, match="loss nan, epoch 1: the loss is nan: choose a lower learning rate"):
        tuned([{"loss": math.nan}])


class Staged(Successors):
    """Has three stages, the best of which begins after some epochs of each; notes what is asked of it."""

    stages = ("one", "two", "three")

    def __init__(self, settings: Settings, sequences: Sequences, seed: int, clock: Clock | None = None):
        super().__init__(settings, sequences, seed, clock)
        self.kept, self.begun = 0, [0]

    def keep(self) -> None:
        self.kept = self.epochs

    def next_stage(self) -> None:
        self.begun.append(self.kept)
        self.epochs = self.kept


def tuned_in_stages(grid: list[Settings], seconds: float = 1e6) -> tuple[Tuned, list[Staged], Clock]:
    clock, made = Clock(), list[Staged]()

    def make(settings: Settings, sequences: Sequences, seed: int) -> Staged:
        made.append(Staged(settings, sequences, seed, clock))
        return made[-1]

    found = tune(make, grid, cycle_questions(), Budget(seconds, clock, clock()), 0, Silent())
    return found, made, clock


def test_each_stage_begins_where_validation_was_best() -> None:
    found, [staged], _ = tuned_in_stages([{"peak": 4}])
    assert found.schedule == [4, 0, 0]
    assert staged.begun == [0, 4, 4]
    stages = [epoch.stage for epoch in found.tried[0].epochs]
    assert stages == ["one"] * (4 + PATIENCE) + ["two"] * PATIENCE + ["three"] * PATIENCE
    assert found.epochs == 4


def test_each_stage_has_a_part_of_what_is_left() -> None:
    """Twelve epochs would be best, and none of three stages has time for so many."""
    grid: list[Settings] = [{"peak": 12, "flaw": flaw, "seconds": 10.0} for flaw in range(3)]
    found, [staged, *_], clock = tuned_in_stages(grid, seconds=200)
    assert found.schedule == [3, 2, 2]
    assert staged.begun == [0, found.schedule[0], sum(found.schedule[:2])]
    spent = clock() + found.epochs * 10 * 6 / 5  # everything is 6 purchases of each customer, not 5
    assert spent <= 200


def test_settings_are_compared_in_whatever_stage_they_are() -> None:
    found, _, _ = tuned_in_stages([{"peak": 3, "flaw": 2}, {"peak": 5, "flaw": 1}, {"peak": 4, "flaw": 3}])
    assert found.settings == {"peak": 5, "flaw": 1}
    assert found.schedule == [5, 0, 0]


class Fixed:
    """Scores by table: row by a history's first article."""

    parameters, batches = 0, 0

    def __init__(self, article: list[int], table: np.ndarray):
        self.article, self._table = np.array(article), table.astype(np.float32)

    def train_epoch(self, advance: object) -> float:
        raise AssertionError("nothing is trained here")

    def scores(self, histories: list[np.ndarray]) -> np.ndarray:
        return np.stack([self._table[history[0]] for history in histories])


@given(st.integers(0, 2**32 - 1))
def test_ranks_agree_with_sorting(seed: int) -> None:
    """Articles 1, 3, 5, 7, 8 are known; all of 0 … 9 but 3 are candidates."""
    rng = np.random.default_rng(seed)
    known, candidates = [1, 3, 5, 7, 8], [0, 1, 2, 4, 5, 6, 7, 8, 9]
    table = rng.integers(0, 4, (9, len(known)))
    histories = Sequences.of([[5, 9], [], [9, 8]])  # the second knows nothing, the third only 8
    target = rng.choice(candidates, 5)
    validation = Validation(histories, np.array([0, 0, 1, 2, 2]), target, np.array(candidates))
    sold = Sequences.of([[1, 1, 3, 5], [7, 8, 8, 8]])
    rows = [table[5], [2, 1, 1, 1, 3], table[8]]
    expected = []
    for customer, article in zip(validation.row, target, strict=True):
        scores = [rows[customer][known.index(one)] if one in known else -1 for one in candidates]
        mine = scores[candidates.index(article)]
        expected.append(sum(one > mine for one in scores) + (sum(one == mine for one in scores) + 1) / 2)
    assert ranks(Answering(Fixed(known, table), sold), validation).tolist() == expected


def test_figures_are_means_over_purchases() -> None:
    assert figures(np.array([1.0, 3.0, 15.0, 1023.0])) == pytest.approx(
        ((1 + 1 / 2 + 1 / 4 + 1 / 10) / 4, (1 + 1 / 2) / 4, 1 / 2)
    )


def test_customers_in_blocks_rank_as_they_do_together() -> None:
    asked = cycle_questions(customers=600)
    learner = Successors({}, asked.training, 0)
    answering = Answering(learner, asked.training)
    assert ranks(answering, asked.validation).tolist() == [1.0] * 600
    shifted = replace(asked.validation, target=(asked.validation.target + 1) % CYCLE)
    assert set(ranks(answering, shifted)) == {1 + CYCLE / 2}  # eleven tie behind the one that follows
