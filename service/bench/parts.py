"""Parts of a request by themselves, in this process, one thread, next to the plain way of doing the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import redis
import uvloop

from model_store.article_table import load_articles
from model_store.bundle import STYLE_LSTM
from model_store.dataset import DataSet
from model_store.generation import load_ids, load_titles
from model_store.graphs import Memory, StyleLstm
from service.backfill import fill_catalogue, fill_customers
from service.bench.results import Result
from service.bench.timing import timings
from service.bench.world import World
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.redis_store import RedisCatalogue
from service.engine.filters import EVERYTHING
from service.engine.ids import IdSpace
from service.engine.index import ArticleIndex
from service.engine.mixup import Intent, Mixup
from service.engine.style import StyleModel
from service.state.connection import connect
from service.state.redis_store import RedisStore
from service.trend_store import RedisTrendStore


def measure_mixup(world: World, count: int) -> list[Result]:
    """Retrieval with mixup for generations that are met for the first time, and for the same ones again."""
    half = world.bundle.manifest.generation
    if half is None:
        return []
    names, _, _ = load_articles(world.bundle)
    ids, titles = IdSpace(load_ids(world.bundle.folder, names)), load_titles(world.bundle.folder, len(names))
    index = ArticleIndex(titles=True, place_of=ids.place_of)
    own = titles[-len(world.articles) :]
    index.upsert_many(world.articles, world.dna, [True] * len(world.articles), own)
    mixup = Mixup(ids, half.mixup)
    chosen = np.random.default_rng(1).permutation(len(own))

    def make(number: int) -> object:
        row = int(chosen[number % min(1_024, len(own))])
        return mixup.make(index, Intent(own[row], world.articles[row].article_id), EVERYTHING)

    first = timings(make, min(count, 1_000))
    return [
        Result.of_times(f"mixup list, {len(own):,} articles, first time", first),
        Result.of_times("mixup list, again", timings(make, min(count, 1_000))),
    ]


def measure_lstm(world: World, count: int) -> list[Result]:
    """One step of the style LSTM, for one customer and for 64 at once."""
    graph = StyleLstm(world.bundle.path(STYLE_LSTM))
    size = world.bundle.manifest.time_spec.step_size
    rng = np.random.default_rng(2)

    def step(batch: int) -> Callable[[int], object]:
        inputs = rng.standard_normal((batch, size), dtype=np.float32)
        memory = Memory.zeros(batch)
        return lambda _: graph.step(inputs, memory)

    return [
        Result.of_times("LSTM step, 1 customer", timings(step(1), count)),
        Result.of_times("LSTM step, 64 customers", timings(step(64), count // 4)),
    ]


def measure_backfill(world: World, url: str) -> list[Result]:
    """The whole data set into Redis, as ``modiste backfill`` does it: articles a second, then events a second."""
    data = DataSet.open(world.data)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_backfill(world, data, url))


async def _backfill(world: World, data: DataSet, url: str) -> list[Result]:
    client = connect(url, timeout=30.0)
    try:
        begun = time.perf_counter()
        catalogue = RedisCatalogue(client)
        filled = await fill_catalogue(data, catalogue, CatalogueEncoder(world.bundle), _ignore)
        between = time.perf_counter()
        model = StyleModel.of_bundle(world.bundle, filled.dna.get)
        events = await fill_customers(data, RedisStore(client), catalogue, RedisTrendStore(client), model, _ignore)
        ended = time.perf_counter()
    finally:
        await client.aclose()
    return [
        Result("backfill, articles of known Fashion DNA", len(data.article_ids) / (between - begun), "/s"),
        Result("backfill, purchases", events.read / (ended - between), "/s"),
    ]


def _ignore(count: int) -> None:
    """Progress that nobody watches."""


def measure_redis(url: str, count: int) -> Result:
    """The yardstick for state: one GET of 2 KB over the socket, one caller."""
    with redis.Redis.from_url(url) as client:
        client.set("modiste-bench", b"x" * 2_200)
        taken = timings(lambda _: client.get("modiste-bench"), count)
        client.delete("modiste-bench")
    return Result.of_times("yardstick: one Redis GET of 2.2 KB", taken)
