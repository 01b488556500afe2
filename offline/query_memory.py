"""Building the query-product memory from search logs (Amazon 2024, §4.2).

The rules, each held by a test:

- Rows of the search results are grouped by the plain text of their query (``model_store.generation.plain_text``).
- What the shop shows changes, and old lists name what is no longer in stock. So an article's place is that in the
  latest list that showed it: first come the articles of a query's latest list by their position, then what only older
  lists showed, the later ones first. Rows without a timestamp count as the oldest. Equal places stand in order of
  article id.
- Of each query the first ``positions`` articles are kept; of more than ``max_queries`` queries those with most rows.
- Only rows before ``known_at`` count, and those without a timestamp.
- A data set without search results falls back on what was bought from each query (``offline.search_pairs``), most often
  first. Without searches either, the memory is empty, and prompts name no candidates.

A log of any length is read in batches; what is held is as large as what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store import tables
from model_store.dataset import DataSet
from model_store.generation import TEXT_SIZE, QueryMemory
from model_store.records import EventType
from offline.config import QueryMemoryConfig
from offline.search_pairs import QueryNumbers, find_pairs
from offline.sequences import Example

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Encode = Callable[[Sequence[str]], Float32]
"""B texts → keys, float32 (B, 128)."""


def build_memory(data: DataSet, encode: Encode, config: QueryMemoryConfig, *, known_at: int) -> QueryMemory:
    """The memory as it is known at ``known_at`` (Unix seconds); queries in order of their text."""
    lists = query_lists(data, config, known_at=known_at)
    queries = list(lists)
    keys = encode(queries) if queries else np.zeros((0, TEXT_SIZE), np.float32)
    return QueryMemory(queries, np.ascontiguousarray(keys, np.float32), [lists[query] for query in queries])


def query_lists(data: DataSet, config: QueryMemoryConfig, *, known_at: int) -> dict[str, list[str]]:
    """Article ids by query, best first; queries in order of their text."""
    lists = _from_results(data, config, known_at) or _from_purchases(data, config, known_at)
    return dict(sorted(lists.items()))


@dataclass(frozen=True)
class _Places:
    """R articles in lists of queries: which query, which article (its place in order of id), when, and where.

    Each int64 (R); a time of −1 is unknown.
    """

    query: Int64
    article: Int64
    time: Int64
    position: Int64

    def best(self, most: int) -> _Places:
        """Of each query the first ``most`` articles, each where it stands best; sorted by query, then place."""
        ranked = self._take(np.lexsort((self.article, self.position, -self.time, self.query)))
        pair = np.stack([ranked.query, ranked.article])
        first = np.sort(np.unique(pair, axis=1, return_index=True)[1])
        ranked = ranked._take(first)
        start = np.searchsorted(ranked.query, ranked.query)
        return ranked._take(np.flatnonzero(np.arange(len(ranked.query)) - start < most))

    def _take(self, rows: Int64) -> _Places:
        return _Places(self.query[rows], self.article[rows], self.time[rows], self.position[rows])


def _from_results(data: DataSet, config: QueryMemoryConfig, known_at: int) -> dict[str, list[str]]:
    names = sorted(data.article_ids)
    ids = pa.array(names, pa.string())
    numbers, none = QueryNumbers(), np.zeros(0, np.int64)
    kept, counts = _Places(none, none, none, none), none
    for batch in data.search_results():
        time = tables.seconds(batch.column("timestamp"), -1)
        query = numbers.of(batch.column("query"))
        rows = np.flatnonzero((time < known_at) & (query >= 0))
        article = pc.index_in(batch.column("article_id"), value_set=ids).to_numpy().astype(np.int64)
        position = batch.column("position").to_numpy().astype(np.int64)
        joined = zip(
            (kept.query, kept.article, kept.time, kept.position), (query, article, time, position), strict=True
        )
        kept = _Places(*(np.concatenate([before, new[rows]]) for before, new in joined)).best(config.positions)
        seen = np.bincount(query[rows], minlength=len(numbers.texts))
        seen[: len(counts)] += counts
        counts = seen
    return _lists(kept.query, kept.article, numbers.texts, names, counts, config.max_queries)


def _from_purchases(data: DataSet, config: QueryMemoryConfig, known_at: int) -> dict[str, list[str]]:
    names = sorted(data.article_ids)
    place = {name: number for number, name in enumerate(names)}
    pairs = find_pairs(data, known_at)
    article = np.array([place[data.article_ids[row]] for row in pairs.article.tolist()], np.int64)
    (query, bought), number = np.unique(np.stack([pairs.query, article]), axis=1, return_counts=True)
    often = _Places(query, bought, number, np.zeros_like(number)).best(config.positions)
    counts = np.bincount(pairs.query, minlength=len(pairs.queries))
    return _lists(often.query, often.article, pairs.queries, names, counts, config.max_queries)


def _lists(
    query: Int64, article: Int64, texts: Sequence[str], names: Sequence[str], counts: Int64, most: int
) -> dict[str, list[str]]:
    """Article ids by query, of the ``most`` queries with the highest counts; equal counts in order of their text."""
    kept = sorted(np.unique(query).tolist(), key=lambda number: (-int(counts[number]), texts[number]))[:most]
    low, high = np.searchsorted(query, kept), np.searchsorted(query, kept, side="right")
    return {
        texts[number]: [names[one] for one in article[start:end].tolist()]
        for number, start, end in zip(kept, low.tolist(), high.tolist(), strict=True)
    }


# --- how much it finds -------------------------------------------------------------------------------------------


def memory_recall(
    data: DataSet, memory: QueryMemory, encode: Encode, config: QueryMemoryConfig, examples: Sequence[Example]
) -> float:
    """The share of examples whose article is among the prompt's candidates, as far as they searched; 0 of none.

    Candidates are those of the latest query, in stock at the example's moment, as ``offline.sequences.Prompts`` shows.
    """
    searched = [(example, query) for example in examples if (query := _latest_query(example)) is not None]
    if not searched:
        return 0.0
    queries = sorted({query for _, query in searched})
    keys = dict(zip(queries, encode(queries), strict=True))
    row_of = {article_id: row for row, article_id in enumerate(data.article_ids)}
    found = 0
    for example, query in searched:
        in_stock = data.availability.in_stock_at(example.time)

        def shown(article_id: str, in_stock: NDArray[np.bool_] = in_stock) -> bool:
            return bool(in_stock[row_of[article_id]])

        candidates = memory.candidates(keys[query], config.nearest_queries, config.top_articles, shown)
        found += data.article_ids[example.target] in candidates
    return found / len(searched)


def compare_query_encoders(
    data: DataSet,
    encoders: Mapping[str, Encode],
    config: QueryMemoryConfig,
    examples: Sequence[Example],
    *,
    known_at: int,
) -> dict[str, float]:
    """``memory_recall`` of held-out ``examples`` by the name of the encoder that makes the memory's keys."""
    return {
        name: memory_recall(data, build_memory(data, encode, config, known_at=known_at), encode, config, examples)
        for name, encode in encoders.items()
    }


def _latest_query(example: Example) -> str | None:
    return next((event.query for event in reversed(example.events) if event.type is EventType.SEARCH), None)
