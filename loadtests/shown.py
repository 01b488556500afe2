"""When services with ports of their own show what one has acknowledged, under changes and while customers ask."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np

from loadtests.changing_shop import Shop
from service.bench.load import Load, Measured, get, measure, together
from service.bench.results import Result
from service.cancelling import cancelled

PER_CALL, RATE = 100, 1_000  # stock levels of one call, and of one second
ASKED = 25.0  # requests a second to each service
PATIENCE = 60.0  # seconds until all that was written must be everywhere
PROBE = {"article_id": "probe", "title": "Probe", "category": "probe"}


@dataclass
class Served:
    """What services did under changes. ``shown``: seconds from each acknowledgement until all of them showed it.

    ``repeated``: calls that were answered with 503, and made again. ``wrong``: services that do not hold the stock that
    they should.
    """

    services: int
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
        name = f"GET beside them, {self.services} services"
        return [
            Result(
                f"stock levels applied ({self.repeated} calls made twice)",
                self.levels / self.seconds,
                "/s",
                failed=len(self.failed) + self.wrong,
            ),
            Result("acknowledged → shown by all services", len(self.shown), "", 1e3 * p50, 1e3 * p90, 1e3 * p99),
            Result(name, asked.per_second * self.services, "/s", asked.p50, asked.p90, asked.p99, asked.failed),
        ]


@asynccontextmanager
async def clients(ports: Iterable[int]) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """A client of each service."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30))
            for port in ports
        ]


async def serve(ports: Sequence[int], shop: Shop, paths: Sequence[str], seconds: float) -> Served:
    """Set stock by all services in turn for ``seconds``, while each is asked for ``paths``.

    The catalogue holds ``shop``, and what nobody changes meanwhile; all services know that.
    """
    async with clients(ports) as services:
        others = await in_stock(services[0]) - sum(shop.in_stock.values())
        await put(services[0], [PROBE])
        asking = [
            asyncio.create_task(measure(Load(port, tuple(map(get, paths)), 4, seconds, rate=ASKED))) for port in ports
        ]
        served = Served(len(ports), Measured(0.0, []))
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
            while await in_stock(service) != expected:
                if time.monotonic() > deadline:
                    served.wrong += 1
                    break
                await asyncio.sleep(0.05)
    return served


async def put(service: httpx2.AsyncClient, articles: list[dict[str, Any]]) -> None:
    """Have a service take articles, all of which are sound."""
    answer = await service.put("/v1/articles", json=articles)
    assert answer.json() == {"accepted": len(articles), "rejected": []}, answer.text


async def _set_stock(services: Sequence[httpx2.AsyncClient], shop: Shop, seconds: float, served: Served) -> None:
    """Calls when they are due, however long others take: what comes earlier may be answered later."""
    begun, count = time.monotonic(), round(seconds * RATE / PER_CALL)
    async with asyncio.TaskGroup() as calls:
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number * PER_CALL / RATE - time.monotonic()))
            calls.create_task(_set_levels(services[number % len(services)], shop.levels(PER_CALL), served))
    served.levels = count * PER_CALL


async def _set_levels(service: httpx2.AsyncClient, levels: list[dict[str, Any]], served: Served) -> None:
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


async def _probe(services: Sequence[httpx2.AsyncClient], served: Served) -> None:
    """Let an article sell out and come in again, and look when each service shows that."""
    number, article_id = 0, PROBE["article_id"]
    while True:
        wanted = bool(number % 2)
        level = {"article_id": article_id, "quantity": int(wanted)}
        await _set_levels(services[number % len(services)], [level], served)
        acknowledged = time.perf_counter()
        await asyncio.gather(*(_until_shown(service, wanted) for service in services))
        served.shown.append(time.perf_counter() - acknowledged)
        number += 1
        await asyncio.sleep(random.uniform(0.02, 0.1))


async def _until_shown(service: httpx2.AsyncClient, wanted: bool) -> None:
    query = {"strategy": "trending", "category": PROBE["category"], "n": "1"}
    while True:
        answer = await service.get("/v1/customers/nobody/recommendations", params=query)
        if bool(answer.json()["articles"]) == wanted:
            return
        await asyncio.sleep(0.01)


async def in_stock(service: httpx2.AsyncClient) -> int:
    """How many articles a service has in stock, -1 while it does not say."""
    page = (await service.get("/metrics")).text
    found = re.search(r'^modiste_index_articles\{stock="in"\} (\S+)', page, re.MULTILINE)
    return -1 if found is None else int(float(found[1]))
