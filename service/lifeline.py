"""Children that do not outlive their parent, even where the parent is killed without a chance to clean up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

GRACE = 10  # seconds that running requests have to end in, once a worker is asked to stop
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a service to stop."""
_PR_SET_PDEATHSIG = 1


def follow(parent: int, with_signal: signal.Signals = signal.SIGTERM) -> None:
    """Called in a child of process ``parent``: the kernel sends it ``with_signal`` when that parent's thread dies.

    Linux only; elsewhere a no-op, and what a killed parent left behind is cleared away at the next start.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(with_signal))
    if os.getppid() != parent:  # it died before the line above
        os.kill(os.getpid(), with_signal)


@contextlib.contextmanager
def stopping_waits() -> Iterator[None]:
    """Let signals that ask to stop wait until the end of the block, in which a child is started and noted.

    A handler that raises between the two would leave a child that nobody ends. Handlers are swapped rather than signals
    blocked, because a child inherits what is blocked. Only the main thread runs handlers: elsewhere a no-op.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    missed: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        missed.append(number)

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for came in missed:
            signal.raise_signal(came)


def is_alive(process: int) -> bool:
    """Whether a process of this id exists (and is more than an entry that waits to be collected)."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
