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
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.errors import ModisteError
from model_store.records import Article
from service.engine.filters import EVERYTHING, FACETS, Filters
from service.engine.scan import QuantisedScan

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)

MAX_COMPONENT = 1e9
"""Largest magnitude of a vector's component: far beyond any model's output, and safe against overflow."""

PUBLIC_FIELDS = ("article_id", "title", "category", "brand", "colour", "price", "image")
"""What an answer says of an article (design §7)."""

_MIN_CAPACITY = 1024
_ROUNDING = DNA_SIZE * 2.0**-23  # a float32 sum of 128 products errs by less than this times both norms
_SCAN_FROM = 4_096  # rows: for fewer, plain sums are as quick
_FEW = 0.1  # of what is in stock: below that, summing the allowed rows alone is quicker than scanning all
_MAX_CACHED_FILTERS = 128
_JOURNAL, _MOST_TOUCHED = 256, 4_096  # changes whose articles are remembered, and how many articles of each


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
    if not (array.max(initial=0.0) <= MAX_COMPONENT and array.min(initial=0.0) >= -MAX_COMPONENT):  # nor may it be NaN
        raise InvalidVector(f"{what}: holds NaN, infinity or a component beyond {MAX_COMPONENT:g}")
    return array


def public_json(article: Article) -> bytes:
    """The article as answers show it: one JSON object with ``PUBLIC_FIELDS``."""
    # A copy: what orjson returns keeps the whole buffer that it was written into, some KB.
    return bytes(memoryview(orjson.dumps({field: getattr(article, field) for field in PUBLIC_FIELDS})))


@dataclass(frozen=True)
class _Few:
    """Allowed rows, ascending."""

    rows: Rows


@dataclass(frozen=True)
class _Many:
    """Allowed rows as bits (little-endian)."""

    bitmap: NDArray[np.uint8]

    @property
    def rows(self) -> Rows:
        """The same, ascending."""
        return np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little"))


_NOBODY = _Few(np.zeros(0, np.int64))


class ArticleIndex:
    """Articles with vectors, facets, prices and stock. For one thread; a search sees every change made before it."""

    def __init__(self, scan_from: int = _SCAN_FROM) -> None:
        self.revision = 0  # counts changes; rows are valid within one revision
        self._row_of: dict[str, int] = {}
        self._ids: list[str] = []
        self._json: list[bytes] = []
        self._in_stock = 0  # S
        self._vectors: Float32 = np.zeros((_MIN_CAPACITY, DNA_SIZE), np.float32)
        self._prices: NDArray[np.float64] = np.zeros(_MIN_CAPACITY, np.float64)  # NaN where unknown
        self._created: NDArray[np.int64] = np.zeros(_MIN_CAPACITY, np.int64)  # -1 where unknown
        self._codes: dict[str, NDArray[np.int32]] = {
            facet: np.zeros(_MIN_CAPACITY, np.int32) for facet in FACETS
        }  # 0 where unknown
        self._code_of: dict[str, dict[str, int]] = {facet: {} for facet in FACETS}
        self._remembered: dict[str, Float32] = {}
        self._max_norm = 0.0
        self._allowed: dict[Filters, _Few | _Many] = {}
        self._scan_from = scan_from
        self._scan: QuantisedScan | None = None  # of all rows, once there are many
        self._touched: set[str] = set()
        self._journal: deque[tuple[int, frozenset[str]]] = deque(maxlen=_JOURNAL)

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

    def created_since(self, time: int) -> list[str]:
        """Articles in stock that were created at ``time`` (Unix seconds) or later."""
        return self.ids_of(np.flatnonzero(self._created[: self._in_stock] >= time))

    def is_newer(self, article_id: str, time: int) -> bool:
        """Whether the article is in stock and was created at ``time`` (Unix seconds) or later."""
        return self.in_stock(article_id) and bool(self._created[self._row_of[article_id]] >= time)

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
        known = [place for article_id, place in last.items() if article_id in self._row_of]
        new = [place for article_id, place in last.items() if article_id not in self._row_of]
        new.sort(key=lambda place: not in_stock[place])
        first = len(self._ids)
        self._append([articles[place].article_id for place in new])
        places = [*known, *new]
        if places:
            self._write([articles[place] for place in places], vectors[places])
        self._admit(first, sum(in_stock[place] for place in new))
        for place in known:
            self._set_stock(articles[place].article_id, in_stock[place])
        self._changed()

    def set_stock(self, article_id: str, in_stock: bool) -> bool:
        """Whether the article is live; its stock is set if so."""
        if article_id not in self._row_of:
            return False
        if self._set_stock(article_id, in_stock):
            self._changed()
        return True

    def remove(self, article_id: str) -> bool:
        """Take an article out of every answer; its DNA is remembered for histories. False where it was not live."""
        row = self._row_of.get(article_id)
        if row is None:
            return False
        self._remembered[article_id] = self._vectors[row].copy()
        self._set_stock(article_id, False)
        self._swap(np.array([self._row_of[article_id]]), np.array([len(self._ids) - 1]))
        self._touched.add(article_id)
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
        self._created = _grown(self._created, capacity)
        self._codes = {facet: _grown(codes, capacity) for facet, codes in self._codes.items()}
        if self._scan is not None:
            self._scan.grow(capacity)

    def _append(self, article_ids: Sequence[str]) -> None:
        """Make rows for new articles at the end, out of stock for now."""
        self._reserve(len(self._ids) + len(article_ids))
        for article_id in article_ids:
            self._row_of[article_id] = len(self._ids)
            self._ids.append(article_id)
            self._json.append(b"")
            self._remembered.pop(article_id, None)

    def _write(self, articles: Sequence[Article], vectors: Float32) -> None:
        """Set all but the stock of articles that have rows."""
        self._touched.update(article.article_id for article in articles)
        rows = np.array([self._row_of[article.article_id] for article in articles])
        for row, article in zip(rows, articles, strict=True):
            self._json[row] = public_json(article)
        self._prices[rows] = [np.nan if article.price is None else article.price for article in articles]
        self._created[rows] = [-1 if article.created_at is None else article.created_at for article in articles]
        for facet, codes in self._codes.items():
            codes[rows] = [self._code(facet, getattr(article, facet)) for article in articles]
        self._vectors[rows] = vectors
        self._max_norm = max(self._max_norm, float(np.sqrt(np.vecdot(vectors, vectors, dtype=np.float64).max())))
        size = len(self._ids)
        if self._scan is not None and not self._scan.worn(size):
            self._scan.write(rows, vectors)
        elif size >= self._scan_from:
            self._scan = QuantisedScan(self._vectors, size)

    def _code(self, facet: str, value: str | None) -> int:
        if value is None:
            return 0
        known = self._code_of[facet]
        return known.setdefault(value.casefold(), len(known) + 1)

    def _admit(self, first: int, count: int) -> None:
        """Bring the ``count`` rows from ``first`` on, the last ones but for what is out of stock, into stock."""
        moved = min(count, first - self._in_stock)
        last = first + count
        self._swap(np.arange(self._in_stock, self._in_stock + moved), np.arange(last - moved, last))
        self._in_stock += count

    def _set_stock(self, article_id: str, in_stock: bool) -> bool:
        """Whether that changed anything."""
        row = self._row_of[article_id]
        if (row < self._in_stock) == in_stock:
            return False
        border = self._in_stock if in_stock else self._in_stock - 1
        self._swap(np.array([row]), np.array([border]))
        self._in_stock += 1 if in_stock else -1
        return True

    def _swap(self, ones: Rows, others: Rows) -> None:
        """Exchange rows pairwise; none occurs in two pairs."""
        to, from_ = np.concatenate([ones, others]), np.concatenate([others, ones])
        columns: list[NDArray[Any]] = [self._vectors, self._prices, self._created, *self._codes.values()]
        for array in columns:
            array[to] = array[from_]
        if self._scan is not None:
            self._scan.move(to, from_)
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            self._ids[one], self._ids[other] = self._ids[other], self._ids[one]
            self._json[one], self._json[other] = self._json[other], self._json[one]
            for row in (one, other):
                self._row_of[self._ids[row]] = row
                self._touched.add(self._ids[row])

    def _changed(self) -> None:
        self.revision += 1
        self._allowed.clear()
        if len(self._touched) > _MOST_TOUCHED:
            self._journal.clear()
        else:
            self._journal.append((self.revision, frozenset(self._touched)))
        self._touched.clear()

    def touched_since(self, revision: int) -> set[str] | None:
        """Articles whose row, stock or vector may have changed after ``revision``; None where that is long ago."""
        if revision < self.revision - len(self._journal):
            return None
        return {article_id for later, touched in self._journal if later > revision for article_id in touched}

    # Search

    def search(self, vector: Float32, k: int, filters: Filters = EVERYTHING) -> Ranked:
        """The ``k`` articles in stock that pass ``filters`` with the highest inner product with ``vector`` (128).

        Fewer where fewer pass. Raises InvalidVector.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        query = check_vectors(vector, "query vector")
        excluded = self._excluded(filters)
        allowed = self._allowed_by(filters)
        if allowed is _NOBODY:
            return Ranked((), np.zeros(0, np.float32))
        if self._scan is not None and not isinstance(allowed, _Few):
            found = self._scanned(query, k, allowed, excluded)
            if found is not None:
                return found
        return self._summed(query, k, allowed, excluded)

    def search_many(self, vectors: Float32, k: int, filters: Filters = EVERYTHING) -> list[Ranked]:
        """``search`` for each row of ``vectors`` float32 (B, 128)."""
        return [self.search(vector, k, filters) for vector in vectors]

    def _scanned(self, query: Float32, k: int, allowed: _Many | None, excluded: Rows) -> Ranked | None:
        """The answer by the quantised scan, or None where that cannot prove one: ties, or a margin too wide."""
        assert self._scan is not None
        bitmap = None if allowed is None else allowed.bitmap
        for widening in (3, 12):
            wanted = widening * (k + len(excluded)) + 32
            if wanted >= self._in_stock:
                return None
            rows, bound = self._scan.propose(query, wanted, self._in_stock, bitmap)
            if len(excluded):
                rows = rows[~np.isin(rows, excluded)]
            found = self.ranked(rows, self.scores(rows, query), k)
            # A score below the bound can round up to a float32 just above it, but no further.
            if bound == -np.inf or (len(rows) >= k and bound < np.nextafter(found.scores[-1], np.float32(-np.inf))):
                return found
        return None

    def _summed(self, query: Float32, k: int, allowed: _Few | _Many | None, excluded: Rows) -> Ranked:
        """The answer by float32 sums over all that is allowed, those within a rounding error of the best k kept."""
        if allowed is None:
            rows, approximate = np.arange(self._in_stock), self._vectors[: self._in_stock] @ query
        else:
            rows = allowed.rows
            approximate = self._vectors.take(rows, axis=0) @ query
        if len(excluded):
            keep = ~np.isin(rows, excluded)
            rows, approximate = rows[keep], approximate[keep]
        if k < len(rows):
            rows = rows[within_reach(approximate, k, self.rounding(query))]
        return self.ranked(rows, self.scores(rows, query), k)

    def rounding(self, query: Float32) -> float:
        """How far a float32 inner product of ``query`` with an article may lie from the exact one."""
        return _ROUNDING * float(np.linalg.norm(query.astype(np.float64))) * self._max_norm

    def _allowed_by(self, filters: Filters) -> _Few | _Many | None:
        """Rows in stock that pass the facets and prices of ``filters``; None where all do."""
        if not filters.narrows:
            return None if self._in_stock else _NOBODY
        key = filters if not filters.exclude else replace(filters, exclude=frozenset())
        allowed = self._allowed.get(key)
        if allowed is None:
            if len(self._allowed) >= _MAX_CACHED_FILTERS:
                self._allowed.pop(next(iter(self._allowed)))
            mask = self._matches(key, slice(0, self._in_stock))
            rows = np.flatnonzero(mask)
            few = len(rows) <= self._in_stock * _FEW
            allowed = _Few(rows) if few else _Many(np.packbits(mask, bitorder="little"))
            self._allowed[key] = allowed if len(rows) else _NOBODY
        return self._allowed[key]

    def _excluded(self, filters: Filters) -> Rows:
        if not filters.exclude:
            return _NOBODY.rows
        rows = self.rows_of(filters.exclude)
        return rows[rows >= 0]

    def passes(self, rows: Rows, filters: Filters) -> NDArray[np.bool_] | None:
        """Which of ``rows`` pass ``filters``, ``exclude`` included; None where all do."""
        excluded = self._excluded(filters)
        if not filters.narrows and not len(excluded):
            return None
        passes = self._matches(filters, rows) if filters.narrows else np.ones(len(rows), bool)
        return passes & ~np.isin(rows, excluded)

    def rows_of(self, article_ids: Collection[str]) -> Rows:
        """The row of each article, -1 where it is not in stock."""
        known = map(self._row_of.get, article_ids, repeat(-1))
        rows = np.fromiter(known, np.int64, len(article_ids))
        rows[rows >= self._in_stock] = -1
        return rows

    def vectors_of(self, rows: Rows) -> Float32:
        """A copy of the vectors, float32 (len(rows), 128)."""
        return self._vectors.take(rows, axis=0)

    def ids_of(self, rows: Rows) -> list[str]:
        """Article ids of rows."""
        return [self._ids[row] for row in rows.tolist()]

    def scores(self, rows: Rows, query: Float32) -> Float32:
        """Inner products float32 (len(rows)), summed in float64, so that they do not depend on what else is asked."""
        products: Float32 = (self._vectors[rows].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        return products

    def ranked(self, rows: Rows, scores: Float32, k: int) -> Ranked:
        """The best ``k`` of rows with their scores, in answer order."""
        ids = self.ids_of(rows)
        if k < len(rows):
            last = np.partition(scores, len(rows) - k)[len(rows) - k]
            better = np.flatnonzero(scores > last)
            level = ((ids[place], place) for place in np.flatnonzero(scores == last).tolist())
            kept = [*better.tolist(), *(place for _, place in heapq.nsmallest(k - len(better), level))]
        else:
            kept = list(range(len(rows)))
        kept.sort(key=lambda place: (-scores[place], ids[place]))
        return Ranked(tuple(ids[place] for place in kept), scores[kept])

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


def within_reach(approximate: Float32, k: int, error: float) -> Rows:
    """Places that may belong to the best ``k``, where each value may err by ``error``; ascending."""
    if k >= len(approximate):
        return np.arange(len(approximate))
    threshold = float(np.partition(approximate, len(approximate) - k)[len(approximate) - k])
    return np.flatnonzero(approximate >= threshold - 2 * error)


def _grown(array: NDArray[_Number], capacity: int) -> NDArray[_Number]:
    grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _any_of(codes: NDArray[np.int32], wanted: set[int]) -> NDArray[np.bool_]:
    passes = np.zeros(len(codes), dtype=bool)
    for code in wanted:
        passes |= codes == code
    return passes
