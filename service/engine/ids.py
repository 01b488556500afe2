"""Which articles lie nearest to one that was generated, by CORE's article embeddings (Amazon 2024, §4.4).

The embeddings are fixed with the bundle, and belong to the articles of its training; all others share one, the cold
one. So nothing is kept per row of the index but each article's place in that table, and the cold articles are one
candidate with one score instead of thousands of ties.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.generation import IdEmbeddings
from service.engine.allowed import Allowed
from service.engine.arrays import Float32, Rows, inner_products
from service.engine.filters import Filters
from service.engine.index import ArticleIndex, Ranked
from service.engine.space import CELLS_FROM, Space

_Scored = tuple[str, float]


class IdSpace:
    """One bundle's ``IdEmbeddings``, searched for what is in stock.

    The index that is searched takes its places from ``place_of``.
    """

    def __init__(self, ids: IdEmbeddings, cells_from: int = CELLS_FROM):
        self._ids = ids
        self._names = sorted(ids.row_of, key=ids.row_of.__getitem__)
        self._table = Space(ids.embedding, "variations", len(ids.embedding), cells_from)
        self._table.settle()  # where a bundle is opened, not in the first search

    @property
    def place_of(self) -> Mapping[str, int]:
        """The place of each trained article in the table."""
        return self._ids.row_of

    def knows(self, article_id: str) -> bool:
        """Whether the article was seen in training."""
        return self._ids.knows(article_id)

    def vector(self, article_id: str) -> Float32:
        """The embedding float32 (128) of an article, trained or cold."""
        vector: Float32 = self._ids.of([article_id])[0]
        return vector

    def scores(self, index: ArticleIndex, rows: Rows, query: Float32) -> Float32:
        """Cosines float32 (len(rows)) of articles with ``query`` float32 (128)."""
        return inner_products(self._ids.of(index.ids_of(rows)), query)

    def search(self, index: ArticleIndex, query: Float32, k: int, filters: Filters) -> Ranked:
        """The ``k`` articles in stock that pass ``filters`` with the highest cosine with ``query`` float32 (128)."""
        rows = index.allowed_rows(filters)
        places = index.places_of(rows)
        trained = self._trained(places[places >= 0], query, k)
        best = sorted([*trained, *self._cold(index, rows[places < 0], query, k, trained)], key=_order)[:k]
        article_ids = tuple(article_id for article_id, _ in best)
        return Ranked(article_ids, np.array([score for _, score in best], np.float32), index.rows_of(article_ids))

    def _trained(self, places: NDArray[np.int32], query: Float32, k: int) -> list[_Scored]:
        """The best ``k`` of the articles at ``places``, and their ties."""
        if not len(places):
            return []
        mask = np.zeros(len(self._names), bool)
        mask[places] = True
        found = self._table.candidates(query, k, Allowed.of(mask))
        scored = [
            (self._names[row], score) for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        ]
        return sorted(scored, key=_order)[:k]

    def _cold(
        self, index: ArticleIndex, rows: Rows, query: Float32, k: int, trained: Sequence[_Scored]
    ) -> list[_Scored]:
        """The first ``k`` cold articles by id, with their one score; none where ``trained`` leaves them no place."""
        if not len(rows):
            return []
        score = float(inner_products(self._ids.cold[None], query)[0])
        if len(trained) >= k and trained[k - 1][1] > score:
            return []
        return [(article_id, score) for article_id in heapq.nsmallest(k, index.ids_of(rows))]


def _order(scored: _Scored) -> tuple[float, str]:
    return -scored[1], scored[0]
