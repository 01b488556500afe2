"""What a language model costs answers: none for it to have written, something written, and one that takes its time.

No language model runs here; what it would have written is in Redis already. Latency is held against the same requests
for style alone, in the same run: each at half of the most that it can do.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from service.bench.load import get
from service.bench.results import Result
from service.bench.served import load, serving
from service.bench.world import World
from service.engine.style import bundle_stamp
from service.generation.records import StoredGeneration
from service.state.connection import connect
from service.state.redis_store import RedisStore

SHOPPERS = 1_000
"""Customers with a generation of their own, who ask about four times each."""
REQUESTS = 4_000
SLOW = 5.0  # seconds that the slow language model takes


def measure_generations(world: World, redis_url: str, seconds: float) -> list[Result]:
    """Blended without and with what was written, and with a slow language model, next to style; nothing without a half.

    The ratios are of the 99th percentiles at half load.
    """
    if world.bundle.manifest.generation is None:
        return []
    rng = random.Random(5)
    shoppers = rng.sample(world.customer_ids, min(SHOPPERS, len(world.customer_ids)))
    chosen = rng.choices(shoppers, k=REQUESTS)
    results: list[Result] = []
    with serving(world, redis_url, workers=1) as (port, _):
        results += _measure("style, next to generations", port, chosen, "strategy=style", seconds)
        results += _measure("blended, nothing generated", port, chosen, "", seconds)
        asyncio.run(_write(world, redis_url, shoppers, rng))
        results += _measure("blended, generated", port, chosen, "", seconds)
        results += _measure("generated", port, chosen, "strategy=generated", seconds)
        results += _measure("blended, query", port, chosen, "query=article%20of%20brand%207", seconds)
    with _slow_language_model() as url, serving(world, redis_url, 1, url) as (port, _):
        results += _measure(f"blended, generated, {SLOW:g} s language model", port, chosen, "", seconds)
    return [*results, *_ratios(results)]


def _measure(name: str, port: int, customers: list[str], query: str, seconds: float) -> list[Result]:
    requests = tuple(get(f"/v1/customers/{customer}/recommendations?{query}") for customer in customers)
    return load(f"GET recommendations ({name})", port, requests, 1, seconds)


def _ratios(results: list[Result]) -> list[Result]:
    at_half = [result for result in results if result.name.endswith("half load") and result.p99]
    style = at_half[0].p99
    assert style is not None
    return [
        Result(f"p99 / style's: {result.name.partition('(')[2].partition(')')[0]}", (result.p99 or 0) / style, "x")
        for result in at_half[1:]
    ]


async def _write(world: World, redis_url: str, customer_ids: list[str], rng: random.Random) -> None:
    """What would have been written for customers before their latest event: what others bought, by popularity."""
    client = connect(redis_url)
    customers = RedisStore(client)
    weights = [1.0 / (rank + 10.0) for rank in range(len(world.articles))]
    bought = rng.choices(world.articles, weights, k=len(customer_ids))
    now, bundle = time.time(), bundle_stamp(world.bundle.manifest)
    try:
        for customer_id, article in zip(customer_ids, bought, strict=True):
            written = StoredGeneration(bundle, "before", 5, article.article_id, article.title, now, 0.1)
            await customers.put_generation(customer_id, written)
    finally:
        await client.aclose()


class _Slow(BaseHTTPRequestHandler):
    """Answers whatever it is asked, late, and nothing that makes sense."""

    def do_GET(self) -> None:
        """Answer."""
        time.sleep(SLOW)
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name in http.server
        """Say nothing."""


@contextmanager
def _slow_language_model() -> Iterator[str]:
    """The URL of a server that takes ``SLOW`` seconds for everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
