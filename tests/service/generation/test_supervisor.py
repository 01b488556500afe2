"""Generator processes: started where a bundle can generate, replaced when they die, and never a reason not to serve."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle

from service.generation import supervisor
from service.generation.supervisor import Generators
from service.lifeline import is_alive
from service.settings import Settings

STAYS = (sys.executable, "-c", "import time; time.sleep(600)")
DIES = (sys.executable, "-c", "raise SystemExit(3)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)",
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def generators(store: Path, command: tuple[str, ...] = STAYS, **how: Any) -> Iterator[Generators]:
    clock = how.pop("clock", time.monotonic)
    made = Generators(Settings(store=store, **how), os.environ, command=command, monotonic=clock)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_bundle(tmp_path, generating=True)
    return tmp_path


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_as_many_run_as_are_wanted_and_end_together(store: Path) -> None:
    with generators(store, generators=2) as made:
        made.watch()
        pids = made.pids
        assert len(set(pids)) == 2
        made.watch()
        assert made.pids == pids
    assert not any(is_alive(pid) for pid in pids)
    assert made.pids == []


@pytest.mark.parametrize("how", [{"generators": 0}, {"llm_url": "off"}])
def test_none_runs_where_none_is_wanted(store: Path, how: dict[str, Any]) -> None:
    with generators(store, **how) as made:
        made.watch()
        assert made.pids == []


def test_none_runs_before_there_is_a_bundle_for_it(tmp_path: Path) -> None:
    clock = Clock()
    make_bundle(tmp_path, version="without")
    (tmp_path / "damaged").mkdir()
    with generators(tmp_path, clock=clock) as made:
        made.watch()
        assert made.pids == []
        make_bundle(tmp_path, version="with", generating=True)
        clock.now += supervisor.LOOK
        made.watch()
        assert len(made.pids) == 1


def test_one_that_is_killed_is_replaced(store: Path) -> None:
    clock = Clock()
    with generators(store, clock=clock) as made:
        made.watch()
        (first,) = made.pids
        clock.now += supervisor.SOUND
        made.watch()
        os.kill(first, signal.SIGKILL)
        until(lambda: not is_alive(first))
        made.watch()
        assert made.pids != [first]
        assert len(made.pids) == 1


def test_one_that_cannot_start_is_tried_less_and_less_often(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    started: list[float] = []
    with generators(store, DIES, clock=clock) as made:
        for _ in range(600):  # ten minutes, a look a second
            made.watch()
            for pid in made.pids:
                until(lambda pid=pid: not is_alive(pid))
                started.append(clock.now)
            clock.now += 1
    between = [after - before for before, after in pairwise(started)]
    assert between == sorted(between)
    assert between[0] <= 3
    assert 60 <= between[-1] <= 62
    assert "ended with status 3" in caplog.text


def test_a_command_that_is_not_there_is_told(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with generators(store, ("/no/such/program",)) as made:
        made.watch()
        made.watch()
        assert made.pids == []
    assert caplog.text.count("a generator cannot be started") == 1


def test_one_that_does_not_end_is_made_to(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE", -4.5)
    with generators(store, STUBBORN) as made:
        made.watch()
        (pid,) = made.pids
        time.sleep(0.5)
    assert not is_alive(pid)
