"""Children that do not outlive their parent, even where the parent is killed without a chance to clean up."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

GRACE = 10  # seconds that running requests have to end in, once a worker is asked to stop
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
