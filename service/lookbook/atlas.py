"""The map of a catalogue: some of its articles on a plane, in clusters. Made once for each bundle that answers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from service.engine.arrays import Float32
from service.engine.index import ArticleIndex
from service.live import Live
from service.lookbook.article_map import MOST_ARTICLES, Cluster, Plane, clusters_of


@dataclass(frozen=True)
class Atlas:
    """``articles``: those on the map, by id, title, place and cluster."""

    plane: Plane
    clusters: list[Cluster]
    articles: list[dict[str, Any]]

    def shown(self) -> dict[str, Any]:
        """All of it as the page has it."""
        clusters = [asdict(cluster) for cluster in self.clusters]
        return {"explained": self.plane.explained, "clusters": clusters, "articles": self.articles}


_TELLING = ("category", "brand", "colour")
EMPTY = {"explained": [0.0, 0.0], "clusters": [], "articles": []}
"""As ``Atlas.shown``, of a catalogue with nothing in stock."""


class Atlases:
    """The map of each bundle that answers."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Live, Atlas] = WeakKeyDictionary()
        self._making = asyncio.Lock()

    async def of(self, live: Live) -> Atlas | None:
        """The map of what was in stock when it was first asked for; None where nothing is."""
        async with self._making:
            found = self._made.get(live)
            if found is None:
                chosen = _chosen(live.index)
                found = None if not chosen.records else await asyncio.to_thread(_atlas, chosen)
                if found is not None:
                    self._made[live] = found
            return found


@dataclass(frozen=True)
class _Chosen:
    """What the map is made of: public records, and float32 (N, 128)."""

    records: list[dict[str, Any]]
    dna: Float32


def _chosen(index: ArticleIndex) -> _Chosen:
    rows = index.some_in_stock(MOST_ARTICLES)
    return _Chosen([orjson.loads(each + b"}") for each in index.open_jsons(rows)], index.vectors_of(rows))


def _atlas(chosen: _Chosen) -> Atlas:
    plane, records = Plane(chosen.dna), chosen.records
    places = plane.places(chosen.dna)
    facets = {facet: [record[facet] for record in records] for facet in _TELLING}
    clusters, member = clusters_of(places, facets)
    articles = [
        {"article_id": record["article_id"], "title": record["title"], "x": x, "y": y, "cluster": cluster}
        for record, (x, y), cluster in zip(records, np.round(places, 4).tolist(), member.tolist(), strict=True)
    ]
    return Atlas(plane, clusters, articles)
