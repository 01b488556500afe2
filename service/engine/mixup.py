"""Retrieval with mixup (Amazon 2024, §4.4), out of what is in stock.

What a language model generated names an article and a title. The id list holds the articles whose id embeddings lie
nearest to the generated one's, the title list those whose titles lie nearest to the generated title; the first N of the
one are followed by the rest of the other. Filters and stock hold inside both searches, so nothing that a model makes up
can reach an answer: its id is looked up, its title only compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_store.generation import mixup
from model_store.generation_spec import MIXUP_LENGTH
from service.engine.arrays import NO_ROWS, Float32, Rows
from service.engine.filters import Filters
from service.engine.ids import IdSpace
from service.engine.index import ArticleIndex
from service.engine.kept_lists import KeptLists


@dataclass(frozen=True)
class Intent:
    """What a customer wants right now.

    ``title`` float32 (128), of length 1: the embedding of the generated title, or of what the customer searches for
    where nothing was generated for that; then there is no ``article_id``, the id that was generated.
    """

    title: Float32
    article_id: str | None = None


@dataclass(frozen=True)
class MixupList:
    """``rows`` of articles in stock, best first, and of the two lists that it was joined from, as far as looked at.

    They hold for as long as the index does not change.
    """

    rows: Rows
    by_id: Rows
    by_title: Rows


class Mixup:
    """Makes mixup lists of ``k`` articles over one bundle's embeddings.

    Of the id list the first ``n`` count (the paper's N).
    """

    def __init__(self, ids: IdSpace, n: int = 1, k: int = MIXUP_LENGTH):
        self._ids, self._n, self._k = ids, n, k
        self._near_ids = KeptLists(ids.search, ids.scores, n)
        self._near_titles = KeptLists(
            lambda index, vector, k, filters: index.search(vector, k, filters, "title"),
            lambda index, rows, vector: index.scores(rows, vector, "title"),
            k + n,
        )

    def make(self, index: ArticleIndex, intent: Intent, filters: Filters) -> MixupList:
        """The first ``k`` articles for ``intent``, all in stock and passing ``filters``; fewer where fewer pass.

        Equal scores stand in order of article id. Where there is no id list, the title list alone counts, from its
        beginning.
        """
        by_id = self._by_id(index, intent.article_id, filters)
        by_title = self._near_titles.nearest(index, intent.title, self._k + self._n, filters)
        return MixupList(mixup(by_id, by_title, self._k, self._n), by_id, by_title)

    def _by_id(self, index: ArticleIndex, article_id: str | None, filters: Filters) -> Rows:
        """The id list: the generated article itself first, where it may be shown, then those nearest to it.

        None for an id that is neither trained nor in the catalogue: it would only have the cold embedding, which tells
        nothing of it.
        """
        if article_id is None or not self._n or not (self._ids.knows(article_id) or index.knows(article_id)):
            return NO_ROWS
        row = index.allowed_row(article_id, filters)
        own = NO_ROWS if row is None else np.array([row])
        if row is not None and self._n == 1:
            return own
        nearest = self._near_ids.nearest(index, self._ids.vector(article_id), self._n, filters)
        return np.concatenate([own, index.marks.outside(nearest, own)])[: self._n]
