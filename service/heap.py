"""What the garbage collector need not look at, and what the process need not keep."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIM_PAUSE = 30.0
"""Seconds between two times that free memory is given back: two milliseconds each time."""


def settle() -> None:
    """Take everything that lives at this moment for permanent, until the next time.

    A full collection looks at every container there is: at 190,000 articles it stops a worker for 40 to 75 ms, which
    nothing that it finds is worth. Afterwards it looks only at what was made since. What the last call set aside and
    nobody needs any more is given back first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection inside the block, for bulk work: hardly any of its millions of objects hold cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def trim() -> None:
    """Give back what is free: to Python what it keeps for objects to come, then pages to the system.

    CPython keeps tuples, floats and the like for the next of their size, up to some MB, and only a full collection
    frees them; by itself that comes a few times an hour where ``settle`` left it little to look at: a worker under
    journeys took 3.2 MB in a quarter of an hour, and gave all of it back then.

    Pages are given from the middle of the heap, too. What requests leave behind lies scattered among what stays, so
    that a heap grows with every burst although no more of it is used: in ten minutes of journeys on a busy machine by
    9 MiB, and with this by 3, all in the first. C libraries other than glibc do without.
    """
    gc.collect()
    function: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is not None:
        function(0)


async def keep_trimmed(pause: float = TRIM_PAUSE) -> None:
    """``trim`` now and then, until cancelled."""
    while True:
        await asyncio.sleep(pause)
        trim()
