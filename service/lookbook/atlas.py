"""The map of a catalogue: some of its articles on a plane, in clusters.

The plane is made of what the bundle was trained on, so that every worker has the same one, whatever is in stock when it
is first asked; the articles on it are those of the moment.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from model_store.article_table import sample_dna
from service.engine.arrays import Float32
from service.engine.index import ArticleIndex
from service.live import Live
from service.lookbook.article_map import Plane, clusters_of

MOST_ARTICLES = 1_500
"""Trained articles that a plane is made of, and articles in stock that a map shows."""
_TELLING = ("category", "brand", "colour")


class Planes:
    """The plane of each bundle that answers."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Live, Plane] = WeakKeyDictionary()
        self._making = asyncio.Lock()

    async def of(self, live: Live) -> Plane:
        """The plane that all workers have for this bundle. Raises InvalidBundle where its table cannot be read."""
        async with self._making:
            found = self._made.get(live)
            if found is None:
                found = await asyncio.to_thread(lambda: Plane(sample_dna(live.bundle, MOST_ARTICLES)))
                self._made[live] = found
            return found


class Chosen(NamedTuple):
    """What a map shows: each article's JSON without its last brace, and Fashion DNA float32 (N, 128)."""

    open_jsons: list[bytes]
    dna: Float32


def chosen_of(index: ArticleIndex) -> Chosen:
    """Some of what is in stock at this moment, evenly out of all."""
    rows = index.some_in_stock(MOST_ARTICLES)
    return Chosen(index.open_jsons(rows), index.vectors_of(rows))


def map_of(chosen: Chosen, plane: Plane) -> dict[str, Any]:
    """Places and clusters as the page has them. Takes tens of milliseconds: call it in a thread."""
    if not chosen.open_jsons:
        return {"explained": plane.explained, "clusters": [], "articles": []}
    records = [orjson.loads(each + b"}") for each in chosen.open_jsons]
    places = plane.places(chosen.dna)
    clusters, member = clusters_of(places, {facet: [record[facet] for record in records] for facet in _TELLING})
    articles = [
        {"article_id": record["article_id"], "title": record["title"], "x": x, "y": y, "cluster": cluster}
        for record, (x, y), cluster in zip(records, np.round(places, 4).tolist(), member.tolist(), strict=True)
    ]
    return {"explained": plane.explained, "clusters": [asdict(cluster) for cluster in clusters], "articles": articles}
