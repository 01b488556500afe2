"""Pieces of long work in processes of their own, side by side, while this one shows how all of them get on.

Where one piece keeps one core busy and needs nothing of another, a second core halves the time. A process is started
when there is work for it, keeps what it opened for the pieces that follow, and never outlives the one that started it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from model_store.errors import ModisteError, TrainingError
from offline.progress import Bar, Progress

_GRACE = 5.0  # seconds that a process has to end in

Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Task], Result]
"""Does one piece of work."""


def cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SideBySide(Generic[Task, Result]):
    """Up to ``most`` processes, each at one piece of work at a time.

    ``opened`` is called once in each with the progress to report to, for what does its work. It is pickled, and so are
    pieces, results and what is raised. Leaving the ``with`` block ends processes, at work or not.
    """

    def __init__(self, most: int, opened: Callable[[Progress], Work[Task, Result]], progress: Progress):
        self._most, self._opened, self._progress = most, opened, progress
        self._processes: list[_Process[Task, Result]] = []

    def __enter__(self) -> SideBySide[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.stop()

    @property
    def free(self) -> int:
        """How many further pieces of work can begin now."""
        return self._most - sum(process.task is not None for process in self._processes)

    def begin(self, task: Task) -> None:
        """Give a piece of work to a process that has none. Only where one is ``free``."""
        process = next((process for process in self._processes if process.task is None), None)
        if process is None:
            process = _Process.started(self._opened)
            self._processes.append(process)
        process.task = task
        with suppress(BrokenPipeError):  # it is dead, which ``finished`` will tell
            process.connection.send(task)

    def finished(self) -> tuple[Task, Result]:
        """Wait until a piece of work is done, and show meanwhile what is reported: the piece, and what came of it.

        Raises what the work raised; TrainingError where its process ended in the middle of it.
        """
        while True:
            working = [process for process in self._processes if process.task is not None]
            ready = wait([process.connection for process in working])
            for process in working:
                if process.connection in ready and process.hear(self._progress):
                    return process.taken()

    def all(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Every piece of work with what came of it, in the order in which they are done."""
        begun = 0
        for done in range(len(tasks)):
            while begun < len(tasks) and self.free:
                self.begin(tasks[begun])
                begun += 1
            assert begun > done
            yield self.finished()


@dataclass
class _Process(Generic[Task, Result]):
    process: BaseProcess
    connection: Connection[Task, tuple[Any, ...]]
    task: Task | None = None
    result: Result | None = None
    bars: dict[int, tuple[ExitStack, Bar]] = field(default_factory=dict)

    @classmethod
    def started(cls, opened: Callable[[Progress], Work[Task, Result]]) -> _Process[Task, Result]:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit the locks of torch's threads
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs, opened))
        process.start()
        theirs.close()
        return cls(process, ours)

    def hear(self, progress: Progress) -> bool:
        """Show one thing that is reported; whether it is that the work is done. Raises what the work raised."""
        match self._received():
            case ("say", line):
                progress.say(line)
            case ("bar", number, title, total, done):
                stack = ExitStack()
                self.bars[number] = stack, stack.enter_context(progress.bar(title, total, done))
            case ("advance", number, count):
                self.bars[number][1].advance(count)
            case ("note", number, text):
                self.bars[number][1].note(text)
            case ("end", number):
                self.bars.pop(number)[0].close()
            case ("failed", error):
                raise error
            case ("done", result):
                self.result = result
                return True
        return False

    def taken(self) -> tuple[Task, Result]:
        """The piece of work that is done, and what came of it."""
        done = self.task, self.result
        self.task = self.result = None
        return cast("tuple[Task, Result]", done)

    def _received(self) -> tuple[Any, ...]:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise TrainingError(
                f"{self.task}: its process ended with status {self.process.exitcode}; what was complete by then stays. "
                "A negative status is a signal's: -9 where the system ran out of memory"
            ) from None

    def stop(self) -> None:
        for stack, _ in self.bars.values():
            stack.close()
        if self.task is None:
            self.connection.close()  # which ends it where it waits for work
        else:
            self.process.terminate()
        self.process.join(_GRACE)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection[tuple[Any, ...], Task], opened: Callable[[Progress], Work[Task, Result]]) -> None:
    """What a process does: one piece of work after the other, until the one that started it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; whoever started this one ends it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Work[Task, Result] | None = None
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            work = work or opened(_Relay(connection))
            connection.send(("done", work(task)))
        except Exception as error:
            try:
                connection.send(("failed", _sendable(error)))
            except OSError:  # nobody is there any more to tell
                return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error itself, with where it was raised if it is one that nobody foresaw."""
    if isinstance(error, ModisteError):
        return error
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


class _Relay:
    """Progress that is shown by another process."""

    def __init__(self, connection: Connection[tuple[Any, ...], Any]):
        self._connection, self._bars = connection, 0

    def say(self, line: str) -> None:
        self._connection.send(("say", line))

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        self._bars += 1
        bar = _RelayedBar(self._connection, self._bars)
        self._connection.send(("bar", bar.number, title, total, done))
        try:
            yield bar
        finally:
            self._connection.send(("end", bar.number))


@dataclass(frozen=True)
class _RelayedBar:
    connection: Connection[tuple[Any, ...], Any]
    number: int

    def advance(self, count: int = 1) -> None:
        self.connection.send(("advance", self.number, count))

    def note(self, text: str) -> None:
        self.connection.send(("note", self.number, text))
