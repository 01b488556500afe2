"""Articles' attributes and customers' searches, as models of text are told them.

The rules, each held by a test:

- An article is told by what our own prompts tell of it: title, category, brand, colour and so on, what is known.
- A search is told where it came strictly before the moment: before the validation window or the cut-off in what is
  trained on; before the customer's first purchase of what is to be found in what is asked. That is what the generating
  half reads, too (``offline.generating.sessions_before``), and what is left out of training is left out here.
- Steps stand in order of time, a search behind purchases of its second; of equal searches in a row the first stays
  (``model_store.sessions``). Clicks are not told: the paper adds "the search query as part of the input" alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_store import tables
from model_store.dataset import DataSet
from model_store.prompts import ATTRIBUTES, MAX_QUERY, MAX_TITLE, attribute_value, neutralise
from model_store.purchases import Purchases
from model_store.records import Article, EventType
from offline.baselines.questions import Int64, Sequences
from offline.baselines.texts import Attributes, Texts
from offline.context import Known
from offline.evaluation.task import Task
from offline.run import Split
from offline.style_lstm import customer_index

_COLUMNS = ["customer_id", "timestamp", "event_id", "query"]


def tell(data: DataSet, trained_on: DataSet, split: Split, known: Known, tasks: Sequence[Task]) -> Texts:
    """The texts of a run's questions. ``trained_on``: ``data`` less the end of histories, where that is held out."""
    numbers: dict[str, int] = {}
    early = _read_searches(trained_on, numbers)
    earliest = early if known.part.data is trained_on else _read_searches(known.part.data, numbers)
    whole = early if trained_on is data else _read_searches(data, numbers)
    window = known.window
    texts = Texts(
        [attributes_of(article) for article in data.articles()],
        list(numbers),
        _of_all(known.training, earliest, known.part.end),
        _of_all(known.all, early, split.cutoff),
        _steps(known.training, customer_index(known.training, window.customers), window.customers, early, window.times),
        [_steps(task.history, task.known_customer, task.customer_ids, whole, task.moment) for task in tasks],
    )
    return _renumbered(texts)


def attributes_of(article: Article) -> Attributes:
    """What is known of an article, by the words of prompts; what nothing legible is left of is unknown."""
    values = [("title", neutralise(article.title, MAX_TITLE))]
    values += [(name, attribute_value(article, name)) for name in ATTRIBUTES]
    return {name: value for name, value in values if value}


@dataclass(frozen=True)
class _Searches:
    """S searches by customer, then time, then event id; rows ``offsets[k]:offsets[k + 1]`` are customer k's."""

    number: dict[str, int]
    """k by customer id"""
    offsets: Int64
    time: Int64
    query: Int64
    """(S) by the numbers of all queries"""

    def before(self, customer_id: str, time: int) -> tuple[Int64, Int64]:
        """(queries, times) of a customer's searches strictly before ``time``."""
        place = self.number.get(customer_id)
        if place is None:
            return self.query[:0], self.time[:0]
        low, high = self.offsets[place], self.offsets[place + 1]
        high = low + np.searchsorted(self.time[low:high], time)
        return self.query[low:high], self.time[low:high]


def _read_searches(data: DataSet, numbers: dict[str, int]) -> _Searches:
    """All searches of ``data``; queries that are new get the next of ``numbers``."""
    batches = [
        batch.filter(pc.equal(batch.column("type"), EventType.SEARCH.value)).select(_COLUMNS) for batch in data.events()
    ]
    schema = pa.schema([tables.EVENTS.schema.field(name) for name in _COLUMNS])
    table = pa.Table.from_batches(batches, schema=schema)
    table = table.sort_by([("customer_id", "ascending"), ("timestamp", "ascending"), ("event_id", "ascending")])
    counted = pc.value_counts(table["customer_id"])  # in order of first appearance, so by id
    counts = counted.field("counts").to_numpy(zero_copy_only=False)
    texts = pc.unique(table["query"])
    number = np.array([numbers.setdefault(text, len(numbers)) for text in texts.to_pylist()], np.int64)
    return _Searches(
        {name: place for place, name in enumerate(counted.field("values").to_pylist())},
        np.cumsum([0, *counts], dtype=np.int64),
        tables.seconds(table["timestamp"].combine_chunks()),
        number[pc.index_in(table["query"], value_set=texts).to_numpy()],
    )


def _of_all(purchases: Purchases, searches: _Searches, until: int) -> Sequences:
    """Of all customers who bought something, as ``asking`` tells their purchases."""
    customers = np.flatnonzero(np.diff(purchases.offsets))
    names = [purchases.customer_ids[customer] for customer in customers]
    return _steps(purchases, customers, names, searches, np.full(len(names), until))


def _steps(
    purchases: Purchases, customers: Int64, names: Sequence[str], searches: _Searches, until: Int64
) -> Sequences:
    """Steps of K customers: all ``purchases``, by index, none of −1; and searches by name, before ``until`` (K)."""
    groups = []
    for customer, name, end in zip(customers.tolist(), names, until.tolist(), strict=True):
        low, high = (purchases.offsets[customer], purchases.offsets[customer + 1]) if customer >= 0 else (0, 0)
        article = purchases.article[low:high].astype(np.int64)
        groups.append(_merged(article, purchases.timestamp[low:high], *searches.before(name, end)))
    return Sequences.of(groups)


def _merged(article: Int64, bought: Int64, query: Int64, searched: Int64) -> Int64:
    """Steps of one customer, from articles with their times, and queries with theirs."""
    step, time = np.concatenate([article, ~query]), np.concatenate([bought, searched])
    step = step[np.lexsort((step < 0, time))]
    again = np.zeros(len(step), bool)
    again[1:] = (step[1:] == step[:-1]) & (step[1:] < 0)
    kept: Int64 = step[~again]
    return kept


def _renumbered(texts: Texts) -> Texts:
    """Less the queries that do not occur, the rest in order of the alphabet: others leave no trace."""
    parts = [texts.training, texts.everything, texts.validation, *texts.tests]
    used = np.unique(np.concatenate([~part.article[part.article < 0] for part in parts]))
    ordered = sorted(used.tolist(), key=lambda number: texts.queries[number])
    new = np.zeros(len(texts.queries) + 1, np.int64)
    new[ordered] = np.arange(len(ordered))

    def renumbered(part: Sequences) -> Sequences:
        step = part.article.copy()
        step[step < 0] = ~new[~step[step < 0]]
        return Sequences(part.offsets, step)

    return replace(
        texts,
        queries=[neutralise(texts.queries[number], MAX_QUERY) for number in ordered],
        training=renumbered(texts.training),
        everything=renumbered(texts.everything),
        validation=renumbered(texts.validation),
        tests=[renumbered(part) for part in texts.tests],
    )
