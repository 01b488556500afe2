"""Who visits the shop and what is in it, and how often each is drawn: Zipf's law, as in real shops."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_store.dataset import DataSet


class Zipf:
    """Draws places 0 … ``count`` - 1; place r with a probability in proportion to 1 / (r + 1) ** ``exponent``."""

    def __init__(self, count: int, exponent: float):
        weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
        self._up_to = np.cumsum(weights / weights.sum())

    def draw(self, rng: random.Random) -> int:
        """One place."""
        return min(int(np.searchsorted(self._up_to, rng.random(), side="right")), len(self._up_to) - 1)


@dataclass(frozen=True)
class Known:
    """Customers, and articles with their titles, each ordered from the one that is drawn most often."""

    customers: Sequence[str]
    articles: Sequence[tuple[str, str]]


def made_up_customers(count: int) -> list[str]:
    """Ids of customers that only load tests have."""
    return [f"loadtest-{number}" for number in range(count)]


def of_data_set(folder: Path) -> Known:
    """All that a data set holds, by how many purchases there were."""
    data = DataSet.open(folder)
    purchases = data.purchases()
    by_article = np.argsort(-np.bincount(purchases.article, minlength=len(data.article_ids)), kind="stable")
    by_customer = np.argsort(-np.diff(purchases.offsets), kind="stable")
    titles = [article.title for article in data.articles()]
    return Known(
        [purchases.customer_ids[row] for row in by_customer],
        [(data.article_ids[row], titles[row]) for row in by_article],
    )


def asked_for(ask: Callable[[str], Any], count: int) -> list[tuple[str, str]]:
    """``count`` articles in stock, or as many as there are: what is trending, then what is like what is known.

    ``ask`` answers a path with JSON.
    """
    found: dict[str, str] = {}
    path = "/v1/customers/loadtest/recommendations?strategy=trending&n=200"
    asked = 0
    while len(found) < count:
        found |= {article["article_id"]: article["title"] for article in ask(path)["articles"]}
        if asked == len(found):
            break
        path = f"/v1/articles/{list(found)[asked]}/similar?n=200"
        asked += 1
    return list(found.items())[:count]
