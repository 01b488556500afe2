"""``modiste backfill``."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvloop
from tqdm import tqdm

from model_store.bundle import Bundle, open_bundle
from model_store.dataset import DataSet
from model_store.errors import InvalidBundle, InvalidConfig
from model_store.tables import EVENTS, open_table
from service import embedded
from service.backfill import Catalogue, fill_catalogue, fill_customers
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.redis_store import RedisCatalogue
from service.choice import RedisChoice, candidates, published
from service.engine.style import StyleModel
from service.settings import Settings, variable
from service.state.connection import Client, connect
from service.state.redis_store import RedisStore
from service.trend_store import RedisTrendStore

HELP = (
    "Load a data set's articles, stock, histories and sessions into Redis. May be interrupted and run again, also "
    "beside a running service: what is stored already stays as it is."
)
TIMEOUT = 30.0  # seconds; a chunk of many customers may keep Redis busy for longer than a request would wait
_SHOWN = 5  # articles that are named where some are refused


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set")


def main(options: argparse.Namespace) -> None:
    """Load, and say how much and how fast."""
    settings = Settings.from_environment(os.environ)
    url = redis_url(settings)
    data = DataSet.open(options.data)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_backfill(data, settings, url))


def redis_url(settings: Settings) -> str:
    """The Redis to fill: the one that is set, or the embedded one of a service that runs here."""
    url = settings.redis_url or embedded.live_url()
    if url is None:
        raise InvalidConfig(
            f"{variable('redis_url')} is not set and no service with an embedded Redis runs here: set it, or load the "
            "data with 'modiste serve --seed-data DIR'"
        )
    return url


async def _backfill(data: DataSet, settings: Settings, url: str) -> None:
    client = connect(url, timeout=TIMEOUT)
    try:
        bundle = await _bundle(settings, client)
        catalogue = await _articles(data, client, bundle)
        await _events(data, client, StyleModel.of_bundle(bundle, catalogue.dna.get))
    finally:
        await client.aclose()


async def _bundle(settings: Settings, client: Client) -> Bundle:
    """The bundle that serves, or would: what is stored is stored for it."""
    chosen = candidates(published(settings.store), await RedisChoice(client).read())
    for choice in chosen[:-1]:
        try:
            return open_bundle(settings.store / choice.version)
        except InvalidBundle as error:
            print(f"bundle '{choice.version}' is passed over: {error}", flush=True)
    if not chosen:
        raise InvalidConfig(f"{settings.store} has no live bundle; make one with 'modiste train' and 'modiste export'")
    return open_bundle(settings.store / chosen[-1].version)


async def _articles(data: DataSet, client: Client, bundle: Bundle) -> Catalogue:
    with _bar("articles", len(data.article_ids)) as done:
        filled = await fill_catalogue(data, RedisCatalogue(client), CatalogueEncoder(bundle), done)
    print(f"{len(filled.dna):,} articles, {filled.written:,} of them new or changed", flush=True)
    _name_refused(filled.refused)
    return filled


def _name_refused(refused: Mapping[str, Exception]) -> None:
    for article_id, error in list(refused.items())[:_SHOWN]:
        print(f"article '{article_id}' was left out: {error}", flush=True)
    if len(refused) > _SHOWN:
        print(f"… and {len(refused) - _SHOWN:,} more", flush=True)


async def _events(data: DataSet, client: Client, model: StyleModel) -> None:
    start = time.monotonic()
    with open_table(data.folder, EVENTS) as table, _bar("events", table.metadata.num_rows) as done:
        filled = await fill_customers(
            data, RedisStore(client), RedisCatalogue(client), RedisTrendStore(client), model, done
        )
    elapsed = max(time.monotonic() - start, 1e-3)
    print(
        f"{filled.read:,} events of {filled.customers:,} customers in {elapsed:.1f} s "
        f"({filled.read / elapsed:,.0f} a second), {filled.added:,} purchases and returns new",
        flush=True,
    )


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    with tqdm(total=total, desc=title, unit=f" {title}", unit_scale=True, leave=False, dynamic_ncols=True) as bar:

        def done(count: int) -> None:
            bar.update(count)

        yield done
