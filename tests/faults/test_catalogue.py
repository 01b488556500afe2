"""Four services with ports of their own over one Redis: each shows what any of them was told, soon and for good."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from bundles import CUTOFF, make_bundle
from faults.valkeys import KillableValkey
from house.serving import Service, serving
from redis_server import running_server
from service_running import catalogue

from loadtests.changing_shop import ROUND, Shop
from loadtests.endured import endure
from loadtests.shown import clients, serve
from service.catalogue.redis_store import CHANGES, GRAVEYARD, UNHELD, RedisCatalogue
from service.generation.records import StoredGeneration, view_mark
from service.state.connection import connect
from service.state.redis_store import RedisStore

pytestmark = pytest.mark.faults

BOUND = 1.0  # seconds in which all show what one has acknowledged
TRIALS = 5
ARTICLES = 60
BOUGHT = [
    {"type": "purchase", "customer_id": "Ada", "article_id": f"a{number:03}", "timestamp": CUTOFF - number * 86_400}
    for number in range(3)
]
ASKED = [
    *(
        f"/v1/customers/Ada/recommendations?n=200&strategy={how}"
        for how in ("style", "trending", "generated", "blended")
    ),
    "/v1/customers/nobody/recommendations?n=200",
    "/v1/customers/Ada/recommendations?n=200&strategy=style&gender=women&gender=men&gender=unisex",
    "/v1/articles/a003/similar?n=200",
    "/v1/search?q=Birch+red+dress&n=200",
]


@dataclass
class Fleet:
    """Services over one Redis, with sixty articles, and a customer for whom something was generated."""

    valkey: KillableValkey
    store: Path
    services: list[Service]

    @property
    def ports(self) -> list[int]:
        return [int(service.url.rpartition(":")[2]) for service in self.services]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    make_bundle(folder / "store", generating=True)
    with KillableValkey(folder / "redis") as valkey, ExitStack() as stack, ThreadPoolExecutor(4) as pool:

        def start(number: int) -> Service:
            return stack.enter_context(serving(folder, folder / "store", redis_url=valkey.url, llm_url="off"))

        fleet = Fleet(valkey, folder / "store", list(pool.map(start, range(4))))
        assert fleet.services[0].call("/v1/articles", catalogue(ARTICLES), "PUT")[1]["rejected"] == []
        assert fleet.services[0].call("/v1/events", BOUGHT)[1]["accepted"] == len(BOUGHT)
        asyncio.run(_generate(valkey.url, "a007"))
        yield fleet


async def _generate(url: str, article_id: str) -> None:
    """What a generator would store for Ada."""
    client = connect(url, timeout=10)
    try:
        customers = RedisStore(client)
        view = await customers.read("Ada")
        assert view.state is not None
        generation = StoredGeneration(
            view.state.bundle, view_mark(view, None), 3, article_id, "Birch red dress", 1.0, 0.1
        )
        assert await customers.put_generation("Ada", generation)
    finally:
        await client.aclose()


async def _until(true: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.01)


async def _answers(http: httpx2.AsyncClient) -> list[Any]:
    answers = [await http.get(path) for path in ASKED]
    assert [answer.status_code for answer in answers] == [200] * len(ASKED), [answer.text for answer in answers]
    return [answer.json() for answer in answers]


def _listed(answer: Any) -> set[str]:
    return {article["article_id"] for article in answer["articles"]}


async def _all_equal(services: list[httpx2.AsyncClient]) -> bool:
    first, *others = [await _answers(http) for http in services]
    return all(each == first for each in others)


def test_all_services_show_every_kind_of_change_within_a_second(fleet: Fleet) -> None:
    path = "/v1/customers/nobody/recommendations?n=200&category=probe"

    async def shown(http: httpx2.AsyncClient) -> list[tuple[str, str]]:
        return [(article["article_id"], article["title"]) for article in (await http.get(path)).json()["articles"]]

    async def change() -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {"new": [], "changed": [], "sold out": [], "in stock": [], "deleted": []}
        async with clients(fleet.ports) as services:
            for trial in range(TRIALS):
                article = {"article_id": f"probe-{trial}", "title": "New", "category": "probe"}
                there = [(article["article_id"], "New")]
                later = [(article["article_id"], "Changed")]
                level = {"article_id": article["article_id"]}
                for kind, method, url, body, expected in (
                    ("new", "PUT", "/v1/articles", [article], there),
                    ("changed", "PUT", "/v1/articles", [article | {"title": "Changed"}], later),
                    ("sold out", "PATCH", "/v1/stock", [level | {"quantity": 0}], []),
                    ("in stock", "PATCH", "/v1/stock", [level | {"quantity": 3}], later),
                    ("deleted", "DELETE", f"/v1/articles/{article['article_id']}", None, []),
                ):
                    writer = services[(trial + len(seconds[kind])) % len(services)]
                    answer = await writer.request(method, url, json=body)
                    assert answer.status_code in {200, 204}, answer.text
                    acknowledged = time.monotonic()
                    assert await shown(writer) == expected, kind

                    async def all_show(expected: list[tuple[str, str]] = expected) -> bool:
                        return all([await shown(http) == expected for http in services])

                    await _until(all_show)
                    seconds[kind].append(time.monotonic() - acknowledged)
        return seconds

    seconds = asyncio.run(change())
    print({kind: f"median {statistics.median(each):.3f}, most {max(each):.3f} s" for kind, each in seconds.items()})
    assert all(statistics.median(each) < BOUND for each in seconds.values()), seconds


def test_what_one_service_was_given_can_be_spoken_of_at_every_other_at_once(fleet: Fleet) -> None:
    """Whoever puts an article and then tells of it may reach another worker each time."""
    one, *others = fleet.services
    for number in range(30):
        other, third = (others[(number + step) % len(others)] for step in range(2))
        article = {"article_id": f"just-{number}", "title": f"Just {number}", "category": "dress"}
        event = {"type": "click", "customer_id": "Bea", "article_id": article["article_id"]}
        assert one.call("/v1/articles", [article], "PUT")[1]["rejected"] == []
        assert other.call("/v1/events", [event])[1] == {"accepted": 1, "duplicates": 0, "rejected": []}
        assert third.call(f"/v1/articles/{article['article_id']}/similar")[0] == 200
        assert one.call(f"/v1/articles/{article['article_id']}", method="DELETE")[0] == 204
    assert others[0].call("/v1/events", [{**event, "article_id": "never-put"}])[1]["accepted"] == 0


def test_a_deleted_article_leaves_every_answer(fleet: Fleet) -> None:
    async def delete(article_id: str, number: int) -> None:
        async with clients(fleet.ports) as services:
            await _until(lambda: _all_equal(services))
            before = await _answers(services[0])
            assert sum(article_id in _listed(answer) for answer in before) >= len(ASKED) - 2  # not what it is like
            writer, later = services[number], []
            deleted = asyncio.Event()

            async def ask() -> None:
                while len(later) < 3:
                    after = deleted.is_set()
                    answers = await _answers(writer)
                    if after:
                        later.append(answers)

            asking = [asyncio.create_task(ask()) for _ in range(3)]
            assert (await writer.delete(f"/v1/articles/{article_id}")).status_code == 204
            deleted.set()
            begun = time.monotonic()
            assert not any(article_id in _listed(answer) for answer in await _answers(writer))
            await asyncio.gather(*asking)
            assert not any(article_id in _listed(answer) for answers in later for answer in answers)
            await asyncio.sleep(max(0.0, BOUND - (time.monotonic() - begun)))
            for http in services:
                assert not any(article_id in _listed(answer) for answer in await _answers(http))
                assert (await http.get(f"/v1/articles/{article_id}/similar")).status_code == 404

    for number, article_id in enumerate(("a007", "a011", "a031", "a044")):  # the first is what was generated
        asyncio.run(delete(article_id, number))


def test_who_starts_late_and_who_fell_behind_end_with_what_the_others_have(fleet: Fleet, tmp_path: Path) -> None:
    stopped = fleet.services[3]
    (worker,) = stopped.children_named("service.worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        asyncio.run(_change_much(fleet))
        with fleet.valkey.client() as client:
            client.xtrim(CHANGES, maxlen=10, approximate=False)  # so far behind is who misses 100,000 changes
        with serving(tmp_path, fleet.store, redis_url=fleet.valkey.url, llm_url="off") as late:
            os.kill(worker, signal.SIGCONT)
            ports = [*fleet.ports, int(late.url.rpartition(":")[2])]
            asyncio.run(_check_all(ports))
    finally:
        os.kill(worker, signal.SIGCONT)
    assert "changes of the catalogue were missed: loading it again" in stopped.text


async def _change_much(fleet: Fleet) -> None:
    """Hundreds of changes by the services that run: the even articles sold out, ten new, a few gone."""
    rng = random.Random(5)
    async with clients(fleet.ports[:3]) as services:
        for number in range(12):
            now = int(time.time()) - 100 + number
            levels = [
                {"article_id": f"a{each:03}", "quantity": rng.randrange(2), "set_time": now} for each in range(ARTICLES)
            ]
            assert (await services[number % 3].patch("/v1/stock", json=levels)).status_code == 200
        levels = [{"article_id": f"a{each:03}", "quantity": each % 2, "set_time": now + 1} for each in range(ARTICLES)]
        await services[0].patch("/v1/stock", json=levels)
        new = [{"article_id": f"late-{number}", "title": "Late", "category": "dress"} for number in range(10)]
        assert (await services[1].put("/v1/articles", json=new)).json()["accepted"] == 10
        for article_id in ("a051", "a053", "late-0"):
            assert (await services[2].delete(f"/v1/articles/{article_id}")).status_code == 204


async def _check_all(ports: list[int]) -> None:
    async with clients(ports) as services:
        await _until(lambda: _all_equal(services))
        listed = {article_id for answer in await _answers(services[3]) for article_id in _listed(answer)}
        assert not any(int(article_id[1:]) % 2 == 0 for article_id in listed if article_id.startswith("a"))
        assert not listed & {"a051", "a053", "late-0"}
        assert {f"late-{number}" for number in range(1, 10)} < listed


def test_a_thousand_stock_levels_a_second_are_applied_while_customers_are_answered(fleet: Fleet) -> None:
    shop = Shop(random.Random(6))

    async def fill_and_serve() -> tuple[Any, list[set[str]]]:
        async with clients(fleet.ports) as services:
            assert (await services[0].put("/v1/articles", json=shop.new(1_000))).json()["accepted"] == 1_000
            await asyncio.sleep(BOUND)
            served = await serve(fleet.ports, shop, ASKED, seconds=8)
            return served, [await _in_stock(http) for http in services]

    served, in_stock = asyncio.run(fill_and_serve())
    shown = statistics.quantiles(served.shown, n=100)
    print(
        f"{served.levels} levels in {served.seconds:.1f} s, shown by all after {shown[49]:.3f} s (p99 {shown[98]:.3f})"
    )
    print(f"{len(served.asked.latencies)} answers in {served.asked.p50:.0f} ms (p99 {served.asked.p99:.0f})")
    assert served.failed == []
    assert served.asked.failed == 0
    assert (served.levels, served.wrong) == (8_000, 0)
    assert statistics.median(served.shown) < BOUND
    expected = {article_id for article_id, there in shop.in_stock.items() if there}
    assert all(each == expected for each in in_stock)


async def _in_stock(http: httpx2.AsyncClient) -> set[str]:
    """The shop's articles that a service shows, category by category."""
    paths = (f"/v1/customers/nobody/recommendations?n=200&category=category+{number}" for number in range(20))
    return {article_id for path in paths for article_id in _listed((await http.get(path)).json())}


async def test_neither_memory_nor_redis_grows_under_changes(tmp_path: Path) -> None:
    """The long run is ``python -m loadtests.updates``; here as little is kept as makes growth show soon."""
    make_bundle(tmp_path, generating=True)
    with running_server() as url:
        client = connect(url, timeout=10)
        try:
            store = RedisCatalogue(client, kept_changes=1_000, kept_unheld=100)
            endured = await endure(
                tmp_path / "test-1", store, client, Shop(random.Random(7)), ROUND, 20 * ROUND, lambda _: None
            )
            print(endured)
            assert endured.wrong == 0
            assert endured.growth.process < 16
            assert endured.growth.redis < 1
            assert endured.end.changes < 1_300
            assert endured.known == ROUND + 100
            with redis.Redis.from_url(url) as plain:
                assert plain.hlen(GRAVEYARD) == plain.zcard(UNHELD) == 100
                dna = next(iter(plain.scan_iter("modiste:{catalogue}:dna:*")))
                assert plain.hlen(dna) == ROUND + 100
        finally:
            await client.aclose()
