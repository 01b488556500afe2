"""The articles of one bundle in memory, and the exact search for those that lie nearest to a vector.

Search is maximum inner product: a customer's style d against Fashion DNA f gives the intent of purchase f·d (Zalando
2017, §2.3); a generated title or a query against the titles, all of length 1, gives their cosine (Amazon 2024, §4.4).
The answer is exact (``service.engine.space``). Filters apply inside the search, so that a narrow one still gets all the
answers there are.

Rows [0, S) hold what is in stock, rows [S, N) the rest. A change of stock swaps two rows, so the common search scans
one dense block and needs no mask; nothing is ever tombstoned, and nothing needs compaction.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store.records import Article
from service.engine.filters import EVERYTHING, FACETS, Filters
from service.engine.space import (
    NO_ROWS,
    SCAN_FROM,
    SIZE,
    Few,
    Float32,
    InvalidVector,
    Many,
    Rows,
    Space,
    check_vectors,
    outside,
)

Kind = Literal["dna", "title"]
"""Which vectors are searched: Fashion DNA, or the titles' embeddings."""

_Number = TypeVar("_Number", bound=np.generic)

PUBLIC_FIELDS = ("article_id", "title", "category", "brand", "colour", "price", "image")
"""What an answer says of an article (design §7)."""

_MIN_CAPACITY = 1024
_FEW = 0.1  # of what is in stock: below that, summing the allowed rows alone is quicker than scanning all
_MAX_CACHED_FILTERS = 128
_JOURNAL, _MOST_TOUCHED = 256, 4_096  # changes whose articles are remembered, and how many articles of each


class Ranked(NamedTuple):
    """Answers of one search: the highest score first, equal scores in order of article id.

    ``rows`` int64 (k) holds for as long as the index does not change.
    """

    article_ids: tuple[str, ...]
    scores: Float32  # (k)
    rows: Rows


def public_json(article: Article) -> bytes:
    """The article as answers show it: one JSON object with ``PUBLIC_FIELDS``."""
    # A copy: what orjson returns keeps the whole buffer that it was written into, some KB.
    return bytes(memoryview(orjson.dumps({field: getattr(article, field) for field in PUBLIC_FIELDS})))


_NOBODY = Few(NO_ROWS)


class ArticleIndex:
    """Articles with vectors, facets, prices and stock. For one thread; a search sees every change made before it.

    ``titles``: whether articles come with title embeddings, too. ``place_of`` names an article's place in a table that
    lies elsewhere (``service.engine.ids``); what it does not name has none.
    """

    def __init__(
        self, scan_from: int = SCAN_FROM, *, titles: bool = False, place_of: Mapping[str, int] | None = None
    ) -> None:
        self.revision = 0  # counts changes; rows are valid within one revision
        self._row_of: dict[str, int] = {}
        self._ids: list[str] = []
        self._json: list[bytes] = []
        self._in_stock = 0  # S
        self._capacity = _MIN_CAPACITY
        self._dna = Space(np.zeros((_MIN_CAPACITY, SIZE), np.float32), scan_from)
        self._titles = Space(np.zeros((_MIN_CAPACITY, SIZE), np.float32), scan_from) if titles else None
        self._place_of = place_of or {}
        self._places: NDArray[np.int32] = np.zeros(_MIN_CAPACITY, np.int32)  # -1 where there is none
        self._prices: NDArray[np.float64] = np.zeros(_MIN_CAPACITY, np.float64)  # NaN where unknown
        self._created: NDArray[np.int64] = np.zeros(_MIN_CAPACITY, np.int64)  # -1 where unknown
        self._codes: dict[str, NDArray[np.int32]] = {
            facet: np.zeros(_MIN_CAPACITY, np.int32) for facet in FACETS
        }  # 0 where unknown
        self._code_of: dict[str, dict[str, int]] = {facet: {} for facet in FACETS}
        self._remembered: dict[str, Float32] = {}
        self._allowed: dict[Filters, Few | Many] = {}
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
        return self._dna.one(row)

    def title_of(self, article_id: str) -> str | None:
        """The title of a live article."""
        row = self._row_of.get(article_id)
        return None if row is None else str(orjson.loads(self._json[row])["title"])

    def title_vectors_of(self, article_ids: Sequence[str]) -> Float32:
        """Title embeddings float32 (N, 128) of live articles."""
        return self._space("title").of(np.array([self._row_of[article_id] for article_id in article_ids], np.int64))

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

    def upsert(self, article: Article, dna: Float32, in_stock: bool, title: Float32 | None = None) -> None:
        """Add an article, or replace all that is known of it. Raises InvalidVector and changes nothing."""
        self.upsert_many(
            [article], np.asarray(dna)[None], [in_stock], None if title is None else np.asarray(title)[None]
        )

    def upsert_many(
        self, articles: Sequence[Article], dna: Float32, in_stock: Sequence[bool], titles: Float32 | None = None
    ) -> None:
        """Add or replace articles; of an id that repeats, the last one stays.

        ``dna`` float32 (N, 128), and where the index has them ``titles`` float32 (N, 128), each of length 1. Raises
        InvalidVector, naming the first article at fault, and changes nothing.
        """
        vectors = _checked(articles, dna, "Fashion DNA")
        if (titles is None) is not (self._titles is None):
            raise ValueError("title embeddings come with every article, or with none")
        texts = None if titles is None else _checked(articles, titles, "title embedding")
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
            self._write(
                [articles[place] for place in places], vectors[places], None if texts is None else texts[places]
            )
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
        self._remembered[article_id] = self._dna.one(row)
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

    def reserve(self, rows: int) -> None:
        """Make room for so many articles at once: growing by and by takes more memory, for a while and in the end."""
        if rows > self._capacity:
            self._grow(rows)

    def _grow(self, capacity: int) -> None:
        self._capacity = capacity
        for space in self._spaces():
            space.grow(capacity)
        self._places = _grown(self._places, capacity)
        self._prices = _grown(self._prices, capacity)
        self._created = _grown(self._created, capacity)
        self._codes = {facet: _grown(codes, capacity) for facet, codes in self._codes.items()}

    def _spaces(self) -> list[Space]:
        return [self._dna] if self._titles is None else [self._dna, self._titles]

    def _append(self, article_ids: Sequence[str]) -> None:
        """Make rows for new articles at the end, out of stock for now."""
        rows = len(self._ids) + len(article_ids)
        if rows > self._capacity:
            self._grow(max(rows, self._capacity + self._capacity // 4))
        for article_id in article_ids:
            self._row_of[article_id] = len(self._ids)
            self._ids.append(article_id)
            self._json.append(b"")
            self._remembered.pop(article_id, None)

    def _write(self, articles: Sequence[Article], dna: Float32, titles: Float32 | None) -> None:
        """Set all but the stock of articles that have rows."""
        self._touched.update(article.article_id for article in articles)
        rows = np.array([self._row_of[article.article_id] for article in articles])
        for row, article in zip(rows, articles, strict=True):
            self._json[row] = public_json(article)
        self._prices[rows] = [np.nan if article.price is None else article.price for article in articles]
        self._created[rows] = [-1 if article.created_at is None else article.created_at for article in articles]
        for facet, codes in self._codes.items():
            codes[rows] = [self._code(facet, getattr(article, facet)) for article in articles]
        self._places[rows] = [self._place_of.get(article.article_id, -1) for article in articles]
        self._dna.write(rows, dna, len(self._ids))
        if self._titles is not None and titles is not None:
            self._titles.write(rows, titles, len(self._ids))

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
        columns: list[NDArray[Any]] = [self._places, self._prices, self._created, *self._codes.values()]
        for array in columns:
            array[to] = array[from_]
        for space in self._spaces():
            space.move(to, from_)
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
        if revision == self.revision:
            return set()
        if revision < self.revision - len(self._journal):
            return None
        return {article_id for later, touched in self._journal if later > revision for article_id in touched}

    # Search

    def search(self, vector: Float32, k: int, filters: Filters = EVERYTHING, by: Kind = "dna") -> Ranked:
        """The ``k`` articles in stock that pass ``filters`` with the highest inner product with ``vector`` (128).

        Fewer where fewer pass. Raises InvalidVector.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        query, space = check_vectors(vector, "query vector"), self._space(by)
        allowed = self._allowed_by(filters)
        if allowed is _NOBODY:
            return Ranked((), np.zeros(0, np.float32), NO_ROWS)
        found = space.candidates(query, k, self._in_stock, allowed, self.excluded(filters))
        return self.ranked(*found, k)

    def search_many(self, vectors: Float32, k: int, filters: Filters = EVERYTHING) -> list[Ranked]:
        """``search`` for each row of ``vectors`` float32 (B, 128)."""
        return [self.search(vector, k, filters) for vector in vectors]

    def _space(self, kind: Kind) -> Space:
        if kind == "dna":
            return self._dna
        if self._titles is None:
            raise ValueError("this index holds no title embeddings")
        return self._titles

    def rounding(self, query: Float32) -> float:
        """How far a float32 inner product of ``query`` with a Fashion DNA may lie from the exact one."""
        return self._dna.rounding(query)

    def _allowed_by(self, filters: Filters) -> Few | Many | None:
        """Rows in stock that pass the facets and prices of ``filters``; None where all do."""
        if not filters.narrows:
            return None if self._in_stock else _NOBODY
        key = filters.wide
        allowed = self._allowed.get(key)
        if allowed is None:
            if len(self._allowed) >= _MAX_CACHED_FILTERS:
                self._allowed.pop(next(iter(self._allowed)))
            mask = self._matches(key, slice(0, self._in_stock))
            rows = np.flatnonzero(mask)
            few = len(rows) <= self._in_stock * _FEW
            allowed = Few(rows) if few else Many.of(mask)
            self._allowed[key] = allowed if len(rows) else _NOBODY
        return self._allowed[key]

    def excluded(self, filters: Filters) -> Rows:
        """The rows in stock that ``filters`` exclude by name."""
        if not filters.exclude:
            return NO_ROWS
        rows = self.rows_of(filters.exclude)
        return rows[rows >= 0]

    def passes(self, rows: Rows, filters: Filters) -> NDArray[np.bool_] | None:
        """Which of ``rows`` pass ``filters``, ``exclude`` included; None where all do."""
        excluded = self.excluded(filters)
        if not filters.narrows and not len(excluded):
            return None
        passes = self._matches(filters, rows) if filters.narrows else np.ones(len(rows), bool)
        return passes & outside(rows, excluded)

    def rows_of(self, article_ids: Collection[str]) -> Rows:
        """The row of each article, -1 where it is not in stock."""
        known = map(self._row_of.get, article_ids, repeat(-1))
        rows = np.fromiter(known, np.int64, len(article_ids))
        rows[rows >= self._in_stock] = -1
        return rows

    def allowed_rows(self, filters: Filters) -> Rows:
        """The rows of all that is in stock and passes ``filters``, ``exclude`` included; ascending."""
        allowed = self._allowed_by(filters)
        rows = np.arange(self._in_stock) if allowed is None else allowed.rows
        excluded = self.excluded(filters)
        return rows[outside(rows, excluded)] if len(excluded) else rows

    def allowed_among(self, article_ids: Collection[str], filters: Filters) -> Rows:
        """The rows of those of ``article_ids`` that are in stock and pass ``filters``, ``exclude`` included."""
        rows = self.rows_of(article_ids)
        rows = rows[rows >= 0]
        passes = self.passes(rows, filters)
        return rows if passes is None else rows[passes]

    def places_of(self, rows: Rows) -> NDArray[np.int32]:
        """The articles' places in the table that ``place_of`` speaks of, int32 (len(rows)), -1 where there is none."""
        return self._places[rows]

    def vectors_of(self, rows: Rows) -> Float32:
        """A copy of the Fashion DNA, float32 (len(rows), 128)."""
        return self._dna.of(rows)

    def ids_of(self, rows: Rows) -> list[str]:
        """Article ids of rows."""
        return [self._ids[row] for row in rows.tolist()]

    def scores(self, rows: Rows, query: Float32, by: Kind = "dna") -> Float32:
        """Inner products float32 (len(rows)), summed in float64, so that they do not depend on what else is asked."""
        return self._space(by).scores(rows, query)

    def ranked(self, rows: Rows, scores: Float32, k: int) -> Ranked:
        """The best ``k`` of rows with their scores, in answer order."""
        if k < len(rows):
            last = np.partition(scores, len(rows) - k)[len(rows) - k]
            better, level = np.flatnonzero(scores > last), np.flatnonzero(scores == last)
            if len(better) + len(level) > k:
                first = heapq.nsmallest(k - len(better), zip(self.ids_of(rows[level]), level.tolist(), strict=True))
                level = np.array([place for _, place in first], np.int64)
            kept = np.concatenate([better, level])
            rows, scores = rows[kept], scores[kept]
        ids = self.ids_of(rows)
        order = sorted(range(len(ids)), key=list(zip((-scores).tolist(), ids, strict=True)).__getitem__)
        return Ranked(tuple(ids[place] for place in order), scores[order], rows[order])

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


def _checked(articles: Sequence[Article], vectors: Float32, what: str) -> Float32:
    """``vectors`` (N, 128) of N ``articles``. Raises InvalidVector, naming the first article at fault."""
    try:
        checked = check_vectors(vectors, what)
    except InvalidVector:
        for article, vector in zip(articles, vectors, strict=False):
            check_vectors(vector, f"{what} of article '{article.article_id}'")
        raise
    if checked.shape != (len(articles), SIZE):
        raise InvalidVector(f"{what}: has shape {checked.shape} for {len(articles)} articles")
    return checked


def _grown(array: NDArray[_Number], capacity: int) -> NDArray[_Number]:
    grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _any_of(codes: NDArray[np.int32], wanted: set[int]) -> NDArray[np.bool_]:
    passes = np.zeros(len(codes), dtype=bool)
    for code in wanted:
        passes |= codes == code
    return passes
