"""A load generator: raw HTTP/1.1 over kept-alive connections, asyncio + uvloop + httptools, a process of its own.

Two ways to load. *Closed*: every connection sends its next request as soon as it has the answer: how much is possible.
*Open*: requests are due at fixed moments, and a latency counts from the moment a request was due, so that a server
that stalls is charged for all who would have waited (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import orjson
import uvloop


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
    with tempfile.TemporaryDirectory(prefix="modiste-load-") as folder:
        answer = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "service.bench.load", str(answer)]
        # By a file: of some 300 KB through a pipe, asyncio and subprocess alike once in a while saw the beginning only.
        ended = await asyncio.to_thread(subprocess.run, command, input=orjson.dumps(asdict(load)), check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"the load generator ended with status {ended.returncode}")
        return Measured(**orjson.loads(answer.read_bytes()))


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


class _Generator:
    def __init__(self, load: Load):
        self.load = load
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.idle: asyncio.Queue[_Connection] = asyncio.Queue()
        self.counting = self.stopped = False
        self._requests: Sequence[bytes] = [request.encode("latin-1") for request in load.requests]
        self._next = 0

    def request(self) -> bytes:
        self._next += 1
        return self._requests[self._next % len(self._requests)]

    async def run(self) -> Measured:
        loop = asyncio.get_running_loop()
        for _ in range(self.load.connections):
            await loop.create_connection(lambda: _Connection(self), self.load.host, self.load.port)
        sender = loop.create_task(self._send_on_time()) if self.load.rate else None
        await asyncio.sleep(self.load.warm_up)
        self.counting, start = True, time.perf_counter()
        await asyncio.sleep(self.load.seconds)
        self.counting, duration = False, time.perf_counter() - start
        self.stopped = True
        if sender is not None:
            sender.cancel()
        return Measured(duration, [latency * 1e3 for latency in self.latencies], dict(self.statuses))

    async def _send_on_time(self) -> None:
        assert self.load.rate is not None
        due = time.perf_counter()
        while True:
            due += 1 / self.load.rate
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            (await self.idle.get()).send(due)

    def answered(self, connection: _Connection, status: int, since: float) -> None:
        if self.counting:
            self.latencies.append(time.perf_counter() - since)
            self.statuses[str(status)] += 1
        if self.load.rate:
            self.idle.put_nowait(connection)
        elif not self.stopped:
            connection.send(time.perf_counter())


class _Connection(asyncio.Protocol):
    def __init__(self, generator: _Generator):
        self._generator = generator
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._generator.load.rate:
            self._generator.idle.put_nowait(self)
        else:
            self.send(time.perf_counter())

    def send(self, since: float) -> None:
        self._since = since
        self._transport.write(self._generator.request())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        self._generator.answered(self, status, self._since)

    def connection_lost(self, error: Exception | None) -> None:
        if self._generator.counting:
            self._generator.statuses[f"lost: {error or 'closed'}"] += 1


def main() -> None:
    """Read one Load as JSON from stdin, write what was measured as JSON to the file that the first argument names."""
    load = Load(**orjson.loads(sys.stdin.buffer.read()))
    measured = uvloop.run(_Generator(load).run())
    Path(sys.argv[1]).write_bytes(orjson.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
