"""``modiste bench``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from model_store.bundle import Bundle, current_version, open_bundle
from model_store.errors import InvalidConfig
from model_store.machine import hardware
from service.bench import generations, memory, parts, scale, search, served, stages
from service.bench.results import Result, table, write_json
from service.bench.world import World, make_world
from service.embedded import EmbeddedRedis
from service.settings import Settings

HELP = (
    "Measure the service on this machine: requests over real sockets, search, LSTM steps, backfill, memory, next to "
    "yardsticks from the same run. Needs a live bundle for its graphs; catalogue and customers are made up."
)
_SECTIONS = ("parts", "stages", "http", "generations", "memory", "scale")
_QUICK_ARTICLES, _QUICK_CUSTOMERS = 20_000, 2_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the figures, machine and versions here")
    parser.add_argument("--articles", type=_count, metavar="N", help="articles in stock (190000; quick: 20000)")
    parser.add_argument("--customers", type=_count, metavar="N", help="customers with histories (20000; quick: 2000)")
    parser.add_argument("--seconds", type=_count, metavar="N", help="length of each load (8; quick: 2)")
    parser.add_argument(
        "--only",
        choices=_SECTIONS,
        help="measure one section alone (what it needs is made all the same). 'scale', the stages at many sizes of the "
        "shop, takes three quarters of an hour and is measured only when it is asked for",
    )
    parser.add_argument("--quick", action="store_true", help="a look of half a minute instead of a measurement")


def main(options: argparse.Namespace) -> None:
    """Measure everything, print the table, write the JSON."""
    store = Settings.from_environment(os.environ).store
    version = current_version(store)
    if version is None:
        raise InvalidConfig(f"{store} has no live bundle to measure with; 'make serve' makes one")
    articles = options.articles or (_QUICK_ARTICLES if options.quick else 190_000)
    customers = options.customers or (_QUICK_CUSTOMERS if options.quick else 20_000)
    seconds = options.seconds or (2 if options.quick else 8)
    if options.only == "scale":
        _measure_scale(open_bundle(store / version), options)
        return
    with tempfile.TemporaryDirectory(prefix="modiste-bench-") as folder:
        _say(f"making a shop of {articles:,} articles and {customers:,} customers")
        world = make_world(open_bundle(store / version), Path(folder), articles, customers, int(time.time()))
        with EmbeddedRedis(Path(folder) / "redis") as server:
            results = _measure(world, server.url, float(seconds), options.only, quick=options.quick)
        if options.only == "memory" or (options.only is None and not options.quick):
            _say("memory of articles and customers, each at half of their number and at all")
            results += memory.measure_memory(open_bundle(store / version), world, Path(folder) / "half")
    conditions = {"articles": articles, "customers": customers, "purchases": world.purchases, "seconds": seconds}
    _show(results, options.out, conditions | {"connections": served.CONNECTIONS, "load_generator": "own"})


def _measure_scale(live: Bundle, options: argparse.Namespace) -> None:
    sizes = scale.QUICK_SIZES if options.quick else scale.SIZES
    with tempfile.TemporaryDirectory(prefix="modiste-bench-") as folder:
        results = scale.measure_scale(live, Path(folder), sizes, _say)
    _show(results, options.out, {"sizes": [size._asdict() for size in sizes]})


def _show(results: list[Result], out: Path | None, conditions: dict[str, Any]) -> None:
    """The table, and all of it as JSON where a file is named."""
    machine = hardware()
    print(f"\n{machine['processor']}, {machine['cores']} cores for everything, {machine['memory_gib']} GiB\n")
    print(table(results))
    if out is not None:
        write_json(out, results, conditions)
        _say(f"wrote {out}")


def _measure(world: World, redis_url: str, seconds: float, only: str | None, *, quick: bool) -> list[Result]:
    results: list[Result] = []
    if only in {None, "parts"}:
        results += _measure_parts(world, redis_url, 200 if quick else 1_000)
    if only == "memory":  # has a Redis of its own
        return results
    _say(f"backfill of {world.purchases:,} purchases")
    results += parts.measure_backfill(world, redis_url)
    if only in {None, "stages"}:
        _say("HTTP: where the time of one request goes")
        results += stages.measure_stages(world, redis_url)
    if only in {None, "http"}:
        results += _measure_http(world, redis_url, seconds)
    if only in {None, "generations"}:
        results += _measure_generations(world, redis_url, seconds)
    return results


def _measure_parts(world: World, redis_url: str, calls: int) -> list[Result]:
    _say("search and LSTM, alone")
    results = [*search.measure_search(world, calls), *parts.measure_mixup(world, calls)]
    results += parts.measure_lstm(world, 4 * calls)
    return [*results, parts.measure_redis(redis_url, 10 * calls)]


def _measure_http(world: World, redis_url: str, seconds: float) -> list[Result]:
    _say("HTTP: an empty FastAPI application, the plain stack and the bare trial")
    results = [*served.measure_empty(seconds), *served.measure_baselines(world, redis_url, seconds)]
    for workers in (1, 2):
        _say(f"HTTP: the service with {workers} worker{'s' if workers > 1 else ''}")
        results += served.measure_service(world, redis_url, workers, seconds)
    return [*results, *served.ratios(results)]


def _measure_generations(world: World, redis_url: str, seconds: float) -> list[Result]:
    if world.bundle.manifest.generation is None:
        _say("the live bundle has no generating half, so nothing is said about generations")
    else:
        _say("HTTP: what was generated, and a language model that is stopped, slow, or writes rubbish")
    return generations.measure_generations(world, redis_url, seconds)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
