"""How many connections each worker has, seen by all of them: so that whoever has fewest takes the next one."""

from __future__ import annotations

import mmap
import os
import tempfile

ABSENT = -1
"""Of a worker that takes no connections: it starts, ends or has died."""
SLACK = 8
"""A worker may have one connection in so many more than another: among many, who has a few more does not matter."""

_BYTES = 4


class FairShare:
    """The counts int32 (workers) in a file that has no name, which the launcher makes and its workers inherit.

    Each worker writes its own count only, so that nobody need hold a lock.
    """

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        self._counts = memoryview(self._memory).cast("i")

    @classmethod
    def among(cls, workers: int) -> FairShare:
        """Of ``workers``, of which none takes connections yet."""
        with tempfile.TemporaryFile() as file:
            file.write(ABSENT.to_bytes(_BYTES, "little", signed=True) * workers)
            file.flush()
            return cls(os.dup(file.fileno()))

    def tell(self, place: int, count: int) -> None:
        """Let all know how many connections the worker at ``place`` has, or that it is ABSENT."""
        self._counts[place] = count

    def is_ahead(self, place: int) -> bool:
        """Whether another worker should take the next connection rather than the one at ``place``."""
        fewest = min((count for count in self._counts if count != ABSENT), default=0)
        return self._counts[place] > fewest + fewest // SLACK

    def close(self) -> None:
        """Give back what the operating system gave. The others may go on."""
        self._counts.release()
        self._memory.close()
        os.close(self.descriptor)
