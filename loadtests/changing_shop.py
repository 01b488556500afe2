"""A catalogue that changes all the time, drawn at random, and what it should hold after each change."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

ROUND, CHANGED, REPLACED = 1_000, 150, 25  # changes drawn together; of them changed articles, and deleted and new ones


@dataclass
class Shop:
    """What the catalogue should hold: whether each article is in stock, by the latest ``set_time``. Begins empty."""

    rng: random.Random
    in_stock: dict[str, bool] = field(default_factory=dict)
    _now: int = field(default_factory=lambda: int(time.time()))
    _set_at: dict[str, int] = field(default_factory=dict)
    _ids: list[str] = field(default_factory=list)
    _named: int = 0

    def new(self, count: int) -> list[dict[str, Any]]:
        """Articles that were never there, as PUT /v1/articles takes them; they are in stock."""
        ids = [f"article-{number:08}" for number in range(self._named, self._named + count)]
        self._named += count
        self._ids += ids
        self.in_stock.update(dict.fromkeys(ids, True))
        return list(map(self._drawn, ids))

    def changed(self, count: int) -> list[dict[str, Any]]:
        """Articles of the catalogue, drawn anew; their stock stays."""
        return list(map(self._drawn, self.rng.sample(self._ids, count)))

    def gone(self, count: int) -> list[str]:
        """Articles to delete."""
        ids = []
        for _ in range(count):
            place = self.rng.randrange(len(self._ids))
            self._ids[place], self._ids[-1] = self._ids[-1], self._ids[place]
            ids.append(self._ids.pop())
            del self.in_stock[ids[-1]]
            self._set_at.pop(ids[-1], None)
        return ids

    def levels(self, count: int) -> list[dict[str, Any]]:
        """Stock levels as PATCH /v1/stock takes them, all of one moment but for one in ten, which comes late."""
        self._now += 1
        levels = []
        for article_id in self.rng.choices(self._ids, k=count):
            quantity, set_time = self.rng.randrange(2), self._now - (self.rng.random() < 0.1) * self.rng.randrange(50)
            levels.append({"article_id": article_id, "quantity": quantity, "set_time": set_time})
            if set_time >= self._set_at.get(article_id, set_time):
                self.in_stock[article_id], self._set_at[article_id] = quantity > 0, set_time
        return levels

    def _drawn(self, article_id: str) -> dict[str, Any]:
        rng = self.rng
        title = f"Article {rng.randrange(10**6)} of brand {rng.randrange(200)}"
        category, price = f"category {rng.randrange(20)}", round(rng.uniform(5, 500), 2)
        return {"article_id": article_id, "title": title, "category": category, "price": price}
