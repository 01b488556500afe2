"""Places in fixed pieces of memory, for what was asked for lately."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

_SIZE = 16


def digest(*parts: bytes) -> bytes:
    """A key of ``_SIZE`` bytes for ``parts``, however long they are; no two lists of parts have the same."""
    made = blake2b(digest_size=_SIZE)
    for part in parts:
        made.update(len(part).to_bytes(8, "little"))
        made.update(part)
    return made.digest()


class Slots:
    """Slots 0 … ``most`` - 1, each of them one key's; whoever was asked for least lately gives up theirs.

    All are somebody's from the first moment on: at first of keys that nobody asks for. So they take as much memory
    before the first request as after the millionth.
    """

    def __init__(self, most: int):
        self._of = OrderedDict((digest(b"nobody", b"%d" % slot), slot) for slot in range(most))  # least lately first

    def find(self, key: bytes) -> int | None:
        """The slot of a key, which now is the one that was asked for last; None where it has none."""
        slot = self._of.get(key)
        if slot is not None:
            self._of.move_to_end(key)
        return slot

    def give(self, key: bytes) -> int:
        """A slot for a key that has none."""
        _, slot = self._of.popitem(last=False)
        self._of[key] = slot
        return slot
