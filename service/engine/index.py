"""The articles of one bundle in memory, and the exact search for those that lie nearest to a vector.

Search is maximum inner product: a customer's style d against Fashion DNA f gives the intent of purchase f·d (Zalando
2017, §2.3). The answer is exact: whatever the approximate scan proposes is scored again, and accepted only where an
error bound proves that nothing better was left out. Filters apply inside the search, so that a narrow one still gets
all the answers there are.

Rows [0, S) hold what is in stock, rows [S, N) the rest. A change of stock swaps two rows, so the common search scans
one dense block and needs no mask; nothing is ever tombstoned, and nothing needs compaction.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.errors import ModisteError
from model_store.records import Article
from service.engine.filters import EVERYTHING, FACETS, Filters

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)

MAX_COMPONENT = 1e9
"""Largest magnitude of a vector's component: far beyond any model's output, and safe against overflow."""

PUBLIC_FIELDS = ("article_id", "title", "category", "brand", "colour", "price", "image")
"""What an answer says of an article (design §7)."""

_MIN_CAPACITY = 1024
_ROUNDING = DNA_SIZE * 2.0**-23  # float32 sum of 128 products: error at most this times |q| |f|
_MAX_CACHED_FILTERS = 128


class InvalidVector(ModisteError):
    """A vector has the wrong shape, or components that are not finite."""


class Ranked(NamedTuple):
    """Answers of one search: the highest score first, equal scores in order of article id."""

    article_ids: tuple[str, ...]
    scores: Float32  # (k)


def check_vectors(vectors: NDArray[np.floating], what: str) -> Float32:
    """``vectors`` (…, 128) as contiguous float32. Raises InvalidVector, naming ``what``, where they cannot be used."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.shape[-1:] != (DNA_SIZE,):
        raise InvalidVector(f"{what}: has shape {array.shape} instead of (…, {DNA_SIZE})")
    if not (np.abs(array) <= MAX_COMPONENT).all():  # False for NaN too
        raise InvalidVector(f"{what}: holds NaN, infinity or a component beyond {MAX_COMPONENT:g}")
    return array


def public_json(article: Article) -> bytes:
    """The article as answers show it: one JSON object with ``PUBLIC_FIELDS``."""
    return orjson.dumps({field: getattr(article, field) for field in PUBLIC_FIELDS})


class ArticleIndex:
    """Articles with vectors, facets, prices and stock. For one thread; a search sees every change made before it."""

    def __init__(self) -> None:
        self.revision = 0  # counts changes; rows are valid within one revision
        self._row_of: dict[str, int] = {}
        self._ids: list[str] = []
        self._json: list[bytes] = []
        self._in_stock = 0  # S
        self._vectors: Float32 = np.zeros((_MIN_CAPACITY, DNA_SIZE), np.float32)
        self._prices: NDArray[np.float64] = np.zeros(_MIN_CAPACITY, np.float64)  # NaN where unknown
        self._codes: dict[str, NDArray[np.int32]] = {
            facet: np.zeros(_MIN_CAPACITY, np.int32) for facet in FACETS
        }  # 0 where unknown
        self._code_of: dict[str, dict[str, int]] = {facet: {} for facet in FACETS}
        self._remembered: dict[str, Float32] = {}
        self._max_norm = 0.0
        self._allowed: dict[Filters, Rows] = {}

    # What is here

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def in_stock_count(self) -> int:
        return self._in_stock

    def knows(self, article_id: str) -> bool:
        """Whether the article is in the live catalogue, in stock or not."""
        return article_id in self._row_of

    def in_stock(self, article_id: str) -> bool:
        return self._row_of.get(article_id, len(self._ids)) < self._in_stock

    def dna_of(self, article_id: str) -> Float32 | None:
        """Fashion DNA float32 (128) of an article that is live or remembered. Do not write to it."""
        row = self._row_of.get(article_id)
        if row is None:
            return self._remembered.get(article_id)
        dna: Float32 = self._vectors[row].copy()
        return dna

    def article_json(self, article_id: str) -> bytes | None:
        """The article's public fields as one JSON object, or None where it is not live."""
        row = self._row_of.get(article_id)
        return None if row is None else self._json[row]

    def article_ids(self) -> tuple[str, ...]:
        """Every live article, in no particular order."""
        return tuple(self._ids)

    # Changes

    def upsert(self, article: Article, dna: Float32, in_stock: bool) -> None:
        """Add an article, or replace all that is known of it. Raises InvalidVector and changes nothing."""
        self.upsert_many([article], np.asarray(dna)[None], [in_stock])

    def upsert_many(self, articles: Sequence[Article], dna: Float32, in_stock: Sequence[bool]) -> None:
        """Add or replace articles, ``dna`` float32 (N, 128); of an id that repeats, the last one stays.

        Raises InvalidVector, naming the first article at fault, and changes nothing.
        """
        vectors = self._check_dna(articles, dna)
        if len(in_stock) != len(articles):
            raise ValueError(f"{len(articles)} articles with {len(in_stock)} stock flags")
        last = {article.article_id: place for place, article in enumerate(articles)}
        places = sorted(last.values(), key=lambda place: not in_stock[place])  # what is in stock needs no swap then
        self._reserve(len(self._ids) + sum(article_id not in self._row_of for article_id in last))
        for place in places:
            self._put(articles[place], vectors[place], in_stock[place])
        if len(vectors):
            self._max_norm = max(self._max_norm, float(np.linalg.norm(vectors, axis=1).max()))
        self._changed()

    def set_stock(self, article_id: str, in_stock: bool) -> bool:
        """Whether the article is live; its stock is set if so."""
        row = self._row_of.get(article_id)
        if row is None:
            return False
        if (row < self._in_stock) != in_stock:
            self._move(row, in_stock)
            self._changed()
        return True

    def remove(self, article_id: str) -> bool:
        """Take an article out of every answer; its DNA is remembered for histories. False where it was not live."""
        row = self._row_of.get(article_id)
        if row is None:
            return False
        self._remembered[article_id] = self._vectors[row].copy()
        if row < self._in_stock:
            row = self._move(row, False)
        self._swap(row, len(self._ids) - 1)
        del self._row_of[article_id]
        self._ids.pop()
        self._json.pop()
        self._changed()
        return True

    def remember_dna(self, article_id: str, dna: Float32) -> None:
        """Know the DNA of an article that is not live, for the histories that hold it."""
        self._remembered[article_id] = check_vectors(dna, f"article '{article_id}'")

    def _check_dna(self, articles: Sequence[Article], dna: Float32) -> Float32:
        try:
            vectors = check_vectors(dna, "Fashion DNA")
        except InvalidVector:
            for article, vector in zip(articles, dna, strict=False):
                check_vectors(vector, f"Fashion DNA of article '{article.article_id}'")
            raise
        if vectors.shape != (len(articles), DNA_SIZE):
            raise InvalidVector(f"Fashion DNA: has shape {vectors.shape} for {len(articles)} articles")
        return vectors

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._vectors):
            return
        capacity = max(rows, len(self._vectors) + len(self._vectors) // 4)
        self._vectors = _grown(self._vectors, capacity)
        self._prices = _grown(self._prices, capacity)
        self._codes = {facet: _grown(codes, capacity) for facet, codes in self._codes.items()}

    def _put(self, article: Article, vector: Float32, in_stock: bool) -> None:
        row = self._row_of.get(article.article_id)
        if row is None:
            row = len(self._ids)
            self._row_of[article.article_id] = row
            self._ids.append(article.article_id)
            self._json.append(b"")
            self._remembered.pop(article.article_id, None)
        self._json[row] = public_json(article)
        self._vectors[row] = vector
        self._prices[row] = np.nan if article.price is None else article.price
        for facet, codes in self._codes.items():
            codes[row] = self._code(facet, getattr(article, facet))
        if (row < self._in_stock) != in_stock:
            self._move(row, in_stock)

    def _code(self, facet: str, value: str | None) -> int:
        if value is None:
            return 0
        known = self._code_of[facet]
        return known.setdefault(value.casefold(), len(known) + 1)

    def _move(self, row: int, in_stock: bool) -> int:
        """Carry a row over the border between in stock and not; its new place."""
        border = self._in_stock if in_stock else self._in_stock - 1
        self._swap(row, border)
        self._in_stock += 1 if in_stock else -1
        return border

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        columns: list[NDArray[Any]] = [self._vectors, self._prices, *self._codes.values()]
        for array in columns:
            array[[one, other]] = array[[other, one]]
        self._ids[one], self._ids[other] = self._ids[other], self._ids[one]
        self._json[one], self._json[other] = self._json[other], self._json[one]
        self._row_of[self._ids[one]] = one
        self._row_of[self._ids[other]] = other

    def _changed(self) -> None:
        self.revision += 1
        self._allowed.clear()

    # Search

    def search(self, vector: Float32, k: int, filters: Filters = EVERYTHING) -> Ranked:
        """The ``k`` articles in stock that pass ``filters`` with the highest inner product with ``vector`` (128).

        Fewer where fewer pass. Raises InvalidVector.
        """
        query = check_vectors(vector, "query vector")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        rows = self.candidates(filters)
        approximate = self._vectors[: self._in_stock] @ query if rows is None else self._vectors[rows] @ query
        if rows is None:
            rows = np.arange(self._in_stock)
        excluded = self.rows_of(filters.exclude)
        if len(excluded):
            keep = ~np.isin(rows, excluded)
            rows, approximate = rows[keep], approximate[keep]
        if k < len(rows):
            margin = 2 * _ROUNDING * float(np.linalg.norm(query)) * self._max_norm
            threshold = np.partition(approximate, len(rows) - k)[len(rows) - k]
            rows = rows[approximate >= threshold - margin]
        return self.ranked(rows, self.scores(rows, query), k)

    def candidates(self, filters: Filters) -> Rows | None:
        """Rows in stock that pass the facets and prices of ``filters``, ascending; None where all of [0, S) do."""
        if not filters.narrows:
            return None
        key = filters if not filters.exclude else _without_exclude(filters)
        rows = self._allowed.get(key)
        if rows is None:
            if len(self._allowed) >= _MAX_CACHED_FILTERS:
                self._allowed.pop(next(iter(self._allowed)))
            rows = self._allowed[key] = np.flatnonzero(self._matches(key, slice(0, self._in_stock)))
        return rows

    def passes(self, rows: Rows, filters: Filters) -> NDArray[np.bool_] | None:
        """Which of ``rows`` pass ``filters``, ``exclude`` included; None where all do."""
        excluded = self.rows_of(filters.exclude)
        if not filters.narrows and not len(excluded):
            return None
        passes = self._matches(filters, rows) if filters.narrows else np.ones(len(rows), bool)
        return passes & ~np.isin(rows, excluded)

    def rows_of(self, article_ids: Iterable[str]) -> Rows:
        """Rows of those of the articles that are in stock, in the given order."""
        rows = (self._row_of.get(article_id, self._in_stock) for article_id in article_ids)
        return np.fromiter((row for row in rows if row < self._in_stock), np.int64)

    def ids_of(self, rows: Rows) -> list[str]:
        """Article ids of rows."""
        return [self._ids[row] for row in rows]

    def scores(self, rows: Rows, query: Float32) -> Float32:
        """Inner products float32 (len(rows)), summed in float64, so that they do not depend on what else is asked."""
        products: Float32 = (self._vectors[rows].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        return products

    def ranked(self, rows: Rows, scores: Float32, k: int) -> Ranked:
        """The best ``k`` of rows with their scores, in answer order."""
        if k < len(rows):
            keep = scores >= np.partition(scores, len(rows) - k)[len(rows) - k]
            rows, scores = rows[keep], scores[keep]
        best = heapq.nsmallest(k, zip((-scores).tolist(), self.ids_of(rows), strict=True))
        return Ranked(tuple(article_id for _, article_id in best), np.array([-score for score, _ in best], np.float32))

    def _matches(self, filters: Filters, rows: Rows | slice) -> NDArray[np.bool_]:
        prices = self._prices[rows]
        passes = np.ones(len(prices), dtype=bool)
        for facet in FACETS:
            wanted: frozenset[str] = getattr(filters, facet)
            if wanted:
                known = self._code_of[facet]
                codes = {known[value] for value in map(str.casefold, wanted) if value in known}
                passes &= _any_of(self._codes[facet][rows], codes)
        if filters.price_min is not None:
            passes &= prices >= filters.price_min  # False where the price is NaN
        if filters.price_max is not None:
            passes &= prices <= filters.price_max
        return passes


def _grown(array: NDArray[_Number], capacity: int) -> NDArray[_Number]:
    grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _any_of(codes: NDArray[np.int32], wanted: set[int]) -> NDArray[np.bool_]:
    passes = np.zeros(len(codes), dtype=bool)
    for code in wanted:
        passes |= codes == code
    return passes


def _without_exclude(filters: Filters) -> Filters:
    return Filters(
        filters.category, filters.brand, filters.colour, filters.gender, filters.price_min, filters.price_max
    )
