"""What a stage takes, by a clock that is moved by hand and by files whose times are set by hand."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from offline.stage_times import StageTimes


class Clock:
    """Seconds, as many as it is told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timed(times: StageTimes, clock: Clock, seconds: float, recipe: str = "recipe") -> float:
    """Train a stage for so many seconds to its end; what it cost."""
    with times.timing("style", recipe):
        clock.now += seconds
        cost = times.cost("style")
    assert cost is not None
    return cost["seconds"]


def stopped(folder: Path, clock: Clock, began: float, checkpoint: float) -> None:
    """Train until a checkpoint is written, and some seconds longer; then the process is gone."""
    with suppress(KeyboardInterrupt), StageTimes(folder, clock).timing("style", "recipe"):
        (folder / "style.pt").touch()
        raise KeyboardInterrupt
    os.utime(folder / "style.began.json", (began, began))
    os.utime(folder / "style.pt", (checkpoint, checkpoint))


def test_a_stage_takes_what_the_clock_says(tmp_path: Path, clock: Clock) -> None:
    times = StageTimes(tmp_path / "checkpoints", clock)
    assert timed(times, clock, 12.5) == 12.5
    assert times.cost("style") is None
    assert not list((tmp_path / "checkpoints").iterdir())


def test_what_was_spent_up_to_the_last_checkpoint_counts_however_often_it_was_stopped(
    tmp_path: Path, clock: Clock
) -> None:
    stopped(tmp_path, clock, began=5_000, checkpoint=5_060)
    stopped(tmp_path, clock, began=9_000, checkpoint=9_030)
    assert timed(StageTimes(tmp_path, clock), clock, 7.0) == 60 + 30 + 7


def test_nothing_counts_of_what_is_not_continued(tmp_path: Path, clock: Clock) -> None:
    stopped(tmp_path, clock, began=5_000, checkpoint=5_060)
    assert timed(StageTimes(tmp_path, clock), clock, 7.0, "another recipe") == 7
    stopped(tmp_path, clock, began=5_000, checkpoint=5_060)
    (tmp_path / "style.pt").unlink()
    assert timed(StageTimes(tmp_path, clock), clock, 7.0) == 7


def test_an_older_checkpoint_than_the_stage_takes_nothing_back(tmp_path: Path, clock: Clock) -> None:
    stopped(tmp_path, clock, began=5_000, checkpoint=4_000)
    assert timed(StageTimes(tmp_path, clock), clock, 7.0) == 7


def test_a_stage_that_fails_before_any_checkpoint_leaves_nothing(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), StageTimes(tmp_path, clock).timing("style", "recipe"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
