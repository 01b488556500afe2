"""What a language model costs answers: with nothing written, with something, and while it is of no use.

``blended`` is held against ``style`` in the same run: both get the same load, half and a quarter of the most that
``blended`` takes, in short turns, so that whatever else the machine does meets all alike. Half is much: a request that
comes by itself costs about twice what each of many at once does, and how long one waits for others then decides. What
is compared are 99th percentiles: over all turns, where one halt of the machine can decide, and turn by turn, of which
the median is told. Where a language model is there, customers click meanwhile, so that it is asked all the time.

What was generated is looked up in the titles once and kept (``service.engine.kept_lists``), by a process that has run
for a while. So every process is asked for everything once before it is measured; what the first time costs stands in
the line "first time".
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import orjson

from service.bench import broken_models
from service.bench.load import Load, Measured, get, measure, one_by_one, post, together
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
TURNS = 16
TURN = 1 / 8  # of the seconds that other loads last
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
    """Blended next to style, for twice ``seconds`` each and load, in every case; nothing without a generating half."""
    if world.bundle.manifest.generation is None:
        return []
    rng = random.Random(5)
    shoppers = rng.sample(world.customer_ids, min(SHOPPERS, len(world.customer_ids)))
    requests = _Requests(rng.choices(shoppers, k=REQUESTS), [article.article_id for article in world.articles], rng)
    results: list[Result] = []
    with serving(world, redis_url, workers=1) as (port, _):
        results += _compare(port, requests, "nothing generated", {"blended": _BLENDED}, seconds)
        asyncio.run(_write(world, redis_url, shoppers, rng))
        cases = {"blended": _BLENDED, "generated": "strategy=generated", "query": "query=article%20of%20brand%207"}
        results += _compare(port, requests, "generated", cases, seconds)
    for name, fault in _FAULTS.items():
        with fault() as url, serving(world, redis_url, 1, url) as (port, _):
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
    for load, share in LOADS.items():
        turns = _in_turns(port, by_case, seconds * TURN, max(1.0, share * most.per_second), background)
        results += _compared(f"{name}, {load}", turns)
    return results


def _in_turns(
    port: int, by_case: Mapping[str, tuple[str, ...]], seconds: float, rate: float, background: tuple[str, ...]
) -> dict[str, list[Measured]]:
    """Every case in each turn, at the same rate, in one order and the other."""
    turns: dict[str, list[Measured]] = {case: [] for case in by_case}
    for turn in range(TURNS):
        for case, gets in sorted(by_case.items(), reverse=bool(turn % 2)):
            load = Load(port, gets, CONNECTIONS, seconds, WARM_UP, rate)
            turns[case].append(asyncio.run(_under(load, background)))
    return turns


def _compared(name: str, turns: Mapping[str, Sequence[Measured]]) -> list[Result]:
    """Every case's figures, and its 99th percentile in ratio to that of style."""
    measured = {case: together(of_case) for case, of_case in turns.items()}
    others = [case for case in turns if case != "style"]
    return [
        *(result(f"GET ({case}), {name}", each) for case, each in measured.items()),
        *(
            Result(f"p99 of {case} / of style, {name}", measured[case].p99 / measured["style"].p99, "x")
            for case in others
        ),
        *(
            Result(f"p99 of {case} / of style, {name}, median of turns", _by_turn(turns[case], turns["style"]), "x")
            for case in others
        ),
    ]


def _by_turn(of_case: Sequence[Measured], of_style: Sequence[Measured]) -> float:
    """The median of the ratios of neighbouring turns."""
    return statistics.median(case.p99 / style.p99 for case, style in zip(of_case, of_style, strict=True))


async def _under(load: Load, clicks: tuple[str, ...]) -> Measured:
    """The load, while customers click."""
    if not clicks:
        return await measure(load)
    measured, beside = await asyncio.gather(
        measure(load), measure(Load(load.port, clicks, 1, load.seconds, rate=float(CLICKS)))
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
