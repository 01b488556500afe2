"""How the cost of one GET grows with the catalogue and with the customers: the stage table, one size after the other.

Each size is a shop of its own, in a Redis of its own, filled by a backfill and asked one request at a time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from model_store.bundle import Bundle
from service.bench import parts, stages
from service.bench.results import Result
from service.bench.world import make_world
from service.embedded import EmbeddedRedis


class Size(NamedTuple):
    """How large a shop is. Customers have 10 purchases on average."""

    articles: int
    customers: int

    def __str__(self) -> str:
        return f"{self.articles:,} articles, {self.customers:,} customers"


SIZES = (
    *(Size(articles, 20_000) for articles in (10_000, 50_000, 190_000, 1_000_000)),
    *(Size(190_000, customers) for customers in (1_000, 100_000, 1_000_000)),
)
QUICK_SIZES = (Size(2_000, 500), Size(10_000, 500), Size(10_000, 2_000))


def measure_scale(
    live: Bundle, folder: Path, sizes: Sequence[Size] = SIZES, say: Callable[[str], None] = print
) -> list[Result]:
    """The stage table, backfill, and memory of Redis at each of ``sizes``, all around ``live``."""
    results: list[Result] = []
    for size in sizes:
        say(f"{size}")
        results += [replace(result, name=f"{size}: {result.name}") for result in _measure(live, folder, size)]
    return results


def _measure(live: Bundle, folder: Path, size: Size) -> list[Result]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="scale-") as own:
        world = make_world(live, Path(own), size.articles, size.customers, int(time.time()))
        with EmbeddedRedis(Path(own) / "redis") as server:
            results = [*parts.measure_backfill(world, server.url), *stages.measure_stages(world, server.url)]
            with Redis.from_url(server.url) as client:
                used: int = client.info("memory")["used_memory"]
        return [*results, Result("Redis", used / 2**20, "MiB")]
