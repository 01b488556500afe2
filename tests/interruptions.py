"""Progress that stops a training in the middle, for tests of going on from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""


class StopAfter:
    """Raises Stopped once ``steps`` steps are done."""

    def __init__(self, steps: int):
        self._left = steps

    def say(self, line: str) -> None: ...

    def advance(self, count: int = 1) -> None:
        self._left -= count
        if self._left < 0:
            raise Stopped

    def note(self, text: str) -> None: ...

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[StopAfter]:
        yield self
