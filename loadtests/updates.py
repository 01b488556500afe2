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
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvloop

from model_store.bundle import current_version
from model_store.errors import InvalidConfig
from offline.progress import Console
from service.bench.load import Load, Measured, get, measure, together
from service.bench.results import Result, hardware, table, write_json
from service.bench.served import serving
from service.cancelling import cancelled
from service.catalogue.follower import CatalogueFollower
from service.catalogue.intake import CatalogueIntake
from service.catalogue.redis_store import CHANGES, RedisCatalogue
from service.embedded import EmbeddedRedis
from service.live import open_live
from service.settings import Settings
from service.state.connection import Client, connect

ROUND, CHANGED, REPLACED = 1_000, 150, 25  # changes drawn together; of them changed articles, and deleted and new ones
SERVICES = 4
PER_CALL, RATE = 100, 1_000  # stock levels of one call, and of one second
ASKED = 25.0  # requests a second to each service
PATIENCE = 60.0  # seconds until all that was written must be everywhere
SETTLED = 3.0  # seconds in which services make ready what so many new articles need
MOST_GROWTH, BOUND = 32.0, 1.0  # MiB, seconds
HOW = ("style", "blended", "trending")  # customers ask
PROBE = {"article_id": "probe", "title": "Probe", "category": "probe"}


@dataclass
class Shop:
    """What the catalogue should hold: whether each article is in stock, by the latest ``set_time``. Begins empty."""

    rng: random.Random
    in_stock: dict[str, bool] = field(default_factory=dict)
    _now: int = field(default_factory=lambda: int(time.time()))
    _set_at: dict[str, int] = field(default_factory=dict)
    _ids: list[str] = field(default_factory=list)
    _named: int = 0

    def new(self, count: int) -> list[dict[str, Any]]:
        """Articles that were never there, as PUT /v1/articles takes them; they are in stock."""
        ids = [f"article-{number:08}" for number in range(self._named, self._named + count)]
        self._named += count
        self._ids += ids
        self.in_stock.update(dict.fromkeys(ids, True))
        return list(map(self._drawn, ids))

    def changed(self, count: int) -> list[dict[str, Any]]:
        """Articles of the catalogue, drawn anew; their stock stays."""
        return list(map(self._drawn, self.rng.sample(self._ids, count)))

    def gone(self, count: int) -> list[str]:
        """Articles to delete."""
        ids = []
        for _ in range(count):
            place = self.rng.randrange(len(self._ids))
            self._ids[place], self._ids[-1] = self._ids[-1], self._ids[place]
            ids.append(self._ids.pop())
            del self.in_stock[ids[-1]]
            self._set_at.pop(ids[-1], None)
        return ids

    def levels(self, count: int) -> list[dict[str, Any]]:
        """Stock levels as PATCH /v1/stock takes them, all of one moment but for one in ten, which comes late."""
        self._now += 1
        levels = []
        for article_id in self.rng.choices(self._ids, k=count):
            quantity, set_time = self.rng.randrange(2), self._now - (self.rng.random() < 0.1) * self.rng.randrange(50)
            levels.append({"article_id": article_id, "quantity": quantity, "set_time": set_time})
            if set_time >= self._set_at.get(article_id, set_time):
                self.in_stock[article_id], self._set_at[article_id] = quantity > 0, set_time
        return levels

    def _drawn(self, article_id: str) -> dict[str, Any]:
        rng = self.rng
        title = f"Article {rng.randrange(10**6)} of brand {rng.randrange(200)}"
        category, price = f"category {rng.randrange(20)}", round(rng.uniform(5, 500), 2)
        return {"article_id": article_id, "title": title, "category": category, "price": price}


@dataclass(frozen=True)
class Memory:
    """MiB that this process and the Redis hold, and how many changes the latter keeps."""

    process: float
    redis: float
    changes: int


@dataclass(frozen=True)
class Endured:
    """What many changes came to. ``wrong``: articles that an index has otherwise than it should.

    ``known``: articles, deleted ones included, of which the index that follows knows the Fashion DNA.
    """

    updates: int
    seconds: float
    half_way: Memory
    end: Memory
    wrong: int
    known: int

    @property
    def growth(self) -> Memory:
        """What the second half added."""
        end, half_way = self.end, self.half_way
        return Memory(end.process - half_way.process, end.redis - half_way.redis, end.changes - half_way.changes)

    @property
    def results(self) -> list[Result]:
        """As lines of the table."""
        return [
            Result("changes, written and followed", self.updates / self.seconds, "/s", failed=self.wrong),
            Result("memory of the process with two indexes", self.end.process, "MiB"),
            Result("what the second half added to it", self.growth.process, "MiB"),
            Result("memory of Redis", self.end.redis, "MiB"),
            Result("what the second half added to it", self.growth.redis, "MiB"),
        ]


async def endure(
    bundle: Path,
    catalogue: RedisCatalogue,
    client: Client,
    shop: Shop,
    articles: int,
    updates: int,
    told: Callable[[int], None],
) -> Endured:
    """``updates`` changes of a ``shop`` of ``articles``, in rounds; ``told`` hears of each how many it had.

    ``bundle``: the folder of one. The catalogue that ``client`` leads to is empty.
    """
    writer, other = (open_live(bundle, catalogue) for _ in range(2))
    intake = CatalogueIntake(catalogue, None, lambda: int(time.time()))
    for follower in (writer.follower, other.follower):
        await follower.load()
    for _ in range(0, articles, ROUND):
        await intake.put(shop.new(ROUND), writer.encoder, writer.follower)
    following = asyncio.create_task(other.follower.run())
    try:
        half_way = await read_memory(client)
        begun = time.perf_counter()
        for done in range(0, updates, ROUND):
            if done <= updates // 2 < done + ROUND:
                half_way = await read_memory(client)
            await intake.set_stock(shop.levels(ROUND - CHANGED - 2 * REPLACED), writer.follower)
            await intake.put(shop.changed(CHANGED), writer.encoder, writer.follower)
            for article_id in shop.gone(REPLACED):
                await intake.delete(article_id, writer.follower)
            await intake.put(shop.new(REPLACED), writer.encoder, writer.follower)
            told(ROUND)
        await _until(lambda: not wrong_in(other.follower, shop))
        seconds = time.perf_counter() - begun
        wrong = sum(len(wrong_in(each.follower, shop)) for each in (writer, other))
        known = len(other.index.known_ids())
        return Endured(updates, seconds, half_way, await read_memory(client), wrong, known)
    finally:
        await cancelled(following)


def wrong_in(follower: CatalogueFollower, shop: Shop) -> set[str]:
    """Articles that an index does not have as they should be."""
    index = follower.index
    held = {(article_id, index.in_stock(article_id)) for article_id in index.article_ids()}
    return {article_id for article_id, _ in held ^ set(shop.in_stock.items())}


async def read_memory(client: Client) -> Memory:
    """What is held at this moment."""
    call: Any = client.execute_command
    used = (await call("INFO", "memory"))["used_memory"]
    return Memory(_resident(), used / 2**20, await call("XLEN", CHANGES))


def _resident() -> float:
    """MiB of this process's memory (VmRSS)."""
    status = Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 2**10


async def _until(true: Callable[[], bool]) -> None:
    """Wait for something to become true, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < deadline:  # noqa: ASYNC110 - others make it true
        await asyncio.sleep(0.02)


@dataclass
class Served:
    """What services did under changes. ``shown``: seconds from each acknowledgement until all of them showed it.

    ``repeated``: calls that were answered with 503, and made again. ``wrong``: services that do not hold the stock that
    they should.
    """

    asked: Measured
    levels: int = 0
    seconds: float = 0.0
    repeated: int = 0
    failed: list[str] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    wrong: int = 0

    @property
    def results(self) -> list[Result]:
        """As lines of the table."""
        asked, p50, p90, p99 = self.asked, *(float(np.percentile(self.shown, share)) for share in (50, 90, 99))
        name = f"GET beside them, {SERVICES} services"
        return [
            Result(
                f"stock levels applied ({self.repeated} calls made twice)",
                self.levels / self.seconds,
                "/s",
                failed=len(self.failed) + self.wrong,
            ),
            Result("acknowledged → shown by all services", len(self.shown), "", 1e3 * p50, 1e3 * p90, 1e3 * p99),
            Result(name, asked.per_second * SERVICES, "/s", asked.p50, asked.p90, asked.p99, asked.failed),
        ]


@asynccontextmanager
async def clients(ports: Iterable[int]) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each service."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30))
            for port in ports
        ]


async def serve(ports: Sequence[int], shop: Shop, paths: Sequence[str], seconds: float) -> Served:
    """Set stock by all services in turn for ``seconds``, while each is asked for ``paths``.

    The catalogue holds ``shop``, and what nobody changes meanwhile; all services know that.
    """
    async with clients(ports) as services:
        others = await _in_stock(services[0]) - sum(shop.in_stock.values())
        await _put(services[0], [PROBE])
        asking = [
            asyncio.create_task(measure(Load(port, tuple(map(get, paths)), 4, seconds, rate=ASKED))) for port in ports
        ]
        served = Served(Measured(0.0, []))
        probing = asyncio.create_task(_probe(services, served))
        begun = time.perf_counter()
        await _set_stock(services, shop, seconds, served)
        served.seconds = time.perf_counter() - begun
        served.asked = together(await asyncio.gather(*asking))
        await cancelled(probing)
        if not served.shown:
            served.failed.append("no change was ever shown by all")
        assert (await services[0].delete(f"/v1/articles/{PROBE['article_id']}")).status_code == 204
        expected = others + sum(shop.in_stock.values())
        deadline = time.monotonic() + PATIENCE
        for service in services:
            while await _in_stock(service) != expected:
                if time.monotonic() > deadline:
                    served.wrong += 1
                    break
                await asyncio.sleep(0.05)
    return served


async def _put(service: httpx.AsyncClient, articles: list[dict[str, Any]]) -> None:
    answer = await service.put("/v1/articles", json=articles)
    assert answer.json() == {"accepted": len(articles), "rejected": []}, answer.text


async def _set_stock(services: Sequence[httpx.AsyncClient], shop: Shop, seconds: float, served: Served) -> None:
    """Calls when they are due, however long others take: what comes earlier may be answered later."""
    begun, count = time.monotonic(), round(seconds * RATE / PER_CALL)
    async with asyncio.TaskGroup() as calls:
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number * PER_CALL / RATE - time.monotonic()))
            calls.create_task(_set_levels(services[number % len(services)], shop.levels(PER_CALL), served))
    served.levels = count * PER_CALL


async def _set_levels(service: httpx.AsyncClient, levels: list[dict[str, Any]], served: Served) -> None:
    """Until they are acknowledged: a Redis that is slow for once is answered with 503, and asked again."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = await service.patch("/v1/stock", json=levels)
        if answer.status_code == 200 and answer.json()["accepted"] == len(levels):
            return
        if answer.status_code != 503:
            break
        served.repeated += 1
        await asyncio.sleep(0.1)
    served.failed.append(answer.text)


async def _probe(services: Sequence[httpx.AsyncClient], served: Served) -> None:
    """Let an article sell out and come in again, and look when each service shows that."""
    number, article_id = 0, PROBE["article_id"]
    while True:
        in_stock = bool(number % 2)
        level = {"article_id": article_id, "quantity": int(in_stock)}
        await _set_levels(services[number % len(services)], [level], served)
        acknowledged = time.perf_counter()
        await asyncio.gather(*(_until_shown(service, in_stock) for service in services))
        served.shown.append(time.perf_counter() - acknowledged)
        number += 1
        await asyncio.sleep(random.uniform(0.02, 0.1))


async def _until_shown(service: httpx.AsyncClient, in_stock: bool) -> None:
    query = {"strategy": "trending", "category": PROBE["category"], "n": "1"}
    while True:
        answer = await service.get("/v1/customers/nobody/recommendations", params=query)
        if bool(answer.json()["articles"]) == in_stock:
            return
        await asyncio.sleep(0.01)


async def _in_stock(service: httpx.AsyncClient) -> int:
    page = (await service.get("/metrics")).text
    found = re.search(r'^modiste_index_articles\{stock="in"\} (\S+)', page, re.MULTILINE)
    return -1 if found is None else int(float(found[1]))


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
                    await _put(service, shop.new(ROUND))
                bought = random.Random(3).choices(list(shop.in_stock), k=5 * len(customers))
                events = [
                    {"type": "purchase", "customer_id": customers[number % len(customers)], "article_id": article_id}
                    for number, article_id in enumerate(bought)
                ]
                assert (await service.post("/v1/events", json=events)).json()["accepted"] == len(events)
            async with clients(ports) as services:
                for service in services:
                    while await _in_stock(service) != len(shop.in_stock):  # noqa: ASYNC110 - it looks from outside
                        await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLED)
            paths = [f"/v1/customers/{name}/recommendations?strategy={how}" for name in customers for how in HOW]
            return await serve(ports, shop, paths, seconds)

        return uvloop.run(fill_and_serve())


if __name__ == "__main__":
    sys.exit(main())
