"""service.http.server: what is written in two parts leaves in one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from service.http.server import InPairs


class _Recorded(asyncio.Transport):
    """What the kernel would be given, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.calls.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 7


@pytest.fixture
def below() -> _Recorded:
    return _Recorded()


async def test_head_and_body_leave_together(below: _Recorded) -> None:
    transport = InPairs(below, asyncio.get_running_loop())
    transport.write(b"head ")
    assert below.calls == []
    transport.write(b"body")
    assert below.calls == [b"head body"]
    await asyncio.sleep(0)
    assert below.calls == [b"head body"]


async def test_what_nothing_follows_leaves_at_the_end_of_the_turn(below: _Recorded) -> None:
    transport = InPairs(below, asyncio.get_running_loop())
    for piece in (b"one ", b"two ", b"three"):
        transport.write(piece)
    assert below.calls == [b"one two "]
    await asyncio.sleep(0)
    assert below.calls == [b"one two ", b"three"]


async def test_closing_loses_nothing_and_sends_nothing_afterwards(below: _Recorded) -> None:
    transport = InPairs(below, asyncio.get_running_loop())
    transport.write(b"last")
    transport.close()
    assert (below.calls, below.closed) == ([b"last"], True)
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert below.calls == [b"last"]


async def test_all_else_is_the_transports_own(below: _Recorded) -> None:
    assert InPairs(below, asyncio.get_running_loop()).get_write_buffer_size() == 7
