"""Tuning a baseline on the validation window within a budget of time, then training it on everything.

All settings of the grid share ``TRIAL_SHARE`` of the budget, at least an epoch each; the best goes on until validation
has not got better for ``PATIENCE`` epochs. An epoch is begun only where time is left to train for as many on
everything, which is what the rest of the budget is for.

Some models are trained in stages, one after the other. Each goes on from where validation was best so far, and has an
equal part of what the best setting has left; its epochs count as far as they made validation better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.errors import TrainingError
from offline.baselines.questions import Int64, Questions, Sequences, Validation
from offline.baselines.results import ROWS, Epoch, Float32, Trial
from offline.progress import Progress

TRIAL_SHARE = 0.4
PATIENCE = 5

Float64 = NDArray[np.float64]
Clock = Callable[[], float]
Settings = Mapping[str, float]


class Learner(Protocol):
    """A model that learns from sequences, an epoch at a time."""

    @property
    def article(self) -> Int64:
        """int64 (M), sorted: the articles that it knows."""

    @property
    def parameters(self) -> int:
        """Number of weights."""

    @property
    def batches(self) -> int:
        """Of an epoch."""

    def train_epoch(self, advance: Callable[[int], None]) -> float:
        """The mean loss. ``advance`` hears of each batch that is done."""

    def scores(self, histories: Sequence[Int64]) -> Float32:
        """float32 (B, M) for what comes after B histories, each of one known article or search, or more."""

    @property
    def stages(self) -> Sequence[str]:
        """The names of the stages of its training, in their order; one at least."""

    def keep(self) -> None:
        """Remember what was learned: it was never better."""

    def next_stage(self) -> None:
        """Begin the next stage with what was last remembered, or else as it is."""


class OneStage:
    """The part of a learner that is trained in one go."""

    stages: Sequence[str] = ("training",)

    def keep(self) -> None:
        """Nothing is gone back to."""

    def next_stage(self) -> None:
        """Never called."""


Maker = Callable[[Settings, Sequences, int], Learner]
"""Begins a model: the same settings, sequences and seed, the same weights in the end."""


@dataclass
class Attempt:
    """One setting under way."""

    settings: Settings
    learner: Learner
    answering: Answering
    epochs: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
    done: int = 0
    """epochs of the stage under way"""
    schedule: list[int] = field(default_factory=lambda: [0])
    """epochs of each stage so far that count"""

    @property
    def best(self) -> int:
        """The epoch, from 1 on, after which validation was best."""
        return 1 + int(np.argmax([epoch.discounted_gain for epoch in self.epochs]))

    @property
    def gain(self) -> float:
        """What validation was at best."""
        return self.epochs[self.best - 1].discounted_gain

    @property
    def may_improve(self) -> bool:
        """Whether the stage is young, or has made it better within the last epochs."""
        return self.done - self.schedule[-1] < PATIENCE

    @property
    def later(self) -> int:
        """How many stages there are behind the one under way."""
        return len(self.learner.stages) - len(self.schedule)

    def goes_on(self) -> bool:
        """Begin the next stage where this one has not made it better for long; False behind the last."""
        return self.may_improve or self.next_stage()

    def next_stage(self) -> bool:
        """Begin the next stage; False where there is none."""
        if not self.later:
            return False
        self.learner.next_stage()
        self.schedule.append(0)
        self.done = 0
        return True

    def add(self, epoch: Epoch) -> None:
        """One more epoch is done."""
        self.epochs.append(epoch)
        self.done += 1
        if self.best == len(self.epochs):
            self.schedule[-1] = self.done
            self.learner.keep()

    @property
    def epoch_seconds(self) -> float:
        """What an epoch takes, validation included."""
        return self.seconds / len(self.epochs)


@dataclass(frozen=True)
class Tuned:
    """The best of all attempts, and what was tried on the way."""

    settings: Settings
    schedule: Sequence[int]
    """epochs of each stage"""
    tried: list[Trial]

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(self.schedule)


@dataclass(frozen=True)
class Budget:
    """So many seconds of ``clock`` from ``begun`` on."""

    seconds: float
    clock: Clock
    begun: float

    @property
    def left(self) -> float:
        """Seconds, below 0 where it is overdrawn."""
        return self.begun + self.seconds - self.clock()


def tune(
    make: Maker, grid: Sequence[Settings], questions: Questions, budget: Budget, seed: int, progress: Progress
) -> Tuned:
    """Find settings and number of epochs, and leave time to train for as many on everything."""
    training = questions.training
    larger = len(questions.everything.article) / max(len(training.article), 1)
    share = budget.left * TRIAL_SHARE / len(grid)
    attempts = []
    for settings in grid:
        learner = make(settings, training, seed)
        attempt = Attempt(settings, learner, Answering(learner, training))
        attempts.append(attempt)
        while not attempt.epochs or (attempt.seconds + attempt.epoch_seconds <= share and attempt.goes_on()):
            _epoch(attempt, questions.validation, budget.clock, progress)
    best = max(attempts, key=lambda attempt: attempt.gain)
    part = budget.left / (best.later + 1)
    while True:
        epochs = sum(best.schedule[:-1]) + best.done + 1  # what would have to be trained on everything
        needed = best.epoch_seconds * (1 + larger * epochs) + part * best.later
        if best.may_improve and needed <= budget.left:
            _epoch(best, questions.validation, budget.clock, progress)
        elif not best.next_stage():
            break
    return Tuned(best.settings, best.schedule, [Trial(one.settings, one.epochs, one.seconds) for one in attempts])


def _epoch(attempt: Attempt, validation: Validation, clock: Clock, progress: Progress) -> None:
    start = clock()
    stage = attempt.learner.stages[len(attempt.schedule) - 1]
    loss = train_epoch(attempt.learner, f"{_named(attempt.settings)}, epoch {len(attempt.epochs) + 1}", progress)
    attempt.add(Epoch(loss, *figures(ranks(attempt.answering, validation)), stage))
    attempt.seconds += clock() - start
    number, last = len(attempt.epochs), attempt.epochs[-1]
    best = " (best)" if attempt.best == number else ""
    progress.say(
        f"{_named(attempt.settings)}, epoch {number} ({stage}): loss {last.loss:.4f}, "
        f"validation {last.discounted_gain:.4f}, NDCG@10 {last.ndcg_10:.4f}{best}"
    )


def train_epoch(learner: Learner, title: str, progress: Progress) -> float:
    """One epoch with a bar. Raises TrainingError where the loss is no number."""
    with progress.bar(title, learner.batches) as bar:
        loss = learner.train_epoch(bar.advance)
    if not np.isfinite(loss):
        raise TrainingError(f"{title}: the loss is {loss}: choose a lower learning rate")
    return loss


def _named(settings: Settings) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


class Answering:
    """Scores of all that a learner knows for any history; who has none that it knows gets what sold most often.

    What stands below 0 in a history is a search (``texts``): only a learner that reads them is told of any.
    """

    def __init__(self, learner: Learner, trained_on: Sequences):
        self._learner, self.article = learner, learner.article
        place = np.searchsorted(self.article, trained_on.article[trained_on.article >= 0])
        self._sold = np.bincount(place, minlength=len(self.article)).astype(np.float32)

    def scores(self, histories: Sequence[Int64]) -> Float32:
        """float32 (B, M)"""
        known = [history[(history < 0) | np.isin(history, self.article)] for history in histories]
        found = np.tile(self._sold, (len(known), 1))
        told = [row for row, history in enumerate(known) if len(history)]
        if told:
            found[told] = self._learner.scores([known[row] for row in told])
        return found


# --- validation ---------------------------------------------------------------------------------------------------


def ranks(answering: Answering, validation: Validation) -> Float64:
    """Rank of each purchase among the candidates, float64 (G), 1 = top; ties share the middle of their places.

    What the model does not know ties behind the rest.
    """
    place = np.searchsorted(answering.article, validation.candidates)
    place = np.minimum(place, len(answering.article) - 1)
    known = answering.article[place] == validation.candidates
    column = place[known]
    of_target = np.searchsorted(answering.article, validation.target)
    of_target = np.minimum(of_target, len(answering.article) - 1)
    target_known = answering.article[of_target] == validation.target
    result = np.full(len(validation.row), 0.5 + len(column) + 0.5 * (len(known) - len(column)))
    for low in range(0, len(validation.histories), ROWS):
        high = min(low + ROWS, len(validation.histories))
        scores = answering.scores([validation.histories[customer] for customer in range(low, high)])
        for index in range(*np.searchsorted(validation.row, [low, high]).tolist()):
            if target_known[index]:
                row = scores[validation.row[index] - low]
                mine, among = row[of_target[index]], row[column]
                result[index] = 0.5 + np.count_nonzero(among > mine) + 0.5 * np.count_nonzero(among == mine)
    return result


def figures(rank: Float64) -> tuple[float, float, float]:
    """Discounted gain over the whole ranking, NDCG@10 and Recall@10, as means over purchases."""
    gain = 1.0 / np.log2(1.0 + rank)
    within = rank <= 10
    return float(gain.mean()), float((gain * within).mean()), float(within.mean())
