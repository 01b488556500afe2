"""The whole service under load: real processes, a real Redis, real sockets; the load generator shares the machine."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson

from model_store.errors import ModisteError
from service.bench.load import Load, Measured, get, measure, post
from service.bench.results import Result
from service.bench.world import World
from service.lifeline import is_alive
from service.settings import PREFIX, variable

REQUESTS = 4_000  # different ones, sent in turn
START_LIMIT = 300.0  # seconds
CONNECTIONS = 16
_STYLE, _SINGLE_EVENT = "GET recommendations (style)", "POST of one purchase"
BASELINES = {kind: f"{kind}: GET recommendations (style), 1 process" for kind in ("plain stack", "bare trial")}


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(store: Path, redis_url: str, workers: int, llm_url: str = "off") -> Iterator[tuple[int, int]]:
    """`modiste serve` over a store of bundles: (port, process of the launcher), stopped at the end.

    Without a language model, unless one is named, and nobody replays in the background: both would take the processor
    from what is measured. It speaks to programs, since what it tells people contains an article that it asks a worker
    for, at any moment.
    """
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    settings = {"port": port, "workers": workers, "store": store, "redis_url": redis_url, "log_level": "warning"}
    settings |= {"llm_url": llm_url, "log_format": "json", "replay_share": 0}
    environment = own | {variable(name): str(value) for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "modiste", "serve"], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            _await(port, "/readyz", process)
            _await(port, "/metrics", process, lambda page: _ready_workers(page) == workers)
            yield port, process.pid
        finally:
            process.terminate()


@contextmanager
def serving_nothing() -> Iterator[int]:
    """The empty FastAPI application; its port."""
    port = free_port()
    with process_at(port, "/v1/customers/nobody/recommendations", "service.bench.empty_app"):
        yield port


@contextmanager
def process_at(port: int, path: str, module: str, *arguments: str) -> Iterator[None]:
    """``python -m module port <this process> arguments…``, from when ``path`` is answered on, stopped at the end."""
    command = [sys.executable, "-m", module, str(port), str(os.getpid()), *arguments]
    with subprocess.Popen(command) as process:
        try:
            _await(port, path, process)
            yield
        finally:
            process.terminate()


def _await(
    port: int, path: str, process: subprocess.Popen[bytes], holds: Callable[[str], bool] = lambda _: True
) -> None:
    """Return once ``path`` is answered, and the answer ``holds``."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                if holds(answer.read().decode()):
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise ModisteError(f"what is to be measured does not become ready (status {process.poll()}); see above")


def _ready_workers(metrics: str) -> float:
    """How many workers say in ``/metrics`` that they are ready."""
    return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith("modiste_ready"))


def recommendation_requests(world: World, seed: int = 3) -> tuple[str, ...]:
    """GETs for known customers."""
    chosen = random.Random(seed).choices(world.customer_ids, k=REQUESTS)
    return tuple(get(f"/v1/customers/{customer}/recommendations?strategy=style") for customer in chosen)


def blended_requests(world: World) -> tuple[str, ...]:
    """The same with the default strategy."""
    return tuple(request.replace("?strategy=style", "") for request in recommendation_requests(world))


def purchase_requests(world: World, per_call: int, seed: int = 4) -> tuple[str, ...]:
    """POSTs of ``per_call`` purchases each, by known customers."""
    rng = random.Random(seed)
    bodies = (
        orjson.dumps(
            [
                {"type": "purchase", "customer_id": customer, "article_id": rng.choice(world.articles).article_id}
                for customer in rng.choices(world.customer_ids, k=per_call)
            ]
        )
        for _ in range(REQUESTS // per_call)
    )
    return tuple(post("/v1/events", body) for body in bodies)


def mixed_requests(world: World, seed: int = 7) -> tuple[str, ...]:
    """Four GETs to one POST of a purchase, in random order."""
    rng = random.Random(seed)
    gets, posts = recommendation_requests(world, seed), purchase_requests(world, 1, seed)
    return tuple(buy if rng.random() < 0.2 else look for look, buy in zip(gets, posts, strict=True))


def measure_service(world: World, redis_url: str, workers: int, seconds: float) -> list[Result]:
    """GET, POST and both on ``workers`` workers: most throughput, and latency at half of it; memory at the end."""
    suffix = f"{workers} worker{'s' if workers > 1 else ''}"
    results = []
    with serving(world.store, redis_url, workers) as (port, launcher):
        for name, requests, events in (
            (_STYLE, recommendation_requests(world), 1),
            ("GET recommendations (blended)", blended_requests(world), 1),
            (_SINGLE_EVENT, purchase_requests(world, 1), 1),
            ("80 GETs (style) to 20 POSTs of one purchase", mixed_requests(world), 1),
            ("POST of 50 purchases, events", purchase_requests(world, 50), 50),
        ):
            results += load(f"{name}, {suffix}", port, requests, events, seconds)
        for role, process in _processes(launcher):
            results.append(Result(f"peak memory, {role}, {suffix}", memory_of(process, "VmHWM"), "MiB"))
    return results


def measure_empty(seconds: float) -> list[Result]:
    """The yardstick for HTTP: FastAPI that answers a constant of the same size."""
    with serving_nothing() as port:
        return load("yardstick: empty FastAPI endpoint", port, (get("/v1/customers/a/recommendations"),), 1, seconds)


def measure_baselines(world: World, redis_url: str, seconds: float) -> list[Result]:
    """The same by what is written down first (``loadtests.baselines``); nothing where that is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("loadtests", "torch", "onnx")):
        return []
    results = []
    with tempfile.TemporaryDirectory(prefix="modiste-baselines-") as folder:
        dna = Path(folder) / "dna.npy"
        np.save(dna, world.dna)
        for kind, name in BASELINES.items():
            port = free_port()
            arguments = (kind, str(world.bundle.folder), str(world.data), str(dna), redis_url)
            with process_at(port, "/readyz", "loadtests.baselines", *arguments):
                results += load(name, port, recommendation_requests(world), 1, seconds)
    return results


def ratios(results: Sequence[Result]) -> list[Result]:
    """How many times as much as each baseline's throughput each other GET of style has; nothing without baselines."""
    values = {result.name: result.value for result in results}
    return [
        Result(f"{result.name}, {kind} = 1", result.value / values[name], "×")
        for kind, name in BASELINES.items()
        if values.get(name)
        for result in results
        if result.name.startswith(_STYLE) and result.name.endswith(("worker", "workers"))
    ]


def load(name: str, port: int, requests: tuple[str, ...], events: int, seconds: float) -> list[Result]:
    """As fast as it goes; at half of that speed, latency counted from when each request was due; one at a time."""
    most = asyncio.run(measure(Load(port, requests, CONNECTIONS, seconds)))
    half = asyncio.run(measure(Load(port, requests, CONNECTIONS, seconds, rate=max(1.0, most.per_second / 2))))
    alone = asyncio.run(measure(Load(port, requests, 1, seconds)))
    return [
        result(name, most, events),
        result(f"{name}, at half load", half, events),
        result(f"{name}, one at a time", alone, events),
    ]


def result(name: str, measured: Measured, events: int = 1) -> Result:
    """What was measured as a line of the table; ``events`` that each request stands for."""
    return Result(name, measured.per_second * events, "/s", measured.p50, measured.p90, measured.p99, measured.failed)


def _processes(launcher: int) -> list[tuple[str, int]]:
    """The launcher and its workers, where the system tells."""
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [(f"worker {number}", int(child)) for number, child in enumerate(children, 1) if is_alive(int(child))]


def workers_of(launcher: int) -> list[int]:
    """The processes that answer."""
    return [process for _, process in _processes(launcher)]


def memory_of(process: int, kind: str) -> float:
    """A process's memory in MiB: what is resident ("VmRSS"), the most that ever was ("VmHWM"); NaN where none tells."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:")), float("nan"))
