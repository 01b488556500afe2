"""service.http.acceptor: connections to one listening socket, shared between several that take them."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.fair_share import FairShare
from service.http.acceptor import YIELDED, Acceptor


class Echo(asyncio.Protocol):
    """Sends back what it gets. ``open`` holds those that are open."""

    def __init__(self, on_lost: Callable[[], None], open_: set[Echo]):
        self._on_lost, self._open = on_lost, open_

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(self)
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._on_lost()


@dataclass
class Taker:
    """One that takes connections, and those that it has."""

    acceptor: Acceptor
    open: set[Echo] = field(default_factory=set)

    async def end(self) -> None:
        """Close the acceptor and all connections."""
        self.acceptor.close()
        await self.acceptor.wait_closed()
        for echo in self.open:
            echo.transport.close()
        await until(lambda: not self.open)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener


@pytest.fixture
def clients(listener: socket.socket) -> Iterator[Callable[[int], list[socket.socket]]]:
    """Opens so many connections, which wait until somebody takes them."""
    with ExitStack() as stack:
        yield lambda count: [
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10)) for _ in range(count)
        ]


@asynccontextmanager
async def taking(listener: socket.socket, workers: int, share: FairShare) -> AsyncIterator[list[Taker]]:
    """So many that take connections from ``listener``."""
    takers = []
    for place in range(workers):
        open_: set[Echo] = set()
        protocol = lambda on_lost, open_=open_: Echo(on_lost, open_)  # noqa: E731
        takers.append(Taker(Acceptor(listener.dup(), protocol, share, place), open_))
    try:
        yield takers
    finally:
        for taker in takers:
            await taker.end()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.001)


async def test_connections_that_come_together_are_shared(
    listener: socket.socket, clients: Callable[[int], list[socket.socket]]
) -> None:
    """As a pool opens them: without sharing, whoever looks first takes all."""
    clients(30)
    async with taking(listener, 3, FairShare.among(3)) as takers:
        await until(lambda: sum(len(taker.open) for taker in takers) == 30)
        assert [len(taker.open) for taker in takers] == [pytest.approx(10, abs=1)] * 3


async def test_who_loses_connections_takes_the_next_ones(
    listener: socket.socket, clients: Callable[[int], list[socket.socket]]
) -> None:
    opened = clients(20)
    async with taking(listener, 2, FairShare.among(2)) as (one, other):
        await until(lambda: len(one.open) + len(other.open) == 20)
        ours = {client.getsockname() for client in opened}
        theirs = {echo.transport.get_extra_info("peername") for echo in one.open}
        assert theirs <= ours
        for client in opened:
            if client.getsockname() in theirs:
                client.close()
        await until(lambda: not one.open)
        clients(8)
        await until(lambda: len(one.open) == 8)


async def test_who_is_ahead_takes_what_nobody_else_takes(
    listener: socket.socket, clients: Callable[[int], list[socket.socket]]
) -> None:
    """Another worker that is there but stands still costs a moment, and no connection."""
    share = FairShare.among(2)
    share.tell(1, 0)
    opened = clients(20)
    began = time.monotonic()
    async with taking(listener, 1, share) as (one,):
        await until(lambda: len(one.open) == 20)
        assert time.monotonic() - began >= 19 * YIELDED / 2
        loop = asyncio.get_running_loop()
        for client in opened:
            client.setblocking(False)
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(client, 5) == b"hello"


async def test_who_has_closed_is_left_out(
    listener: socket.socket, clients: Callable[[int], list[socket.socket]]
) -> None:
    share = FairShare.among(2)
    async with taking(listener, 2, share) as (one, other):
        one.acceptor.close()
        clients(6)
        await until(lambda: len(other.open) == 6)
        assert not share.is_ahead(1)
        assert not one.open


class Short(socket.socket):
    """A listening socket of a process that has no file descriptor left, once."""

    tried = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.tried += 1
        if self.tried == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_a_process_without_file_descriptors_tries_again(
    listener: socket.socket, clients: Callable[[int], list[socket.socket]], caplog: pytest.LogCaptureFixture
) -> None:
    clients(1)
    open_: set[Echo] = set()
    short = Short(fileno=listener.dup().detach())
    taker = Taker(Acceptor(short, lambda on_lost: Echo(on_lost, open_), FairShare.among(1), 0), open_)
    await until(lambda: bool(open_))
    await taker.end()
    assert "no connection can be taken (Too many open files)" in caplog.text
