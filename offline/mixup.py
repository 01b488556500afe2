"""Retrieval with mixup over a data set's own tables, for training's probes, the blend and the evaluation.

The same rules as the service's (Amazon 2024, §4.4): both lists hold only what may be shown; the generated article
itself stands first in the id list; an id that is of no article has no id list; equal scores stand in order of
article id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.generation import IdEmbeddings, Rows, mixup
from model_store.generation_spec import MIXUP_LENGTH
from model_store.prompts import Generated

Float32 = NDArray[np.float32]


class MixupRetrieval:
    """Mixup lists over N articles.

    ``titles`` float32 (N, 128) and ``ids`` of the N ``article_ids``; ``encode`` turns B titles into float32 (B, 128);
    of the id list the first ``n`` count.
    """

    def __init__(
        self,
        article_ids: Sequence[str],
        titles: Float32,
        ids: IdEmbeddings,
        encode: Callable[[Sequence[str]], Float32],
        n: int = 1,
    ):
        self._titles, self._encode, self._n = titles, encode, n
        self._ids = ids.of(article_ids)
        self._row_of = {article_id: row for row, article_id in enumerate(article_ids)}
        self._place = np.empty(len(article_ids), np.int64)  # of each article in order of id
        self._place[sorted(range(len(article_ids)), key=article_ids.__getitem__)] = np.arange(len(article_ids))

    def lists(
        self, generated: Sequence[Generated | None], allowed: Callable[[int], Rows], k: int = MIXUP_LENGTH
    ) -> list[Rows]:
        """Per generation the mixup list, rows int64 (≤ k), best first; empty where there is none.

        ``allowed(i)``: rows of the articles that may be shown in answer i.
        """
        titles = [one.title for one in generated if one is not None]
        vectors = iter(self._encode(titles) if titles else ())
        return [
            np.zeros(0, np.int64) if one is None else self._list(one.article_id, next(vectors), allowed(index), k)
            for index, one in enumerate(generated)
        ]

    def _list(self, article_id: str, title: Float32, allowed: Rows, k: int) -> Rows:
        by_title = self._best(self._titles[allowed] @ title, allowed, k + self._n)
        return mixup(self._by_id(article_id, allowed), by_title, k, self._n)

    def _by_id(self, article_id: str, allowed: Rows) -> Rows:
        own = self._row_of.get(article_id)
        if own is None:
            return np.zeros(0, np.int64)
        nearest = self._best(self._ids[allowed] @ self._ids[own], allowed, self._n)
        return np.concatenate([[own], nearest[nearest != own]])[: self._n] if own in allowed else nearest

    def _best(self, scores: Float32, rows: Rows, k: int) -> Rows:
        """The ``k`` rows with the highest scores, best first."""
        if 0 < k < len(rows):
            kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
            scores, rows = scores[kept], rows[kept]
        return rows[np.lexsort((self._place[rows], -scores))[:k]]
