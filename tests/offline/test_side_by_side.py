from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import side_by_side_toys
from house.processes import wait_until

from model_store.errors import InvalidRecord, TrainingError
from offline.progress import Silent
from offline.side_by_side import SideBySide

HERE = Path(__file__).resolve().parents[1]


class Shown:
    """A progress that remembers what it was told to show."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def say(self, line: str) -> None:
        self.told.append(("say", line))

    def advance(self, count: int = 1) -> None:
        self.told.append(("advance", count))

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Shown]:
        self.told.append(("bar", title, total, done))
        try:
            yield self
        finally:
            self.told.append(("end",))


def processes(folder: Path, most: int = 2, progress: Shown | Silent | None = None) -> SideBySide[str, str | None]:
    return SideBySide(most, partial(side_by_side_toys.opened, folder), progress or Silent())


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def sleeper(folder: Path) -> int:
    """The process that sleeps, once it does."""
    wait_until(lambda: (folder / "asleep").exists() and (folder / "asleep").read_text() != "")
    return int((folder / "asleep").read_text())


def test_pieces_of_work_are_done_side_by_side(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        both.begin("meet a b")
        assert both.free == 1
        both.begin("meet b a")
        assert not both.free
        assert {both.finished()[0], both.finished()[0]} == {"meet a b", "meet b a"}
        assert both.free == 2


def test_all_pieces_are_done_each_with_what_came_of_it(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        assert dict(both.all([f"echo {number}" for number in range(9)])) == {f"echo {n}": f"{n}" for n in range(9)}
    assert len((tmp_path / "opened").read_text().split()) == 2


def test_a_process_keeps_what_it_opened_and_is_started_only_for_work(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        assert not (tmp_path / "opened").exists()
        for _ in range(3):
            both.begin("nothing")
            assert both.finished() == ("nothing", None)
    assert len((tmp_path / "opened").read_text().split()) == 1


def test_what_a_piece_reports_is_shown_here(tmp_path: Path) -> None:
    shown = Shown()
    with processes(tmp_path, progress=shown) as both:
        both.begin("report")
        both.finished()
    assert shown.told == [
        ("bar", "counting", 3, 1),
        ("advance", 1),
        ("note", "halfway"),
        ("advance", 1),
        ("end",),
        ("say", "counted"),
    ]


def test_what_a_piece_raises_is_raised_here_and_ends_the_others(tmp_path: Path) -> None:
    def one_fails() -> None:
        with processes(tmp_path) as both:
            both.begin("sleep")
            sleeper(tmp_path)
            both.begin("fail")
            both.finished()

    with pytest.raises(InvalidRecord, match="colour: is no colour") as caught:
        one_fails()
    assert caught.value.field == "colour"
    asleep = sleeper(tmp_path)
    assert not is_alive(asleep)


def test_an_error_that_nobody_foresaw_tells_where_it_was_raised(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        both.begin("stumble")
        with pytest.raises(RuntimeError, match=r"(?s)in stumble.*Unpicklable: overlooked"):
            both.finished()


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        both.begin("die")
        with pytest.raises(TrainingError, match=r"die: its process ended with status -9"):
            both.finished()


def test_a_process_that_is_killed_while_it_has_nothing_to_do_is_told_too(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        both.begin("nothing")
        both.finished()
        idle = int((tmp_path / "opened").read_text())
        os.kill(idle, signal.SIGKILL)
        wait_until(lambda: not is_alive(idle))
        both.begin("nothing")
        with pytest.raises(TrainingError, match=r"nothing: its process ended with status -9"):
            both.finished()


def parent_of(piece: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    command = [sys.executable, "-m", "side_by_side_toys", str(folder), piece]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("piece", ["sleep", "chatter"])
def test_no_process_outlives_a_killed_parent(tmp_path: Path, piece: str) -> None:
    with parent_of(piece, tmp_path) as parent:
        asleep = sleeper(tmp_path)
        assert is_alive(asleep)
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(asleep))


@pytest.mark.parametrize("piece", ["sleep", "chatter"])
def test_a_parent_that_is_interrupted_ends_its_processes_without_a_word(tmp_path: Path, piece: str) -> None:
    with parent_of(piece, tmp_path) as parent:
        asleep = sleeper(tmp_path)
        parent.send_signal(signal.SIGINT)
        assert parent.communicate()[0] == ""
        assert parent.returncode == 0
    assert not is_alive(asleep)


def test_ctrl_c_is_the_parents_alone(tmp_path: Path) -> None:
    with processes(tmp_path) as both:
        both.begin("sleep")
        asleep = sleeper(tmp_path)
        os.kill(asleep, signal.SIGINT)
        both.begin("nothing")
        assert both.finished() == ("nothing", None)
        assert is_alive(asleep)
    assert not is_alive(asleep)
