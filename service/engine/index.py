"""The articles of one bundle in memory, and the search for those that lie nearest to a vector.

Search is maximum inner product: a customer's style d against Fashion DNA f gives the intent of purchase f·d (Zalando
2017, §2.3); a generated title or a query against the titles, all of length 1, gives their cosine (Amazon 2024, §4.4).
Filters and stock apply inside the search, so that a narrow filter still gets all the answers there are
(``service.engine.space``).

An article keeps its row for as long as it is in the catalogue; a row that is left is given to the next that comes.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store.records import Article
from service.engine.allowed import AllowedRows
from service.engine.arrays import NO_ROWS, Float32, Marks, Rows, grown, largest
from service.engine.cells import Asked
from service.engine.columns import Columns
from service.engine.filters import EVERYTHING, Filters
from service.engine.space import CELLS_FROM, COSINE_ROUNDING, SIZE, Candidates, InvalidVector, Space, check_vectors

Kind = Literal["dna", "title"]
"""Which vectors are searched: Fashion DNA, or the titles' embeddings."""

PUBLIC_FIELDS = ("article_id", "title", "category", "brand", "colour", "price", "image")
"""What an answer says of an article (design §7)."""

_MIN_CAPACITY = 1024  # rows; a capacity is a multiple of 8
_JOURNAL, _MOST_TOUCHED = 256, 4_096  # changes whose articles are remembered, and how many articles of each
_MANY_EXCLUDED = 100  # articles
_SORTED = 100  # rows: of more, those that cannot be among the best are put aside before they are sorted


class Ranked(NamedTuple):
    """Answers of one search: the highest score first, equal scores in order of article id.

    ``rows`` int64 (k) holds for as long as these articles are in the catalogue.
    """

    article_ids: tuple[str, ...]
    scores: Float32  # (k)
    rows: Rows


class Sought(NamedTuple):
    """One search: the ``k`` articles in stock that pass ``filters`` and lie nearest to ``vector`` float32 (128)."""

    vector: Float32
    k: int
    filters: Filters = EVERYTHING


def public_json(article: Article) -> bytes:
    """The article as answers show it: one JSON object with ``PUBLIC_FIELDS``."""
    # A copy: what orjson returns keeps the whole buffer that it was written into, some KB.
    return bytes(memoryview(orjson.dumps({field: getattr(article, field) for field in PUBLIC_FIELDS})))


class ArticleIndex:
    """Articles with vectors, facets, prices and stock. For one thread; a search sees every change made before it.

    ``titles``: whether articles come with title embeddings, too. ``place_of`` names an article's place in a table that
    lies elsewhere (``service.engine.ids``); what it does not name has none.
    """

    def __init__(
        self, cells_from: int = CELLS_FROM, *, titles: bool = False, place_of: Mapping[str, int] | None = None
    ) -> None:
        self.revision = 0  # counts changes
        self.marks = Marks(_MIN_CAPACITY)
        self._row_of: dict[str, int] = {}
        self._ids: list[str] = []  # by row
        self._open_json: list[bytes] = []
        self._free: list[int] = []  # rows that no article has
        self._capacity = _MIN_CAPACITY
        self._dna = _space("mixtures", cells_from)
        self._titles = _space("variations", cells_from) if titles else None
        self._columns = Columns(_MIN_CAPACITY)
        self._allowed = AllowedRows(self._columns.match, _MIN_CAPACITY)
        self._place_of = place_of or {}
        self._places: NDArray[np.int32] = np.zeros(_MIN_CAPACITY, np.int32)  # -1 where there is none
        self._remembered: dict[str, Float32] = {}
        self._journal: deque[tuple[int, frozenset[str]]] = deque(maxlen=_JOURNAL)

    # What is here

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def in_stock_count(self) -> int:
        return self._allowed.in_stock_count

    @property
    def rows(self) -> int:
        """Every article's row is below this."""
        return len(self._ids)

    def knows(self, article_id: str) -> bool:
        """Whether the article is in the live catalogue, in stock or not."""
        return article_id in self._row_of

    def in_stock(self, article_id: str) -> bool:
        row = self._row_of.get(article_id)
        return row is not None and bool(self._allowed.in_stock[row])

    def dna_of(self, article_id: str) -> Float32 | None:
        """Fashion DNA float32 (128) of an article that is live or remembered. Do not write to it."""
        row = self._row_of.get(article_id)
        if row is None:
            return self._remembered.get(article_id)
        return self._dna.one(row)

    def title_of(self, article_id: str) -> str | None:
        """The title of a live article."""
        row = self._row_of.get(article_id)
        return None if row is None else str(orjson.loads(self._open_json[row] + b"}")["title"])

    def title_vectors_of(self, article_ids: Sequence[str]) -> Float32:
        """Title embeddings float32 (N, 128) of live articles."""
        return self._space("title").of(np.array([self._row_of[article_id] for article_id in article_ids], np.int64))

    def article_json(self, article_id: str) -> bytes | None:
        """The article's public fields as one JSON object, or None where it is not live."""
        row = self._row_of.get(article_id)
        return None if row is None else self._open_json[row] + b"}"

    def open_jsons(self, rows: Rows) -> list[bytes]:
        """``article_json`` of live articles without its last brace, for what an answer adds to it."""
        return [self._open_json[row] for row in rows.tolist()]

    def facets(self, facet: str, most: int) -> list[str]:
        """The values of a facet (``service.engine.filters.FACETS``) among what is in stock, the most frequent first."""
        return self._columns.frequent(facet, np.flatnonzero(self._allowed.in_stock), most)

    def some_in_stock(self, most: int) -> Rows:
        """Rows of articles in stock, evenly out of all of them where they are more than ``most``."""
        rows = np.flatnonzero(self._allowed.in_stock)
        return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]

    def created_since(self, time: int) -> list[str]:
        """Articles in stock that were created at ``time`` (Unix seconds) or later."""
        rows = np.flatnonzero(self._allowed.in_stock)
        return self.ids_of(rows[self._columns.since(time, rows)])

    def is_newer(self, article_id: str, time: int) -> bool:
        """Whether the article is in stock and was created at ``time`` (Unix seconds) or later."""
        row = self._row_of.get(article_id)
        return row is not None and bool(
            self._allowed.in_stock[row] and self._columns.since(time, slice(row, row + 1))[0]
        )

    def article_ids(self) -> tuple[str, ...]:
        """Every live article, in no particular order."""
        return tuple(self._row_of)

    def known_ids(self) -> set[str]:
        """Every article that is live or remembered."""
        return {*self._row_of, *self._remembered}

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
        places = list({article.article_id: place for place, article in enumerate(articles)}.values())
        if not places:
            return
        chosen = [articles[place] for place in places]
        rows = np.array([self._row_for(article.article_id) for article in chosen], np.int64)
        for row, article in zip(rows, chosen, strict=True):
            self._open_json[row] = public_json(article)[:-1]
        self._places[rows] = [self._place_of.get(article.article_id, -1) for article in chosen]
        self._dna.write(rows, vectors[places])
        if self._titles is not None and texts is not None:
            self._titles.write(rows, texts[places])
        self._columns.write(rows, chosen)
        self._allowed.write(rows, np.array([in_stock[place] for place in places], bool))
        self._changed({article.article_id for article in chosen})

    def set_stock(self, article_id: str, in_stock: bool) -> bool:
        """Whether the article is live; its stock is set if so."""
        row = self._row_of.get(article_id)
        if row is None:
            return False
        if self._allowed.in_stock[row] != in_stock:
            self._allowed.set_stock(np.array([row]), np.array([in_stock]))
            self._changed({article_id})
        return True

    def remove(self, article_id: str) -> bool:
        """Take an article out of every answer; its DNA is remembered for histories. False where it was not live."""
        row = self._row_of.pop(article_id, None)
        if row is None:
            return False
        self._remembered[article_id] = self._dna.one(row)
        self._allowed.set_stock(np.array([row]), np.array([False]))
        self._open_json[row] = b""
        self._free.append(row)
        self._changed({article_id})
        return True

    def forget(self, article_id: str) -> None:
        """Know nothing of an article any more, its DNA included."""
        self.remove(article_id)
        self._remembered.pop(article_id, None)

    def remember_dna(self, article_id: str, dna: Float32) -> None:
        """Know the DNA of an article that is not live, for the histories that hold it."""
        self._remembered[article_id] = check_vectors(dna, f"article '{article_id}'")

    def reserve(self, rows: int) -> None:
        """Make room for so many articles at once: growing by and by takes more memory, for a while and in the end."""
        if rows > self._capacity:
            self._grow(rows)

    def settle(self) -> None:
        """Make ready for searches what a search would otherwise stop for: about a second for 190,000 articles.

        It may run in a thread while others search, but not while anything changes.
        """
        for space in self._spaces():
            space.settle()

    def worn(self) -> list[Space]:
        """What should have cells, or better ones: ``settle`` makes them, or ``Space.refit`` while all else goes on."""
        return [space for space in self._spaces() if space.worn]

    def _grow(self, capacity: int) -> None:
        self._capacity = -(-capacity // 8) * 8
        for space in self._spaces():
            space.grow(self._capacity)
        self._places = grown(self._places, self._capacity)
        self.marks.grow(self._capacity)
        self._columns.grow(self._capacity)
        self._allowed.grow(self._capacity)

    def _spaces(self) -> list[Space]:
        return [self._dna] if self._titles is None else [self._dna, self._titles]

    def _row_for(self, article_id: str) -> int:
        """The article's row; one of its own from here on where it has none yet."""
        row = self._row_of.get(article_id)
        if row is not None:
            return row
        if self._free:
            row = self._free.pop()
            self._ids[row] = article_id
        else:
            row = len(self._ids)
            if row == self._capacity:
                self._grow(self._capacity + self._capacity // 4)
            self._ids.append(article_id)
            self._open_json.append(b"")
        self._row_of[article_id] = row
        self._remembered.pop(article_id, None)
        return row

    def _changed(self, article_ids: set[str]) -> None:
        self.revision += 1
        if len(article_ids) > _MOST_TOUCHED:
            self._journal.clear()
        else:
            self._journal.append((self.revision, frozenset(article_ids)))

    def touched_since(self, revision: int) -> set[str] | None:
        """Articles of which anything may have changed after ``revision``; None where that is long ago."""
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
        found = self.candidates(vector, k, filters, by)
        return self.ranked(found.rows, found.scores, k, filters.exclude)

    def candidates(self, vector: Float32, k: int, filters: Filters = EVERYTHING, by: Kind = "dna") -> Candidates:
        """What ``search`` finds before it is ranked: more than ``k``, and what ``filters`` exclude is still there."""
        return self.candidates_many([Sought(vector, k, filters)], by)[0]

    def candidates_many(self, sought: Sequence[Sought], by: Kind = "dna") -> list[Candidates]:
        """``candidates`` for many, in the order given.

        Those of the same filter are looked for together, but for those who want more than twice as much as others.
        """
        by_filter: defaultdict[Filters, dict[int, int]] = defaultdict(dict)
        for place, each in enumerate(sought):
            if each.k < 1:
                raise ValueError(f"k must be at least 1, not {each.k}")
            by_filter[each.filters.wide][place] = each.k + self._hidden(each.filters)
        found: dict[int, Candidates] = {}
        for filters, wanted in by_filter.items():
            for together in _alike(wanted):
                queries = check_vectors(np.stack([sought[place].vector for place in together]), "query vector")
                most = wanted[together[-1]]
                candidates = self._space(by).candidates_many(queries, most, self._allowed.of(filters))
                found.update(zip(together, candidates, strict=True))
        return [found[place] for place in range(len(sought))]

    def _hidden(self, filters: Filters) -> int:
        """So many articles in stock at most are excluded; to look for as many more is quicker than to look them up."""
        return len(filters.exclude) if len(filters.exclude) <= _MANY_EXCLUDED else len(self.excluded(filters))

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
        """How far float32 inner products of ``query`` with one Fashion DNA, summed in any order, may lie apart."""
        return self._dna.rounding(query)

    def excluded(self, filters: Filters) -> Rows:
        """The rows in stock that ``filters`` exclude by name."""
        if not filters.exclude:
            return NO_ROWS
        rows = self.rows_of(filters.exclude)
        return rows[rows >= 0]

    def passes(self, rows: Rows, filters: Filters) -> NDArray[np.bool_] | None:
        """Which of ``rows`` pass ``filters``, ``exclude`` left aside; None where all do."""
        return self._columns.match(filters, rows) if filters.narrows else None

    def rows_of(self, article_ids: Collection[str]) -> Rows:
        """The row of each article, -1 where it is not in stock."""
        known = map(self._row_of.get, article_ids, repeat(-1))
        rows = np.fromiter(known, np.int64, len(article_ids))
        rows[~self._allowed.in_stock[rows]] = -1  # also where it is -1: the last row is as good as any other
        return rows

    def allowed_rows(self, filters: Filters) -> Rows:
        """The rows of all that is in stock and passes ``filters``, ``exclude`` included; ascending."""
        rows, excluded = self._allowed.of(filters).rows, self.excluded(filters)
        return self.marks.outside(rows, excluded) if len(excluded) else rows

    def allowed_among(self, article_ids: Collection[str], filters: Filters) -> Rows:
        """The rows of those of ``article_ids`` that are in stock and pass ``filters``, ``exclude`` included."""
        rows = self.rows_of([article_id for article_id in article_ids if article_id not in filters.exclude])
        rows = rows[rows >= 0]
        passes = self.passes(rows, filters)
        return rows if passes is None else rows[passes]

    def allowed_row(self, article_id: str, filters: Filters) -> int | None:
        """The row of an article that is in stock and passes ``filters``, ``exclude`` included; None of another."""
        row = self._row_of.get(article_id)
        if row is None or not self._allowed.in_stock[row] or article_id in filters.exclude:
            return None
        passes = self.passes(np.array([row]), filters)
        return row if passes is None or passes[0] else None

    def places_of(self, rows: Rows) -> NDArray[np.int32]:
        """The articles' places in the table that ``place_of`` speaks of, int32 (len(rows)), -1 where there is none."""
        return self._places[rows]

    def vectors_of(self, rows: Rows) -> Float32:
        """A copy of the Fashion DNA, float32 (len(rows), 128)."""
        return self._dna.of(rows)

    def ids_of(self, rows: NDArray[np.integer]) -> list[str]:
        """Article ids of rows."""
        return [self._ids[row] for row in rows.tolist()]

    def scores(self, rows: Rows, query: Float32, by: Kind = "dna") -> Float32:
        """Inner products float32 (len(rows)), which do not depend on what else is asked."""
        return self._space(by).scores(rows, query)

    def most_alike(self, query: Float32, k: int, filters: Filters) -> Ranked:
        """The ``k`` articles in stock that pass ``filters`` with the highest cosine of Fashion DNA with ``query``."""
        rows = self.allowed_rows(filters)
        if k < len(rows):
            cosines = self._dna.cosines(rows, query)
            rows = rows[cosines >= largest(cosines, k) - COSINE_ROUNDING]
        return self.ranked(rows, self._dna.exact_cosines(rows, query), k)

    def ranked(self, rows: Rows, scores: Float32, k: int, exclude: frozenset[str] = frozenset()) -> Ranked:
        """The best ``k`` of rows, all distinct, with their scores, in answer order; without those of ``exclude``."""
        most = k + len(exclude)
        if len(rows) > most + _SORTED:
            reach = scores >= largest(scores, most)
            rows, scores = rows[reach], scores[reach]
        order = np.argsort(-scores)[: most + 1]
        best = scores[order].tolist()
        if len(set(best)) < len(best):  # equal scores: their order, and which is the last, is decided by id
            keyed = zip((-scores).tolist(), self.ids_of(rows), range(len(rows)), strict=True)
            order = np.array([place for _, _, place in heapq.nsmallest(most, keyed)], np.int64)
        rows, scores = rows[order], scores[order]
        ids = self.ids_of(rows)
        if not exclude.isdisjoint(ids):
            kept = [place for place, article_id in enumerate(ids) if article_id not in exclude][:k]
            return Ranked(tuple([ids[place] for place in kept]), scores[kept], rows[kept])
        return Ranked(tuple(ids[:k]), scores[:k], rows[:k])


def _alike(wanted: Mapping[int, int]) -> Iterator[list[int]]:
    """The keys of ``wanted`` in groups, whose values differ by no more than a factor of two; the least first."""
    group: list[int] = []
    for place in sorted(wanted, key=wanted.__getitem__):
        if group and wanted[place] > 2 * wanted[group[0]]:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _space(asked: Asked, cells_from: int) -> Space:
    return Space(np.zeros((_MIN_CAPACITY, SIZE), np.float32), asked, cells_from=cells_from)


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
