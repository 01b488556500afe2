"""service.http.server: what is written in two parts leaves in one, and who is connected when it ends is answered."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import pytest
from house.processes import wait_until

from service.http.server import LINGER, UNASKED, InPairs

SERVES = """
import socket, sys
from fastapi import FastAPI
from service.http import server

server.LINGER = float(sys.argv[2])
server.Server(FastAPI(openapi_url="/")).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


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


def test_a_request_that_came_while_the_process_stood_still_is_answered() -> None:
    linger = 2.0  # so that a test that is slow itself stops it in time
    with serving(linger) as (process, port), closing(connected(port)) as kept:
        assert asked(kept) == (200, None)
        end(process, port)
        process.send_signal(signal.SIGSTOP)
        kept.request("GET", "/")
        time.sleep(linger + 0.5)
        process.send_signal(signal.SIGCONT)
        answer = kept.getresponse()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        process.wait(20)


def test_who_has_just_connected_may_still_ask_and_who_never_asks_holds_nobody_up() -> None:
    with serving(LINGER) as (process, port), closing(connected(port)) as silent, closing(connected(port)) as new:
        with closing(connected(port)) as last:
            assert asked(last) == (200, None), "those before it are taken, too"
        end(process, port)
        time.sleep(2 * LINGER)
        assert asked(new) == (200, "close")
        process.wait(UNASKED + 10)
        assert silent.sock.recv(1) == b""


@contextmanager
def serving(linger: float) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server in a process of its own, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", SERVES, str(listener.fileno()), str(linger)]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def connected(port: int) -> http.client.HTTPConnection:
    """A connection on which nothing was asked yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.connect()
    return connection


def asked(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    """The status, and what is said of the connection."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers["connection"]


def end(process: subprocess.Popen[bytes], port: int) -> None:
    """Ask it to end, and wait until it takes nobody else."""
    process.send_signal(signal.SIGTERM)

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_until(refused)
