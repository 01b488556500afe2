"""A load generator: raw HTTP/1.1 over kept-alive connections, asyncio + uvloop + httptools, a process of its own.

Two ways to load. *Closed*: every connection sends its next request as soon as it has the answer: how much is possible.
*Open*: requests are due at fixed moments, and a latency counts from the moment a request was due, so that a server
that stalls is charged for all who would have waited (no coordinated omission). What is due in the time that is
measured counts whenever it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import math
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import orjson
import uvloop

PATIENCE = 10.0  # seconds that answers are waited for after the last request


@dataclass(frozen=True)
class Load:
    """What to send where. ``rate`` in requests per second, or None for a closed loop; ``seconds`` after ``warm_up``."""

    port: int
    requests: tuple[str, ...]
    """Raw HTTP requests, sent in turn."""
    connections: int = 16
    seconds: float = 5.0
    warm_up: float = 1.0
    rate: float | None = None
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Measured:
    """What came back in ``seconds``: every answer's latency in milliseconds, answers by status, lost connections."""

    seconds: float
    latencies: list[float]
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def mean(self) -> float:
        """Mean latency in milliseconds; NaN where nothing came back."""
        return float(np.mean(self.latencies)) if self.latencies else float("nan")

    @property
    def p50(self) -> float:
        """Median latency in milliseconds; NaN where nothing came back."""
        return self._percentile(50)

    @property
    def p90(self) -> float:
        """90th percentile."""
        return self._percentile(90)

    @property
    def p99(self) -> float:
        """99th percentile."""
        return self._percentile(99)

    def _percentile(self, of: float) -> float:
        return float(np.percentile(self.latencies, of)) if self.latencies else float("nan")

    @property
    def failed(self) -> int:
        """Answers other than 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")


def together(turns: Sequence[Measured]) -> Measured:
    """Several turns of one load as one."""
    statuses: Counter[str] = Counter()
    for turn in turns:
        statuses.update(turn.statuses)
    latencies = [latency for turn in turns for latency in turn.latencies]
    return Measured(sum(turn.seconds for turn in turns), latencies, dict(statuses))


def get(path: str) -> str:
    """A raw GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n"


def post(path: str, body: bytes) -> str:
    """A raw POST of JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head + body.decode("latin-1")


async def measure(load: Load) -> Measured:
    """Run ``load`` in a process of its own, so that it shares no interpreter with what it measures."""
    [[measured]] = await measure_in_turns([load], 1)
    return measured


async def measure_in_turns(loads: Sequence[Load], rounds: int) -> list[list[Measured]]:
    """Each of ``loads`` for its ``seconds``, forth and back and forth, ``rounds`` times: by load what each round was.

    What else the machine does meets all alike then, the more so the shorter a turn is. In one process of its own and
    over one set of connections: the loads have all but ``requests`` and ``seconds`` in common.
    """
    if len({(load.host, load.port, load.connections, load.warm_up, load.rate) for load in loads}) != 1:
        raise ValueError("loads in turns may differ in their requests and seconds only")
    with tempfile.TemporaryDirectory(prefix="modiste-load-") as folder:
        answer = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "service.bench.load", str(answer)]
        asked = orjson.dumps({"loads": [asdict(load) for load in loads], "rounds": rounds})
        # By a file: of some 300 KB through a pipe, asyncio and subprocess alike once in a while saw the beginning only.
        ended = await asyncio.to_thread(subprocess.run, command, input=asked, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"the load generator ended with status {ended.returncode}")
        return [[Measured(**turn) for turn in of_load] for of_load in orjson.loads(answer.read_bytes())]


def one_by_one(port: int, paths: Iterable[str]) -> Measured:
    """Each GET once, on one connection, from this process: no request ever waits for another."""
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    start = time.perf_counter()
    for path in paths:
        begun = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        latencies.append((time.perf_counter() - begun) * 1e3)
        statuses[str(answer.status)] += 1
    connection.close()
    return Measured(time.perf_counter() - start, latencies, dict(statuses))


class _Turn:
    """What is sent for a while, and what comes back of it."""

    def __init__(self, requests: Sequence[str], first: int = 0):
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.unanswered = 0
        self.sent = first
        self._requests = requests

    def next(self) -> bytes:
        """A request, which is under way from now on."""
        self.unanswered += 1
        self.sent += 1
        return self._requests[self.sent % len(self._requests)].encode("latin-1")

    def answered(self, status: str, since: float) -> None:
        self.unanswered -= 1
        self.latencies.append((time.perf_counter() - since) * 1e3)
        self.statuses[status] += 1

    def lost(self, why: str) -> None:
        self.unanswered -= 1
        self.statuses[f"lost: {why}"] += 1


class _Generator:
    def __init__(self, loads: Sequence[Load], rounds: int):
        self._loads, self._rounds = loads, rounds
        self.rate = loads[0].rate
        self.idle: asyncio.Queue[_Connection] = asyncio.Queue()
        self._turns = [(-math.inf, _Turn(loads[0].requests))]  # when each began; the warm-up, of which nothing is told
        self._end = math.inf
        self._connections = loads[0].connections
        self._all_sent = False
        self._quiet = asyncio.Event()  # all was sent, and no request is under way

    async def run(self) -> list[list[Measured]]:
        loop = asyncio.get_running_loop()
        first = self._loads[0]
        for _ in range(first.connections):
            await loop.create_connection(lambda: _Connection(self), first.host, first.port)
        sender = loop.create_task(self._send_on_time(self.rate)) if self.rate else None
        await asyncio.sleep(first.warm_up)
        turns: list[list[tuple[_Turn, float]]] = [[] for _ in self._loads]
        for number in range(self._rounds):
            for of_load, load in list(zip(turns, self._loads, strict=True))[:: -1 if number % 2 else 1]:
                of_load.append(await self._take(load, of_load[-1][0].sent if of_load else 0))
        self._end = time.perf_counter()
        if sender is not None:
            await asyncio.wait([sender], timeout=PATIENCE)
            sender.cancel()
        self._all_sent = True
        self._look()
        await self._drained()
        return [[Measured(took, turn.latencies, dict(turn.statuses)) for turn, took in of_load] for of_load in turns]

    async def _take(self, load: Load, sent: int) -> tuple[_Turn, float]:
        """One turn, and the seconds that it took."""
        turn, start = _Turn(load.requests, sent), time.perf_counter()
        self._turns.append((start, turn))
        await asyncio.sleep(load.seconds)
        return turn, time.perf_counter() - start

    def _turn_at(self, moment: float) -> _Turn:
        return self._turns[bisect_right(self._turns, moment, key=itemgetter(0)) - 1][1]

    async def _drained(self) -> None:
        """Wait for what is still to be answered; what is not in ``PATIENCE`` is lost."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), PATIENCE)
        for _, turn in self._turns:
            for _ in range(turn.unanswered):
                turn.lost("no answer")

    async def _send_on_time(self, rate: float) -> None:
        due = time.perf_counter()
        while (due := due + 1 / rate) < self._end:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            (await self.idle.get()).send(self._turn_at(due), due)

    def next(self, connection: _Connection) -> None:
        """Give a connection that is free its next request, or let it wait for one to be due."""
        if not self.rate and self._end == math.inf:
            connection.send(self._turns[-1][1], time.perf_counter())
        else:
            self.idle.put_nowait(connection)
            self._look()

    def gone(self) -> None:
        """A connection is lost."""
        self._connections -= 1
        self._look()

    def _look(self) -> None:
        if self._all_sent and self.idle.qsize() >= self._connections:
            self._quiet.set()


class _Connection(asyncio.Protocol):
    def __init__(self, generator: _Generator):
        self._generator = generator
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._turn: _Turn | None = None  # None while nothing is under way
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._generator.next(self)

    def send(self, turn: _Turn, since: float) -> None:
        self._turn, self._since = turn, since
        self._transport.write(turn.next())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.answered(str(status), self._since)
        self._generator.next(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._turn is not None:
            self._turn.lost(str(error or "closed"))
        self._generator.gone()


def main() -> None:
    """Read loads as JSON from stdin, write what was measured as JSON to the file that the first argument names."""
    asked = orjson.loads(sys.stdin.buffer.read())
    generator = _Generator([Load(**load) for load in asked["loads"]], asked["rounds"])
    measured = uvloop.run(generator.run())
    Path(sys.argv[1]).write_bytes(orjson.dumps([[asdict(turn) for turn in of_load] for of_load in measured]))


if __name__ == "__main__":
    main()
