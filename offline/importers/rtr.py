"""Rent the Runway: ``rentals.csv.gz``, one row per rental, days (of the review), no titles, prices or pictures.

An article has little but its identity, so its own id is among its tags. Stock is derived, since none is published:
between an article's first and last rental *before* the evaluation window, widened by 60 days on both sides; articles
first rented inside the window are in stock from its first moment on. The latter are known from sales inside the window,
so among all articles they would give the answer away: only the table of new articles may rank them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store import tables
from model_store.dataset import DataSetFile
from model_store.errors import InvalidData
from model_store.records import EventType
from offline.importers.base import DAY, CsvFile, day_name, window_start, write_articles

WINDOW_DAYS = 90
WIDENED_DAYS = 60

_COLUMNS = ["user_id", "item_id", "review_date", "category"]


class RtrImporter:
    """See the module. What a dress was rented for (a wedding, a party) belongs to the rental and is left out."""

    def __init__(self, window_days: int | None = None):
        self.window_days = window_days or WINDOW_DAYS

    def write(self, source: Path, stage: Path) -> DataSetFile:
        """Write articles, events and derived availability."""
        rentals = _Rentals.read(CsvFile(source, "rentals.csv.gz", _COLUMNS))
        _write_articles(rentals, stage)
        _write_events(rentals, stage)
        window = window_start(int(rentals.day.max()), self.window_days)
        _write_availability(rentals, stage, window)
        return DataSetFile(
            name="Rent the Runway",
            description="Rentals by day of review. An article has a category and its own id among its tags.",
            stock=f"Derived: between an article's first and last rental before {day_name(window)}, the first day of the"
            f" evaluation window, widened by {WIDENED_DAYS} days each way. Articles first rented inside it are in"
            " stock from its first moment on; since only their rentals tell that they exist, they may be ranked in"
            " the table of new articles only.",
            window_days=self.window_days,
        )


@dataclass(frozen=True)
class _Rentals:
    """All rentals as columns of R rows, in file order."""

    source: CsvFile
    customer: pa.Array
    article_id: pa.Array
    """distinct, by first appearance (N)"""
    category: list[str]
    """of the article's first rental (N)"""
    first_row: NDArray[np.int64]
    """row of the article's first rental (N)"""
    article: NDArray[np.int64]
    """index into ``article_id`` (R)"""
    day: NDArray[np.int64]
    """Unix seconds (R)"""

    @classmethod
    def read(cls, source: CsvFile) -> _Rentals:
        days, batches = [], []
        for start, batch in source.batches():
            for column, expected in (("user_id", "an id"), ("item_id", "an id"), ("category", "a category")):
                source.filled(batch, column, start, expected)
            days.append(source.days(batch, "review_date", start))
            batches.append(batch)
        if not batches:
            raise InvalidData("is empty; expected at least one rental", file=source.name)
        table = pa.Table.from_batches(batches)
        items = table["item_id"].combine_chunks().dictionary_encode()
        article = items.indices.to_numpy().astype(np.int64)
        first_row = np.unique(article, return_index=True)[1]
        return cls(
            source,
            table["user_id"].combine_chunks(),
            items.dictionary,
            table["category"].take(first_row).to_pylist(),
            first_row,
            article,
            np.concatenate(days),
        )


def _write_articles(rentals: _Rentals, stage: Path) -> None:
    described = zip(rentals.article_id.to_pylist(), rentals.category, rentals.first_row.tolist(), strict=True)
    articles = [
        rentals.source.article(
            {
                "article_id": article_id,
                "title": f"{category.capitalize()} {article_id}",
                "category": category.capitalize(),
                "tags": (f"article {article_id}",),
            },
            row,
        )
        for article_id, category, row in described
    ]
    write_articles(stage, articles)


def _write_events(rentals: _Rentals, stage: Path) -> None:
    with tables.TableWriter(stage, tables.EVENTS) as writer:
        for start in range(0, len(rentals.day), tables.BATCH):
            part = slice(start, start + tables.BATCH)
            rows = len(rentals.day[part])
            writer.write(
                {
                    "event_id": [f"rtr-{row}" for row in range(start, start + rows)],
                    "customer_id": rentals.customer[part],
                    "type": [EventType.PURCHASE.value] * rows,
                    "article_id": rentals.article_id.take(pa.array(rentals.article[part])),
                    "timestamp": rentals.day[part],
                }
            )


def _write_availability(rentals: _Rentals, stage: Path, window: int) -> None:
    """One interval per article, by the rule in the module's docstring; the day of the last rental is in stock."""
    count = len(rentals.article_id)
    before = rentals.day < window
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, -1, dtype=np.int64)
    np.minimum.at(first, rentals.article[before], rentals.day[before])
    np.maximum.at(last, rentals.article[before], rentals.day[before])
    new = last < 0
    start = np.where(new, window, np.maximum(np.where(new, 0, first) - WIDENED_DAYS * DAY, 0))
    end = pc.if_else(pa.array(new), pa.scalar(None, pa.int64()), pa.array(last + (WIDENED_DAYS + 1) * DAY))
    kind = tables.AVAILABILITY.schema.field("to").type
    with tables.TableWriter(stage, tables.AVAILABILITY) as writer:
        writer.write({"article_id": rentals.article_id, "from": start, "to": end.cast(kind)})
