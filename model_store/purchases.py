"""Purchases, made of a data set's purchases and returns: what stayed with the customers, in order of time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store import tables
from model_store.history import effective_history
from model_store.records import Event, EventType


@dataclass(frozen=True)
class Purchases:
    """Purchases that were kept (returns taken out), sorted by customer, then by time, then by event id.

    P purchases of K customers; rows ``offsets[k]:offsets[k + 1]`` are customer k's, oldest first. A customer may have
    none, once ``before`` or ``between`` has cut them off.
    """

    customer_ids: list[str]
    """(K)"""
    offsets: NDArray[np.int64]
    """(K + 1)"""
    customer: NDArray[np.int32]
    """(P) index into ``customer_ids``"""
    article: NDArray[np.int32]
    """(P) index into the data set's ``article_ids``"""
    timestamp: NDArray[np.int64]
    """(P) Unix seconds"""
    order: NDArray[np.int64]
    """(P) number of the order: one customer's purchases with one order_id, or else with one timestamp"""
    row: NDArray[np.int64]
    """(P) row of the events table"""

    def __len__(self) -> int:
        return len(self.article)

    def before(self, time: int) -> Purchases:
        """Purchases earlier than ``time``; the same customers and numbers."""
        return self._take(self.timestamp < time)

    def between(self, start: int, end: int) -> Purchases:
        """Purchases with start ≤ timestamp < end; the same customers and numbers."""
        return self._take((self.timestamp >= start) & (self.timestamp < end))

    def _take(self, rows: NDArray[np.bool_]) -> Purchases:
        customer = self.customer[rows]
        offsets = _offsets(customer, len(self.customer_ids))
        columns = (self.article[rows], self.timestamp[rows], self.order[rows], self.row[rows])
        return Purchases(self.customer_ids, offsets, customer, *columns)


@dataclass(frozen=True)
class HistoryEvents:
    """Purchases and returns as columns of one length, in file order."""

    event_id: pa.ChunkedArray
    order_id: pa.ChunkedArray
    """null where there is none"""
    customer_ids: list[str]
    customer: NDArray[np.int32]
    """index into ``customer_ids``, which is sorted"""
    article: NDArray[np.int32]
    timestamp: NDArray[np.int64]
    is_return: NDArray[np.bool_]
    row: NDArray[np.int64]
    """row of the events table"""

    def take(self, rows: NDArray[np.integer]) -> HistoryEvents:
        """Some of them, in that order."""
        return HistoryEvents(
            self.event_id.take(rows),
            self.order_id.take(rows),
            self.customer_ids,
            self.customer[rows],
            self.article[rows],
            self.timestamp[rows],
            self.is_return[rows],
            self.row[rows],
        )


def read_history_events(folder: Path, article_ids: list[str]) -> HistoryEvents:
    """Purchases and returns of the data set in ``folder``."""
    known = pa.array(article_ids, pa.string())
    history = pa.array([EventType.PURCHASE.value, EventType.RETURN.value])
    columns = ["event_id", "customer_id", "type", "article_id", "timestamp", "order_id"]
    schema = pa.schema([tables.EVENTS.schema.field(name) for name in columns])
    batches, rows = [], []
    for first_row, batch in tables.read_batches(folder, tables.EVENTS, columns=columns):
        chosen = pc.is_in(batch.column("type"), history)
        batches.append(batch.filter(chosen))
        rows.append(first_row + np.flatnonzero(chosen))
    table = pa.Table.from_batches(batches, schema=schema)
    ids = pc.unique(table["customer_id"])
    ids = ids.take(pc.sort_indices(ids))
    return HistoryEvents(
        table["event_id"],
        table["order_id"],
        ids.to_pylist(),
        pc.index_in(table["customer_id"], value_set=ids).to_numpy(),
        pc.index_in(table["article_id"], value_set=known).to_numpy(),
        table["timestamp"].cast(pa.int64()).to_numpy(),
        pc.equal(table["type"], EventType.RETURN.value).to_numpy(),
        np.concatenate([np.zeros(0, np.int64), *rows]),
    )


def purchases_of(events: HistoryEvents, article_ids: list[str]) -> Purchases:
    """What stayed with the customers, by the rule of ``model_store.history``."""
    kept = events.take(np.flatnonzero(~events.is_return & ~_taken_back(events, article_ids)))
    kept = kept.take(_history_order(kept))
    buyers = np.unique(kept.customer)
    customer = np.searchsorted(buyers, kept.customer).astype(np.int32)
    return Purchases(
        [kept.customer_ids[index] for index in buyers],
        _offsets(customer, len(buyers)),
        customer,
        kept.article,
        kept.timestamp,
        _order_numbers(kept),
        kept.row,
    )


def _history_order(events: HistoryEvents) -> NDArray[np.int64]:
    """Row numbers sorted by customer, timestamp, event id. Ids are compared only where the rest is equal."""
    order = np.lexsort((events.timestamp, events.customer))
    customer, timestamp = events.customer[order], events.timestamp[order]
    same = (customer[1:] == customer[:-1]) & (timestamp[1:] == timestamp[:-1])
    tied = np.zeros(len(order), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    rows = order[tied]
    if len(rows):
        rank = pc.rank(events.event_id.take(rows).combine_chunks(), tiebreaker="first").to_numpy()
        order[tied] = rows[np.lexsort((rank, timestamp[tied], customer[tied]))]
    return order


def _taken_back(events: HistoryEvents, article_ids: list[str]) -> NDArray[np.bool_]:
    """Rows whose purchase a return took out, bool (rows), by the rule of ``model_store.history``.

    A return touches purchases of its own article only, so the rule runs per (customer, article) that has a return.
    """
    taken = np.zeros(len(events.customer), dtype=bool)
    pair = events.customer.astype(np.int64) * len(article_ids) + events.article
    concerned = np.flatnonzero(np.isin(pair, pair[events.is_return]))
    concerned = concerned[np.argsort(pair[concerned], kind="stable")]
    if not len(concerned):
        return taken
    records = _records(events, concerned, article_ids)
    bounds = np.flatnonzero(np.diff(pair[concerned], prepend=-1, append=-1))
    for low, high in pairwise(bounds):
        kept, _ = effective_history(records[low:high])
        ids = {purchase.event_id for purchase in kept}
        taken[concerned[low:high]] = [record.event_id not in ids for record in records[low:high]]
    return taken & ~events.is_return


def _records(events: HistoryEvents, rows: NDArray[np.int64], article_ids: list[str]) -> list[Event]:
    event_ids, order_ids = events.event_id.take(rows).to_pylist(), events.order_id.take(rows).to_pylist()
    return [
        Event.model_construct(
            event_id=event_id,
            type=EventType.RETURN if events.is_return[row] else EventType.PURCHASE,
            customer_id=events.customer_ids[events.customer[row]],
            article_id=article_ids[events.article[row]],
            timestamp=int(events.timestamp[row]),
            order_id=order_id,
        )
        for row, event_id, order_id in zip(rows, event_ids, order_ids, strict=True)
    ]


def _order_numbers(events: HistoryEvents) -> NDArray[np.int64]:
    """Number of each purchase's order, int64 (rows), counted by first purchase."""
    if not len(events.customer):
        return np.zeros(0, dtype=np.int64)
    named = pc.is_valid(events.order_id).to_numpy()
    ids = events.order_id.combine_chunks().dictionary_encode()
    codes = pc.fill_null(ids.indices, 0).to_numpy()
    key = np.where(named, codes, events.timestamp)
    rows = np.lexsort((key, named, events.customer))
    columns = (events.customer[rows], named[rows], key[rows])
    starts = np.zeros(len(rows), dtype=bool)
    starts[0] = True
    for column in columns:
        starts[1:] |= column[1:] != column[:-1]
    group = np.cumsum(starts) - 1
    # lexsort is stable, so the first row of a group is its first purchase; groups are numbered by that row.
    first_purchase = rows[starts]
    number = np.empty(len(first_purchase), dtype=np.int64)
    number[np.argsort(first_purchase)] = np.arange(len(first_purchase))
    result = np.empty(len(rows), dtype=np.int64)
    result[rows] = number[group]
    return result


def _offsets(customer: NDArray[np.int32], customers: int) -> NDArray[np.int64]:
    counts = np.bincount(customer, minlength=customers)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
