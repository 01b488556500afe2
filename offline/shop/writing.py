"""The sample shop on disk: tables streamed day by day, pictures, and a description of what is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

import offline.shop
from model_store import tables
from model_store.dataset import DataSetFile, new_data_set, write_data_set_file
from offline.shop.catalogue import Ints, article_columns, article_id, image_name
from offline.shop.pictures import Painter
from offline.shop.queries import query_texts
from offline.shop.simulation import DAY, EVENT_TYPES, DayEvents, Shop, ShopConfig

WINDOW_DAYS = 7
_CHUNK = 10_000  # articles


def write_shop(out: Path, config: ShopConfig) -> int:
    """Simulate a shop into the new folder ``out``; returns the number of events. Raises InvalidData."""
    with new_data_set(out) as stage:
        shop = Shop(config)
        _write_articles(stage, shop)
        _write_availability(stage, shop)
        events = _write_days(stage, shop)
        if config.images:
            _write_pictures(stage, shop)
        write_data_set_file(stage, _description(config))
    return events


def _description(config: ShopConfig) -> DataSetFile:
    planted = (offline.shop.__doc__ or "").strip()
    arguments = f"articles {config.articles}, customers {config.customers}, days {config.days}, seed {config.seed}"
    return DataSetFile(
        name="shuffled sample shop" if config.shuffled else "sample shop",
        description=f"{planted}\n\nMade with: {arguments}{', shuffled' if config.shuffled else ''}.",
        stock="Simulated: an article can be bought, and is, only while it is in stock.",
        synthetic=True,
        window_days=WINDOW_DAYS,
    )


def _write_articles(stage: Path, shop: Shop) -> None:
    config, rng = shop.config, shop.config.generator(5)
    with tables.TableWriter(stage, tables.ARTICLES) as writer:
        for start in tqdm(range(0, config.articles, _CHUNK), desc="articles", unit_scale=_CHUNK, leave=False):
            stop = min(start + _CHUNK, config.articles)
            writer.write(article_columns(shop.catalogue, start, stop, config.start, images=config.images, rng=rng))


def _write_availability(stage: Path, shop: Shop) -> None:
    """One interval per article, two where it was sold out in between; no end where it is there at the shop's end."""
    catalogue, config = shop.catalogue, shop.config
    gaps = np.flatnonzero(catalogue.gap_end > catalogue.gap_start)
    article = np.concatenate([np.arange(len(catalogue)), gaps])
    start = np.concatenate([catalogue.first_day, catalogue.gap_end[gaps]])
    first_end = catalogue.last_day.copy()
    first_end[gaps] = catalogue.gap_start[gaps]
    end = np.concatenate([first_end, catalogue.last_day[gaps]])
    # What lies after the shop's last day has not happened yet.
    known = start < config.days
    article, start, end = article[known], start[known], end[known]
    order = np.lexsort((start, article))
    article, start, end = article[order], start[order], end[order]
    kind = tables.AVAILABILITY.schema.field("to").type
    until = pc.if_else(pa.array(end <= config.days), pa.array(config.start + end * DAY), pa.scalar(None, pa.int64()))
    with tables.TableWriter(stage, tables.AVAILABILITY) as writer:
        writer.write(
            {
                "article_id": pa.array([article_id(index) for index in article]),
                "from": config.start + start * DAY,
                "to": until.cast(kind),
            }
        )


def _write_days(stage: Path, shop: Shop) -> int:
    texts = _Texts(shop)
    days = tqdm(shop.days(), total=shop.config.days, desc="days", unit=" days", leave=False)
    with (
        tables.TableWriter(stage, tables.EVENTS) as events,
        tables.TableWriter(stage, tables.SEARCH_RESULTS) as results,
    ):
        for day, happened in days:
            if len(happened):
                events.write(texts.events(happened, events.rows))
            if day % 7 == 6 or day == shop.config.days - 1:
                results.write(texts.results(*shop.queries.shown()))
        return events.rows


class _Texts:
    """Indices as the texts that stand for them in the tables."""

    def __init__(self, shop: Shop):
        self._start = shop.config.start
        self._articles = pa.array([article_id(index) for index in range(shop.config.articles)])
        self._customers = pa.array([f"c{index:06d}" for index in range(shop.config.customers)])
        self._queries = pa.array(query_texts())
        self._types = pa.array(EVENT_TYPES)

    def events(self, day: DayEvents, first: int) -> dict[str, Any]:
        """Columns of the events table; ids count on from ``first``."""
        return {
            "event_id": _numbered("e", np.arange(first, first + len(day))),
            "customer_id": self._customers.take(pa.array(day.customer)),
            "type": self._types.take(pa.array(day.kind)),
            "article_id": self._articles.take(_or_null(day.article)),
            "query": self._queries.take(_or_null(day.query)),
            "timestamp": day.timestamp,
            "order_id": _numbered("o", day.order),
            "position": _or_null(day.position - 1, day.position),
        }

    def results(self, first_day: int, query: Ints, article: Ints, position: Ints) -> dict[str, Any]:
        """Columns of the search results table."""
        return {
            "query": self._queries.take(pa.array(query)),
            "article_id": self._articles.take(pa.array(article)),
            "position": position,
            "timestamp": np.full(len(query), self._start + first_day * DAY),
        }


def _or_null(number: Ints, value: Ints | None = None) -> pa.Array:
    """``value`` (default ``number``), null where ``number`` is negative."""
    return pa.array(number if value is None else value, mask=number < 0)


def _numbered(prefix: str, number: Ints) -> pa.Array:
    """``prefix`` and number as text, null where it is negative."""
    return pc.binary_join_element_wise(prefix, _or_null(number).cast(pa.string()), "")


def _write_pictures(stage: Path, shop: Shop) -> None:
    painter = Painter(shop.catalogue, shop.config.seed)
    for index in tqdm(range(shop.config.articles), desc="pictures", unit=" articles", leave=False):
        path = stage / image_name(index)
        if index % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(painter.jpeg(index))
