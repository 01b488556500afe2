"""Leaving alone what fails, for longer and longer."""

from __future__ import annotations

from collections.abc import Callable

FIRST_REST, LONGEST_REST = 0.5, 30.0  # seconds between two attempts


class Rest:
    """How long to leave alone what failed: twice as long each time, until it succeeds. ``monotonic``: seconds."""

    def __init__(self, monotonic: Callable[[], float], first: float = FIRST_REST, longest: float = LONGEST_REST):
        self._monotonic, self._first, self._longest = monotonic, first, longest
        self._until = 0.0
        self._failures = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing failed since it last succeeded."""
        return not self._failures

    @property
    def left(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self._until - self._monotonic())

    def failed(self) -> bool:
        """Rest, unless it rests already; whether this is the first failure since it last succeeded."""
        if self.left:
            return False
        self._until = self._monotonic() + min(self._first * 2**self._failures, self._longest)
        self._failures += 1
        return self._failures == 1

    def succeeded(self) -> bool:
        """Rest no more; whether it did."""
        rested = not self.is_over
        self._failures, self._until = 0, 0.0
        return rested
