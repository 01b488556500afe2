"""What was bought from which search (Amazon 2024, §4.4): the positive pairs of the title encoder.

A purchase comes from the latest search of the same customer that is not later than it and at most a day old, provided
that the customer clicked on the article in between: no data set names visits, and what else is in an order was often
found otherwise. (In the sample shop, 95% of such purchases are of what was searched for, but 39% of the others.) Where
a data set has no clicks at all, the search alone decides. Several purchases may come from one search; one that no
search precedes comes from none. Purchases that were returned do not count.

Queries are plain text (``model_store.generation.plain_text``): spellings that their encoder cannot tell apart are one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store import tables
from model_store.dataset import DataSet
from model_store.generation import plain_text
from model_store.records import EventType

Int64 = NDArray[np.int64]

VISIT = 86_400
"""Seconds after a search in which a purchase comes from it."""


@dataclass(frozen=True)
class Pairs:
    """P purchases that came from a search, in order of customer and time.

    ``queries``: S plain texts, sorted; ``query`` int64 (P) indices into them; ``article`` int64 (P) rows of the data
    set's articles; ``time`` int64 (P) of the purchases, Unix seconds.
    """

    queries: list[str]
    query: Int64
    article: Int64
    time: Int64

    def __len__(self) -> int:
        return len(self.query)

    def between(self, start: int, end: int) -> Pairs:
        """Pairs with start ≤ time < end; the same queries."""
        rows = (self.time >= start) & (self.time < end)
        return Pairs(self.queries, self.query[rows], self.article[rows], self.time[rows])


def find_pairs(data: DataSet, until: int) -> Pairs:
    """The pairs that are known at ``until``: nothing at or after it is read."""
    purchases = data.purchases(until)
    bought = _Events(purchases.customer.astype(np.int64), purchases.timestamp, purchases.article.astype(np.int64))
    searches, texts, clicks, has_clicks = _read_log(data, until, purchases.customer_ids)
    place = _latest(searches.who, searches.time, bought.who, bought.time)
    rows = np.flatnonzero(place >= 0)
    bought, search = bought.take(rows), searches.take(place[rows])
    found = bought.time - search.time <= VISIT
    if has_clicks:
        found &= _clicked_since(clicks, bought, search.time, len(data.article_ids))
    return Pairs(texts, search.value[found], bought.value[found], bought.time[found])


def _clicked_since(clicks: _Events, bought: _Events, since: Int64, articles: int) -> NDArray[np.bool_]:
    """Whether each customer clicked on what they bought, between ``since`` and the purchase: bool (P)."""
    wanted, which = np.unique(bought.who * articles + bought.value, return_inverse=True)
    clicks = clicks.take(np.isin(clicks.who * articles + clicks.value, wanted))
    clicked = np.searchsorted(wanted, clicks.who * articles + clicks.value)  # which of ``wanted``
    order = np.lexsort((clicks.time, clicked))
    place = _latest(clicked[order], clicks.time[order], which, bought.time)
    known = place >= 0
    known[known] = clicks.time[order][place[known]] >= since[known]
    return known


def _latest(who: Int64, time: Int64, by: Int64, until: Int64) -> Int64:
    """Place int64 (P) of the last row of ``by`` that is not later than ``until``, −1 where there is none.

    ``who`` and ``time`` int64 (R) are sorted by both.
    """
    start = int(time.min(initial=int(until.min(initial=0))))
    place = np.searchsorted(_key(who, time - start), _key(by, until - start), side="right") - 1
    found = (place >= 0) & (who[place] == by if len(who) else False)
    return np.where(found, place, -1)


class QueryNumbers:
    """Numbers of plain texts, given as they come; one dictionary for a whole log that is read in batches."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._known: dict[str, int] = {}

    def of(self, column: pa.Array) -> Int64:
        """Numbers int64 (rows) of the queries in a column; −1 where one is null, or nothing is left of it."""
        coded = column.dictionary_encode()
        numbers = np.array([self._number(text) for text in coded.dictionary.to_pylist()] or [-1], np.int64)
        return np.where(coded.is_valid(), numbers[coded.indices.fill_null(0).to_numpy()], -1)

    @property
    def texts(self) -> list[str]:
        """The plain texts, by number."""
        return list(self._numbers)

    def _number(self, text: str) -> int:
        if text not in self._known:
            plain = plain_text(text)
            self._known[text] = self._numbers.setdefault(plain, len(self._numbers)) if plain else -1
        return self._known[text]


@dataclass(frozen=True)
class _Events:
    """Events of one type: ``who`` (a number), ``time``, and ``value``, which article or query: each int64 (R)."""

    who: Int64
    time: Int64
    value: Int64

    def __len__(self) -> int:
        return len(self.who)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> _Events:
        return _Events(self.who[rows], self.time[rows], self.value[rows])


def _read_log(data: DataSet, until: int, customer_ids: list[str]) -> tuple[_Events, list[str], _Events, bool]:
    """(searches sorted by customer and time, the texts they name, clicks) of some customers, known at ``until``.

    And whether anybody clicked on anything by then.
    """
    customers, articles = pa.array(customer_ids, pa.string()), pa.array(data.article_ids, pa.string())
    numbers = QueryNumbers()
    searches, clicks, has_clicks = [], [], False
    for rows_read in data.events():
        batch = rows_read.filter(pa.array(tables.seconds(rows_read.column("timestamp")) < until))
        of_customers = pc.is_in(batch.column("customer_id"), value_set=customers)
        rows = batch.filter(pc.and_(of_customers, pc.equal(batch.column("type"), EventType.SEARCH.value)))
        searched = _events(rows, customers, numbers.of(rows.column("query")))
        searches.append(searched.take(searched.value >= 0))
        clicked = pc.equal(batch.column("type"), EventType.CLICK.value)
        has_clicks |= bool(pc.any(clicked).as_py())
        rows = batch.filter(pc.and_(of_customers, clicked))
        clicks.append(_events(rows, customers, _places(rows.column("article_id"), articles)))
    texts = sorted(numbers.texts)
    rank = {text: place for place, text in enumerate(texts)}
    renumbered = np.array([rank[text] for text in numbers.texts], np.int64)
    joined = _joined(searches)
    joined = joined.take(np.lexsort((joined.time, joined.who)))
    return _Events(joined.who, joined.time, renumbered[joined.value]), texts, _joined(clicks), has_clicks


def _events(rows: pa.RecordBatch, customers: pa.Array, value: Int64) -> _Events:
    return _Events(_places(rows.column("customer_id"), customers), tables.seconds(rows.column("timestamp")), value)


def _places(column: pa.Array, among: pa.Array) -> Int64:
    places: Int64 = pc.index_in(column, value_set=among).to_numpy(zero_copy_only=False).astype(np.int64)
    return places


def _joined(parts: list[_Events]) -> _Events:
    none = np.zeros(0, np.int64)
    columns = zip(*((part.who, part.time, part.value) for part in parts), strict=True)
    return _Events(*(np.concatenate([none, *column]) for column in columns))


def _key(who: Int64, time: Int64) -> Int64:
    """Sorts by ``who``, then time; 32 bits of seconds are 136 years."""
    return (who << 32) | time
