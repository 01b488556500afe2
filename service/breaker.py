"""Asking a store that may be down, without every request waiting for it to time out."""

from __future__ import annotations

from collections.abc import Callable

PAUSE = 0.5  # seconds between two attempts while the store does not answer


class Breaker:
    """Open for calls while they succeed; after a failure, one call per ``PAUSE`` finds out whether they do again."""

    def __init__(self, monotonic: Callable[[], float]):
        self._monotonic = monotonic
        self._closed_until: float | None = None

    @property
    def healthy(self) -> bool:
        """Whether the last call succeeded."""
        return self._closed_until is None

    def may_try(self) -> bool:
        """Whether to make this call. Of many that ask while the store is down, one is let through at a time."""
        if self._closed_until is None:
            return True
        now = self._monotonic()
        if now < self._closed_until:
            return False
        self._closed_until = now + PAUSE
        return True

    def succeeded(self) -> None:
        """Let every call through."""
        self._closed_until = None

    def failed(self) -> None:
        """Hold calls back for a while."""
        self._closed_until = self._monotonic() + PAUSE
