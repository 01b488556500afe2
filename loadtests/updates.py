"""The catalogue under a million changes: what they cost, who sees them when, and whether memory grows.

    .venv/bin/python -m loadtests.updates --out var/updates.json        # some 10 minutes on 2 cores
    .venv/bin/python -m loadtests.updates --updates 100000 --seconds 5  # a look

First the changes go through what the service makes of calls: one index writes, another one follows, both in this
process, over a real Valkey. Of 1,000 changes 800 set stock, 150 change an article, 25 delete one and 25 bring one.
Memory is read half-way, when as many deleted articles are remembered as ever are, and at the end. Then four services
with ports of their own take 1,000 stock levels a second while customers ask, and it is measured when all of them show
what one has acknowledged. Prints a table; ends with 1 where an answer failed, something was applied wrongly, memory
grew by more than 32 MiB, or a change took more than a second to show.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import uvloop

from loadtests.changing_shop import ROUND, Shop
from loadtests.endured import Endured, endure
from loadtests.shown import Served, clients, in_stock, put, serve
from model_store.bundle import current_version
from model_store.errors import InvalidConfig
from model_store.machine import hardware
from offline.progress import Console
from service.bench.results import table, write_json
from service.bench.served import serving
from service.catalogue.redis_store import RedisCatalogue
from service.embedded import EmbeddedRedis
from service.settings import Settings
from service.state.connection import connect

SERVICES = 4
SETTLED = 3.0  # seconds in which services make ready what so many new articles need
MOST_GROWTH, BOUND = 32.0, 1.0  # MiB, seconds
HOW = ("style", "blended", "trending")  # customers ask


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both, print the table; 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--articles", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which four services are written to and asked")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the figures, machine and versions here")
    options = parser.parse_args(arguments)
    store = Settings.from_environment(os.environ).store
    version = current_version(store)
    if version is None:
        raise InvalidConfig(f"{store} has no live bundle to measure with; 'make serve' makes one")
    with tempfile.TemporaryDirectory(prefix="modiste-updates-") as folder:
        with EmbeddedRedis(Path(folder) / "one") as server:
            endured = uvloop.run(_endure(store / version, server.url, options.articles, options.updates))
        with EmbeddedRedis(Path(folder) / "two") as server:
            served = _serve(store, server.url, options.articles, options.seconds)
    results = [*endured.results, *served.results]
    print(f"\n{hardware()['processor']}, {hardware()['cores']} cores for everything\n\n{table(results)}")
    for why in served.failed[:3]:
        print(f"failed: {why}", file=sys.stderr)
    if options.out is not None:
        write_json(options.out, results, {name: value for name, value in vars(options).items() if name != "out"})
    wrong = endured.wrong + served.wrong + len(served.failed) + served.asked.failed
    slow = float(np.percentile(served.shown, 99)) > BOUND
    return int(bool(wrong) or slow or max(endured.growth.process, endured.growth.redis) > MOST_GROWTH)


async def _endure(bundle: Path, url: str, articles: int, updates: int) -> Endured:
    client = connect(url, timeout=10)
    try:
        with Console().bar("changes", updates) as bar:
            shop = Shop(random.Random(1))
            return await endure(bundle, RedisCatalogue(client), client, shop, articles, updates, bar.advance)
    finally:
        await client.aclose()


def _serve(store: Path, url: str, articles: int, seconds: float) -> Served:
    shop, customers = Shop(random.Random(2)), [f"customer-{number}" for number in range(200)]
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(store, url, workers=1))[0] for _ in range(SERVICES)]

        async def fill_and_serve() -> Served:
            async with clients(ports[:1]) as [service]:
                for _ in range(0, articles, ROUND):
                    await put(service, shop.new(ROUND))
                bought = random.Random(3).choices(list(shop.in_stock), k=5 * len(customers))
                events = [
                    {"type": "purchase", "customer_id": customers[number % len(customers)], "article_id": article_id}
                    for number, article_id in enumerate(bought)
                ]
                assert (await service.post("/v1/events", json=events)).json()["accepted"] == len(events)
            async with clients(ports) as services:
                for service in services:
                    while await in_stock(service) != len(shop.in_stock):  # noqa: ASYNC110 - it looks from outside
                        await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLED)
            paths = [f"/v1/customers/{name}/recommendations?strategy={how}" for name in customers for how in HOW]
            return await serve(ports, shop, paths, seconds)

        return uvloop.run(fill_and_serve())


if __name__ == "__main__":
    sys.exit(main())
