"""What customers and articles take: bytes in Redis, and of a worker's memory.

Each figure is a slope: the same is filled twice, once half as large, and the difference is shared out. So what is there
anyway (the server, a worker's models) does not count, and a hash table's spare room counts on average. Customers have
histories of 10 purchases on average; 1 and 20 million of them are extrapolated, not filled.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from model_store.bundle import Bundle
from model_store.dataset import DataSet
from model_store.records import Event, EventType
from service.backfill import fill_catalogue, fill_customers
from service.bench.load import one_by_one
from service.bench.results import Result
from service.bench.served import memory_of, serving, workers_of
from service.bench.world import World, make_world
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.redis_store import RedisCatalogue
from service.embedded import EmbeddedRedis
from service.engine.style import StyleModel, bundle_stamp
from service.engine.trending import DAY
from service.events import Sale, new_event_id
from service.generation.records import StoredGeneration, session_mark
from service.state.connection import Client, connect
from service.state.customer import Addition
from service.state.redis_store import RedisStore
from service.trend_store import MemoryTrendStore, RedisTrendStore

CLICKS = 10
"""Session events of each customer; a session holds up to ``SESSION_LENGTH``."""
ASKED = 200  # customers who ask a worker before its memory is read, so that all that answers need is there
FORESEEN = (1_000_000, 20_000_000)  # customers
_AT_ONCE = 1_000  # customers


@dataclass(frozen=True)
class _Used:
    """Bytes that Redis holds when it is empty and after each thing that it is filled with, in this order.

    ``days``: pairs of article and day that the trend holds.
    """

    nothing: int
    articles: int
    histories: int
    sessions: int
    generations: int
    trend: int
    days: int


@dataclass(frozen=True)
class _Filled:
    """One world in a Redis, and a worker over it: its memory that is resident, and the most that ever was, in bytes."""

    articles: int
    customers: int
    redis: _Used
    resident: float
    peak: float


def measure_memory(live: Bundle, world: World, folder: Path) -> list[Result]:
    """Bytes per article, customer, session event and generation, and what follows for many customers.

    ``folder`` is for another world around ``live``, half as large.
    """
    small = make_world(live, folder, len(world.articles) // 2, len(world.customer_ids) // 2, int(time.time()))
    half, whole = (_fill(each, folder / f"redis-{len(each.articles)}") for each in (small, world))
    return [*_of_articles(half, whole), *_of_customers(half, whole)]


def _of_articles(half: _Filled, whole: _Filled) -> list[Result]:
    more = whole.articles - half.articles
    in_redis = (whole.redis.articles - half.redis.articles) / more
    in_worker = (whole.resident - half.resident) / more
    return [
        Result("Redis, empty", whole.redis.nothing / 2**20, "MiB"),
        Result("Redis, per article", in_redis, "B"),
        Result("worker, per article", in_worker, "B"),
        Result("worker, without articles", (whole.resident - in_worker * whole.articles) / 2**20, "MiB"),
        Result(f"worker, {whole.articles:,} articles", whole.resident / 2**20, "MiB"),
        Result(f"worker, {whole.articles:,} articles, at most", whole.peak / 2**20, "MiB"),
    ]


def _of_customers(half: _Filled, whole: _Filled) -> list[Result]:
    more, new, old = whole.customers - half.customers, whole.redis, half.redis
    history = ((new.histories - new.articles) - (old.histories - old.articles)) / more
    session = ((new.sessions - new.histories) - (old.sessions - old.histories)) / more
    generation = ((new.generations - new.sessions) - (old.generations - old.sessions)) / more
    results = [
        Result("Redis, per customer: history of 10 purchases on average, and state", history, "B"),
        Result(f"Redis, per customer: session of {CLICKS} clicks", session, "B"),
        Result("Redis, per customer: generation", generation, "B"),
        Result("Redis, per article and day that sold it", (new.trend - new.generations) / new.days, "B"),
    ]
    for count in FORESEEN:
        alone, active = (count * each / 2**30 for each in (history, history + session + generation))
        results.append(Result(f"Redis, {count:,} customers, extrapolated: histories and states", alone, "GiB"))
        results.append(Result(f"Redis, {count:,} customers, extrapolated: session and generation too", active, "GiB"))
    return results


def _fill(world: World, folder: Path) -> _Filled:
    """Fill a Redis of its own step by step, then start a worker over it."""
    with EmbeddedRedis(folder) as server:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            used = runner.run(_used(world, server.url))
        with serving(world.store, server.url, workers=1) as (port, launcher):
            one_by_one(port, [f"/v1/customers/{name}/recommendations" for name in world.customer_ids[:ASKED]])
            (worker,) = workers_of(launcher)
            resident, peak = (memory_of(worker, kind) * 2**20 for kind in ("VmRSS", "VmHWM"))
    return _Filled(len(world.articles), len(world.customer_ids), used, resident, peak)


async def _used(world: World, url: str) -> _Used:
    client = connect(url, timeout=30.0)
    try:
        used = {"nothing": await _in_use(client)}
        data, customers = DataSet.open(world.data), RedisStore(client)
        catalogue = RedisCatalogue(client)
        filled = await fill_catalogue(data, catalogue, CatalogueEncoder(world.bundle), _ignore)
        used["articles"] = await _in_use(client)
        model = StyleModel.of_bundle(world.bundle, filled.dna.get)
        await fill_customers(data, customers, catalogue, MemoryTrendStore(), model, _ignore)
        used["histories"] = await _in_use(client)
        for start in range(0, len(world.customer_ids), _AT_ONCE):
            some = world.customer_ids[start : start + _AT_ONCE]
            await customers.append_many([Addition(customer, _clicks(world, customer)) for customer in some])
        used["sessions"] = await _in_use(client)
        await _write(world, customers)
        used["generations"] = await _in_use(client)
        sales = _sales(data)
        await RedisTrendStore(client).add(sales)
        used["trend"] = await _in_use(client)
    finally:
        await client.aclose()
    return _Used(**used, days=len({(sale.article_id, sale.timestamp // DAY) for sale in sales}))


def _clicks(world: World, customer: str) -> tuple[Event, ...]:
    """As many as ``CLICKS``, with ids of the length that events get which come without one."""
    chosen = random.Random(customer).choices(world.articles, k=CLICKS)
    now = int(time.time())
    return tuple(
        Event(
            event_id=new_event_id(),
            type=EventType.CLICK,
            customer_id=customer,
            article_id=article.article_id,
            timestamp=now + number,
        )
        for number, article in enumerate(chosen)
    )


async def _write(world: World, customers: RedisStore) -> None:
    """A generation for each customer."""
    now, bundle = time.time(), bundle_stamp(world.bundle.manifest)
    for number, customer in enumerate(world.customer_ids):
        article = world.articles[number % len(world.articles)]
        written = StoredGeneration(bundle, session_mark(None, ()), CLICKS, article.article_id, article.title, now, 0.1)
        await customers.put_generation(customer, written)


def _sales(data: DataSet) -> list[Sale]:
    bought = data.purchases()
    rows = zip(bought.article.tolist(), bought.timestamp.tolist(), strict=True)
    return [Sale(data.article_ids[article], second, 1) for article, second in rows]


async def _in_use(client: Client) -> int:
    """Bytes that Redis has given out, but for what comes and goes: the buffers of connections and of its log."""
    assert isinstance(client, Redis)
    await client.connection_pool.disconnect()  # a new connection's buffers are small, and always as small
    memory = await client.info("memory")
    return int(memory["used_memory"] - memory["mem_aof_buffer"])


def _ignore(count: int) -> None:
    """Progress that nobody watches."""
