"""Pieces of work for processes of their own, which find them by this module's name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from model_store.errors import InvalidRecord
from offline.progress import Progress, Silent
from offline.side_by_side import SideBySide, Work

PATIENCE = 60.0  # seconds; only ends a hanging test


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"{path} never came")
        time.sleep(0.01)


class Unpicklable(Exception):
    def __init__(self, one: str, two: str):
        super().__init__(one + two)


def opened(folder: Path, progress: Progress) -> Work[str, str | None]:
    """``meet a b``: begin together with ``meet b a``; other pieces do what they say."""
    with (folder / "opened").open("a") as file:
        file.write(f"{os.getpid()}\n")

    def meet(mine: str, other: str) -> None:
        (folder / mine).touch()
        wait_for(folder / other)

    def report() -> None:
        with progress.bar("counting", 3, 1) as bar:
            bar.advance()
            bar.note("halfway")
            bar.advance(1)
        progress.say("counted")

    def fail() -> None:
        raise InvalidRecord("is no colour", field="colour")

    def stumble() -> None:
        raise Unpicklable("over", "looked")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep() -> None:
        (folder / "asleep").write_text(str(os.getpid()))
        time.sleep(PATIENCE)

    def chatter() -> None:
        (folder / "asleep").write_text(str(os.getpid()))
        deadline = time.monotonic() + PATIENCE
        with progress.bar("talking", 1_000) as bar:
            while time.monotonic() < deadline:
                bar.advance()

    pieces: dict[str, Callable[..., str | None]] = {
        "meet": meet,
        "report": report,
        "fail": fail,
        "stumble": stumble,
        "die": die,
        "sleep": sleep,
        "chatter": chatter,
        "nothing": lambda: None,
        "echo": lambda text: text,
    }

    def work(name: str) -> str | None:
        piece, *arguments = name.split()
        return pieces[piece](*arguments)

    return work


if __name__ == "__main__":  # python -m side_by_side_toys FOLDER PIECE: until Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with suppress(KeyboardInterrupt), SideBySide(1, partial(opened, Path(sys.argv[1])), Silent()) as processes:
        processes.begin(sys.argv[2])
        processes.finished()
        sys.exit("nobody interrupted this")
