"""Tiny data sets with known answers, for tests of training.

Four style groups, told by brand. With ``planted``, every purchase is of the customer's current group, which changes
once half-way; without, every purchase is of any article in stock, and nothing can be learned.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from model_store.dataset import DataSet, DataSetFile, write_data_set_file
from model_store.purchases import Purchases
from model_store.tables import ARTICLES, AVAILABILITY, EVENTS, TableWriter

DAY = 86_400
START = 1_700_006_400  # 2023-11-15, 00:00
GROUPS = 4
COLOURS = ("black", "red", "blue")
_PIXELS = {"black": (20, 20, 20), "red": (200, 30, 30), "blue": (30, 30, 200)}


def tiny_shop(
    folder: Path,
    *,
    articles: int = 80,
    customers: int = 150,
    days: int = 120,
    planted: bool = True,
    seed: int = 0,
    pictures: bool = False,
) -> DataSet:
    """A data set of ``days`` days in ``folder``; every customer orders about every 8th day, 1 or 2 articles."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_data_set_file(folder, DataSetFile(name=folder.name, synthetic=True, window_days=10))
    _write_articles(folder, articles, pictures)
    group = np.arange(articles) % GROUPS
    _write_availability(folder, articles, days)
    _write_events(folder, group, _days_of_orders(customers, days, rng), planted=planted, rng=rng)
    return DataSet.open(folder)


def _write_articles(folder: Path, articles: int, pictures: bool) -> None:
    names = [f"a{index:03d}" for index in range(articles)]
    colours = [COLOURS[index % len(COLOURS)] for index in range(articles)]
    images = [None] * articles
    if pictures:
        for colour in COLOURS:
            content = io.BytesIO()
            Image.new("RGB", (12, 16), _PIXELS[colour]).save(content, "PNG")
            (folder / f"{colour}.png").write_bytes(content.getvalue())
        images = [f"{colour}.png" for colour in colours]
    with TableWriter(folder, ARTICLES) as writer:
        writer.write(
            {
                "article_id": names,
                "title": [f"{colour} thing" for colour in colours],
                "category": ["dress" if index % 2 else "coat" for index in range(articles)],
                "brand": [f"brand {index % GROUPS}" for index in range(articles)],
                "colour": colours,
                "price": [10.0 + index % 7 for index in range(articles)],
                "image": images,
            }
        )


def _write_availability(folder: Path, articles: int, days: int) -> None:
    """Three quarters of the articles throughout; the last quarter only in the second half."""
    late = np.arange(articles) >= articles * 3 // 4
    with TableWriter(folder, AVAILABILITY) as writer:
        writer.write(
            {
                "article_id": [f"a{index:03d}" for index in range(articles)],
                "from": np.where(late, START + days // 2 * DAY, START),
                "to": [None] * articles,
            }
        )


def _days_of_orders(customers: int, days: int, rng: np.random.Generator) -> np.ndarray:
    """bool (customers, days)."""
    return rng.random((customers, days)) < 1 / 8


def _write_events(
    folder: Path, group: np.ndarray, orders: np.ndarray, *, planted: bool, rng: np.random.Generator
) -> None:
    rows: list[tuple[str, str, int]] = []  # customer, article, time
    late = np.arange(len(group)) >= len(group) * 3 // 4
    tastes = rng.integers(GROUPS, size=(len(orders), 2))
    for customer, day in np.argwhere(orders):
        second = day >= orders.shape[1] // 2
        allowed = second | ~late
        if planted:
            allowed = allowed & (group == tastes[customer, int(second)])
        chosen = rng.choice(np.flatnonzero(allowed), rng.integers(1, 3), replace=False)
        rows += [(f"c{customer:03d}", f"a{article:03d}", START + int(day) * DAY + DAY // 2) for article in chosen]
    with TableWriter(folder, EVENTS) as writer:
        writer.write(
            {
                "event_id": [f"e{index}" for index in range(len(rows))],
                "customer_id": [row[0] for row in rows],
                "type": ["purchase"] * len(rows),
                "article_id": [row[1] for row in rows],
                "timestamp": [row[2] for row in rows],
            }
        )


def purchases_of(rows: list[tuple[int, int, int, int]], customers: int | None = None) -> Purchases:
    """Purchases from (customer, article, timestamp, order) tuples, sorted by customer and time already."""
    table = np.asarray(rows, dtype=np.int64).reshape(-1, 4)
    count = customers if customers is not None else int(table[:, 0].max()) + 1
    offsets = np.concatenate([[0], np.cumsum(np.bincount(table[:, 0], minlength=count))]).astype(np.int64)
    return Purchases(
        [f"c{index}" for index in range(count)],
        offsets,
        table[:, 0].astype(np.int32),
        table[:, 1].astype(np.int32),
        table[:, 2],
        table[:, 3],
        np.arange(len(table)),
    )
