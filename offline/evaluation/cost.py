"""What an evaluation costs: the seconds of its parts, and how many scores it ranks in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds since any moment."""


class Stopwatch:
    """Seconds by what they were taken for."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count what the ``with`` block takes to what ``name`` has taken before."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - began


@dataclass(frozen=True)
class Cost:
    """``ranking``: seconds by model, of scoring, counting ranks and looking at what is shown first."""

    parts: Mapping[str, float]
    """seconds of each part, that of ranking by all models among them"""
    ranking: Mapping[str, float]
    customers: int
    """how many were asked for, in all windows"""
    scores: int
    """of one model: customers × candidates, in all windows"""

    @property
    def scores_per_second(self) -> float:
        """Of all models, while ranking."""
        return self.scores * len(self.ranking) / self._seconds

    @property
    def customers_per_second(self) -> float:
        """Ranked by every model."""
        return self.customers / self._seconds

    @property
    def _seconds(self) -> float:
        return max(sum(self.ranking.values()), 1e-9)
