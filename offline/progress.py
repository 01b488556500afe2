"""What a user sees while long work runs: lines of text, and bars with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from tqdm import tqdm


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, count: int = 1) -> None:
        """``count`` more units are done."""

    def note(self, text: str) -> None:
        """Show ``text`` (a loss, say) behind the bar."""


class Progress(Protocol):
    """Where the work reports to."""

    def say(self, line: str) -> None:
        """One line for the user."""

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        """A bar of ``total`` units, ``done`` of which were done before, for the length of a ``with`` block."""


class _Nothing:
    def advance(self, count: int = 1) -> None: ...
    def note(self, text: str) -> None: ...


class Silent:
    """Shows nothing: for tests, and for every process but the first."""

    def say(self, line: str) -> None: ...

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        del title, total, done
        yield _Nothing()


class _TqdmBar:
    def __init__(self, bar: tqdm[Any]):
        self._bar = bar

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)


class Console:
    """Lines on standard output, bars on standard error (one line each where that is no terminal)."""

    def say(self, line: str) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        interval, position = (0.2, None) if sys.stderr.isatty() else (10.0, 0)  # in a log, bars do not stand in order
        bar: tqdm[Any]
        with tqdm(
            desc=title,
            total=total,
            initial=done,
            mininterval=interval,
            position=position,
            dynamic_ncols=True,
            leave=False,
        ) as bar:
            yield _TqdmBar(bar)
        if position is None:  # a bar that stood below another leaves the cursor where it ended
            print("\r", end="", file=sys.stderr, flush=True)
