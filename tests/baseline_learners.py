"""A model that learns what follows what, more or less of it: for tests of tuning and resuming, without RecBole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from offline.baselines.questions import About, Asked, Int64, Questions, Sequences, Validation
from offline.baselines.results import Float32
from offline.baselines.tuning import OneStage, Settings

CYCLE = 12
ABOUT = About("cycle", "0" * 64, "by_time", 0, 0)


class Clock:
    """Seconds that pass only where somebody says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Successors(OneStage):
    """Is best after ``peak`` epochs: each one from that puts one more article's successor last; ``flaw`` always do.

    An epoch takes ``seconds``.
    """

    parameters, batches = 7, 1

    def __init__(self, settings: Settings, sequences: Sequences, seed: int, clock: Clock | None = None):
        del seed
        self.article = np.unique(sequences.article)
        self.epochs, self._settings, self._clock = 0, settings, clock
        self._counts = np.zeros((len(self.article), len(self.article)), np.float32)
        for customer in range(len(sequences)):
            for before, after in pairwise(np.searchsorted(self.article, sequences[customer])):
                self._counts[before, after] += 1

    def train_epoch(self, advance: Callable[[int], None]) -> float:
        self.epochs += 1
        if self._clock is not None:
            self._clock.now += self._settings.get("seconds", 1.0)
        advance(1)
        return self._settings.get("loss", 1.0)

    def scores(self, histories: Sequence[Int64]) -> Float32:
        last = np.searchsorted(self.article, [history[-1] for history in histories])
        found = self._counts[last]
        wrong = abs(self.epochs - self._settings.get("peak", self.epochs)) + self._settings.get("flaw", 0)
        found[last < wrong] *= -1
        return found


def sequences_of(customers: int, length: int) -> Sequences:
    """Customers who buy one article of a cycle after the other, each from another place on."""
    return Sequences.of([[(customer + step) % CYCLE for step in range(length)] for customer in range(customers)])


def cycle_questions(customers: int = 24, length: int = 5) -> Questions:
    """What follows is always the next article; all are candidates, and one that nobody ever bought."""
    histories = sequences_of(customers, length)
    follows = np.array([(customer + length) % CYCLE for customer in range(customers)])
    validation = Validation(histories, np.arange(customers), follows, np.arange(CYCLE + 1))
    longer = sequences_of(customers, length + 1)
    asked = Asked(10, 20, [f"c{number}" for number in range(customers)], np.full(customers, 15), longer)
    return Questions(ABOUT, histories, longer, validation, [asked])
