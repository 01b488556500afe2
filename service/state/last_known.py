"""What was last known of customers, for the time that the store does not answer: bytes in one fixed piece of memory.

It is taken at once and never grows, however many ask: what comes next overwrites what came first. As objects the same
would take three times as much, and give the garbage collector thirty for each customer to look at.
"""

from __future__ import annotations

import struct
from collections import OrderedDict

from service.state.customer import CustomerView, Packed
from service.state.views import pack_view, unpack_view

SIZE = 32 * 2**20
"""Bytes: 12,000 customers who have bought ten things, half as many who have a long session besides."""

_USUAL = 2_800  # bytes of a customer who has bought ten things

_LENGTHS = struct.Struct("<3i")  # of state, session and generation; -1 where there is none
_NOTHING = Packed(None, None, None)


class LastKnown:
    """Views of customers in ``size`` bytes, the latest ones that changed.

    A ring: each view lies behind the one that came before it, and from the start again where the end is reached.
    """

    def __init__(self, size: int = SIZE):
        self._bytes = bytearray(b"\xff" * size)  # written to, so that it is really there
        # Of customers' bytes; first who will be overwritten first. To begin with they are nobody's, as far apart as
        # customers' will be: the table takes no more memory when it is full of customers.
        self._starts = OrderedDict((f"\0{start}", start) for start in range(0, size - _USUAL, _USUAL))
        self._end = 0

    def keep(self, customer_id: str, view: CustomerView) -> None:
        """Know this of a customer from here on, and nothing that was known before."""
        parts = pack_view(view)
        if parts == _NOTHING:
            self.forget(customer_id)
            return
        lengths = _LENGTHS.pack(*[-1 if part is None else len(part) for part in parts])
        packed = b"".join([lengths, *[part for part in parts if part is not None]])
        start = self._starts.get(customer_id)
        if start is not None and self._bytes[start : start + len(packed)] == packed:
            return
        self.forget(customer_id)
        if len(packed) <= len(self._bytes):
            start = self._room(len(packed))
            self._bytes[start : start + len(packed)] = packed
            self._starts[customer_id] = start

    def view(self, customer_id: str) -> CustomerView:
        """What is known of a customer; an empty view where that is nothing."""
        start = self._starts.get(customer_id)
        if start is None:
            return CustomerView()
        lengths, place, parts = self._lengths(start), start + _LENGTHS.size, []
        for length in lengths:
            parts.append(None if length < 0 else bytes(self._bytes[place : place + length]))
            place += max(length, 0)
        return unpack_view(customer_id, Packed(*parts))

    def forget(self, customer_id: str) -> None:
        """Know nothing of a customer; not even the bytes stay."""
        start = self._starts.pop(customer_id, None)
        if start is not None:
            size = _LENGTHS.size + sum(max(length, 0) for length in self._lengths(start))
            self._bytes[start : start + size] = bytes(size)

    def _lengths(self, start: int) -> tuple[int, int, int]:
        state, session, generation = _LENGTHS.unpack_from(self._bytes, start)
        return state, session, generation

    def _room(self, size: int) -> int:
        """Where the next ``size`` bytes go; whoever had them is known no more."""
        if self._end + size > len(self._bytes):
            self._drop(self._end, len(self._bytes))
            self._end = 0
        start, self._end = self._end, self._end + size
        self._drop(start, self._end)
        return start

    def _drop(self, start: int, end: int) -> None:
        """Know nothing of those whose bytes begin within [start, end): they came before all others."""
        while self._starts:
            customer_id, first = next(iter(self._starts.items()))
            if not start <= first < end:
                return
            self.forget(customer_id)
