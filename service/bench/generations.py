"""What a language model costs answers: with nothing written, with something, and while it is of no use.

``blended`` is held against ``style`` in the same run: both get the same load, half and a quarter of the most that
``blended`` takes, in turns of half a second, so that whatever else the machine does meets all alike. Half is much: a
request that comes by itself costs about twice what each of many at once does, and how long one waits for others then
decides. What is compared are 99th percentiles over all turns. A machine that halts now and then moves them: so an
interval says within what the ratio lies for 95 in 100 samples of as many turns, drawn anew from those that were
(bootstrap; Efron 1979). Where a language model is there, customers click meanwhile, so that it is asked all the time.

What was generated is looked up in the titles once and kept (``service.engine.kept_lists``), by a process that has run
for a while. So every process is asked for everything once before it is measured; what the first time costs stands in
the line "first time".
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import orjson
from numpy.typing import NDArray

from service.bench import broken_models
from service.bench.load import Load, Measured, get, measure, measure_in_turns, one_by_one, post, together
from service.bench.results import Result
from service.bench.served import CONNECTIONS, result, serving
from service.bench.world import World, popularity
from service.engine.style import bundle_stamp
from service.generation.records import StoredGeneration
from service.state.connection import connect
from service.state.redis_store import RedisStore

SHOPPERS = 1_000
"""Customers with a generation of their own, who ask about four times each."""
REQUESTS = 4_000
TURN = 0.5  # seconds
ROUNDS = 8  # of all cases, for each second that other loads last
RESAMPLES = 1_000
LOADS = {"at half load": 1 / 2, "at a quarter": 1 / 4}  # of the most that blended takes
WARM_UP = 0.4  # seconds; every process was warm before
CLICKS = 20  # a second, while a language model is there

_STYLE, _BLENDED = "strategy=style", "strategy=blended"
_FAULTS: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "language model stopped": broken_models.stopped,
    f"language model takes {broken_models.SLOW:g} s": broken_models.slow,
    "language model writes rubbish": broken_models.writing_rubbish,
}


def measure_generations(world: World, redis_url: str, seconds: float) -> list[Result]:
    """Blended next to style, for 4 · ``seconds`` each and load, in every case; nothing without a generating half."""
    if world.bundle.manifest.generation is None:
        return []
    rng = random.Random(5)
    shoppers = rng.sample(world.customer_ids, min(SHOPPERS, len(world.customer_ids)))
    requests = _Requests(rng.choices(shoppers, k=REQUESTS), [article.article_id for article in world.articles], rng)
    results: list[Result] = []
    with serving(world.store, redis_url, workers=1) as (port, _):
        results += _compare(port, requests, "nothing generated", {"blended": _BLENDED}, seconds)
        asyncio.run(_write(world, redis_url, shoppers, rng))
        cases = {"blended": _BLENDED, "generated": "strategy=generated", "query": "query=article%20of%20brand%207"}
        results += _compare(port, requests, "generated", cases, seconds)
    for name, fault in _FAULTS.items():
        with fault() as url, serving(world.store, redis_url, 1, url) as (port, _):
            results += _compare(port, requests, name, {"blended": _BLENDED}, seconds, clicks=True)
    return results


class _Requests:
    """GETs of customers, and clicks of the same ones."""

    def __init__(self, customers: list[str], articles: list[str], rng: random.Random):
        self._customers = customers
        clicks = zip(customers, rng.choices(articles, k=len(customers)), strict=True)
        self.clicks = tuple(post("/v1/events", _click(customer, article)) for customer, article in clicks)

    def paths(self, query: str) -> list[str]:
        """One for each time that a customer asks."""
        return [f"/v1/customers/{customer}/recommendations?{query}" for customer in self._customers]


def _click(customer: str, article: str) -> bytes:
    return orjson.dumps({"type": "click", "customer_id": customer, "article_id": article})


def _compare(
    port: int, requests: _Requests, name: str, cases: Mapping[str, str], seconds: float, *, clicks: bool = False
) -> list[Result]:
    """Style and ``cases`` (name → query): each request once, then all in turns."""
    paths = {case: requests.paths(query) for case, query in {"style": _STYLE, **cases}.items()}
    first = {case: one_by_one(port, dict.fromkeys(of_case)) for case, of_case in paths.items()}
    by_case = {case: tuple(map(get, of_case)) for case, of_case in paths.items()}
    most = asyncio.run(measure(Load(port, by_case["blended"], CONNECTIONS, seconds)))
    results = [result(f"GET ({case}), {name}, first time, one by one", each) for case, each in first.items()]
    background = requests.clicks if clicks else ()
    for name_of_load, share in LOADS.items():
        rate = max(1.0, share * most.per_second)
        loads = [Load(port, gets, CONNECTIONS, TURN, WARM_UP, rate) for gets in by_case.values()]
        turns = asyncio.run(_under(loads, max(1, round(ROUNDS * seconds)), background))
        results += _compared(f"{name}, {name_of_load}", dict(zip(by_case, turns, strict=True)))
    return results


def _compared(name: str, turns: Mapping[str, Sequence[Measured]]) -> list[Result]:
    """Every case's figures, and its 99th percentile in ratio to that of style."""
    lines = [result(f"GET ({case}), {name}", together(of_case)) for case, of_case in turns.items()]
    for case in turns:
        if case != "style":
            line = f"p99 of {case} / of style, {name}"
            ratio, low, high = ratio_of_p99(turns[case], turns["style"])
            lines += [Result(line, ratio, "x"), Result(f"{line}, from", low, "x"), Result(f"{line}, to", high, "x")]
    return lines


def ratio_of_p99(of_case: Sequence[Measured], of_style: Sequence[Measured]) -> tuple[float, float, float]:
    """(99th percentile over all turns of the one / of the other, and the 95% interval of that: low, high).

    Turns that stood beside each other are drawn together, since a halt of the machine often meets both.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(of_case), size=(RESAMPLES, len(of_case)))
    ratios = [_p99(of_case, rows) / _p99(of_style, rows) for rows in drawn]
    low, high = np.percentile(ratios, [2.5, 97.5])
    every = np.arange(len(of_case))
    return _p99(of_case, every) / _p99(of_style, every), float(low), float(high)


def _p99(turns: Sequence[Measured], rows: NDArray[np.int64]) -> float:
    return float(np.percentile(np.concatenate([turns[row].latencies for row in rows]), 99))


async def _under(loads: Sequence[Load], rounds: int, clicks: tuple[str, ...]) -> list[list[Measured]]:
    """The loads in turns, while customers click."""
    if not clicks:
        return await measure_in_turns(loads, rounds)
    lasting = rounds * sum(load.seconds for load in loads)
    measured, beside = await asyncio.gather(
        measure_in_turns(loads, rounds), measure(Load(loads[0].port, clicks, 1, lasting, rate=float(CLICKS)))
    )
    if beside.failed:
        raise RuntimeError(f"clicks were not taken: {beside.statuses}")
    return measured


async def _write(world: World, redis_url: str, customer_ids: list[str], rng: random.Random) -> None:
    """What would have been written for customers before their latest event: what others bought, by popularity."""
    client = connect(redis_url)
    customers = RedisStore(client)
    bought = rng.choices(world.articles, popularity(len(world.articles)).tolist(), k=len(customer_ids))
    now, bundle = time.time(), bundle_stamp(world.bundle.manifest)
    try:
        for customer_id, article in zip(customer_ids, bought, strict=True):
            written = StoredGeneration(bundle, "before", 5, article.article_id, article.title, now, 0.1)
            await customers.put_generation(customer_id, written)
    finally:
        await client.aclose()
