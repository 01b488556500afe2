"""Where the time of one GET goes, in mean microseconds, next to an empty endpoint.

One connection, one request at a time, so that no request waits for another: what the service says of its stages
(``/metrics``) is held against what the client sees. Then the floor of each stage: the least that its work can take.
"""

from __future__ import annotations

import itertools
import random
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from model_store.bundle import STYLE_LSTM
from model_store.graphs import Memory, StyleLstm
from service.bench.load import one_by_one
from service.bench.results import Result
from service.bench.served import serving, serving_nothing
from service.bench.world import World
from service.engine.index import public_json
from service.state.redis_store import customer_keys

CUSTOMERS = 1_000  # different ones
_CALLS = 300  # of each floor
_ROUTE = "/v1/customers/{customer_id}/recommendations"
_OWN = {
    "redis": "reading from Redis",
    "generation": "what was generated",
    "lstm": "LSTM step",
    "search": "search and merge",
    "json": "JSON",
}


def measure_stages(world: World, redis_url: str) -> list[Result]:
    """Style and blended by stage; then an empty endpoint."""
    customers = random.Random(6).sample(world.customer_ids, min(CUSTOMERS, len(world.customer_ids)))
    results: list[Result] = []
    with serving(world.store, redis_url, workers=1) as (port, _):
        for strategy in ("style", "blended"):
            paths = [f"/v1/customers/{customer}/recommendations?strategy={strategy}" for customer in customers]
            one_by_one(port, paths)  # until all is warm
            before = _seconds(port)
            client = one_by_one(port, paths)
            taken = {name: (spent - before[name]) / len(paths) * 1e6 for name, spent in _seconds(port).items()}
            results += _table(f"GET ({strategy}), one by one", client.mean * 1e3, taken)
    results += _floors(world, redis_url, customers)
    with serving_nothing() as port:
        paths = [path.partition("?")[0] for path in paths]
        one_by_one(port, paths)
        empty = one_by_one(port, paths).mean * 1e3
    return [*results, Result("floor of HTTP: an empty FastAPI endpoint, one by one", empty, "µs")]


def _floors(world: World, redis_url: str, customers: Sequence[str]) -> list[Result]:
    """What a stage consists of by itself, again and again, so that its caches are warm."""
    shown = [public_json(article) for article in world.articles[:20]]
    graph = StyleLstm(world.bundle.path(STYLE_LSTM))
    step = np.zeros((1, world.bundle.manifest.time_spec.step_size), np.float32)
    memory = Memory.zeros(1)
    names = itertools.cycle(customers)
    with Redis.from_url(redis_url) as client:
        floors = {
            "Redis: one GET of a state": _mean(lambda: client.get(customer_keys(next(names)).state)),
            "LSTM step: one run of the graph": _mean(lambda: graph.step(step, memory)),
            "search: every vector (float32) read once": _mean(world.dna.sum),
            "JSON: 20 articles joined": _mean(lambda: b",".join(shown)),
        }
    return [Result(f"floor of {name}", microseconds, "µs") for name, microseconds in floors.items()]


def _mean(call: Callable[[], Any]) -> float:
    """Microseconds."""
    call()
    begun = time.perf_counter()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter() - begun) / _CALLS * 1e6


def _seconds(port: int) -> dict[str, float]:
    """Seconds that the service spent on each stage so far, and on whole requests ("request")."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    sums = [sample for family in families for sample in family.samples if sample.name.endswith("_seconds_sum")]
    by_stage = {
        sample.labels["stage"]: sample.value for sample in sums if sample.name.startswith("modiste_recommendation_")
    }
    requests = [sample.value for sample in sums if sample.labels.get("route") == _ROUTE]
    return {**by_stage, "request": sum(requests)}


def _table(name: str, client: float, taken: dict[str, float]) -> list[Result]:
    """``client`` and ``taken``: microseconds a request, as the client sees it and by stage."""
    parts = {
        "all, as the client sees it": client,
        "sockets and HTTP, the client's too": client - taken["request"],
        "routing and validation": taken["request"] - taken["total"],
        **{label: taken[stage] for stage, label in _OWN.items() if taken[stage]},
    }
    return [Result(f"{name}: {part}", microseconds, "µs") for part, microseconds in parts.items()]
