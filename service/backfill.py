"""Loading a data set's articles, history and sessions into the stores in bulk: ``modiste backfill``.

The same rules as for events that arrive one by one (``service.events``), many customers at a time: each chunk costs one
look at the logs as they are, one batched replay and one round of appends. So it may be interrupted and run again,
beside a running service too: what is stored is never stored twice, and no event from elsewhere is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.errors import InvalidRecord
from model_store.records import Article, Event, EventType
from model_store.tables import seconds
from service.catalogue.encoder import CatalogueEncoder, prepare
from service.catalogue.held import HeldArticles
from service.catalogue.records import StockLevel, StoredArticle
from service.catalogue.store import CatalogueStore
from service.engine.style import StyleModel
from service.events import held_articles, plans_by_replay
from service.heap import uncollected
from service.state.codec import stored_event
from service.state.customer import SESSION_LENGTH, in_log
from service.state.store import CustomerStore
from service.trend_store import TrendStore

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]
"""Row numbers of the events table."""

ARTICLES_AT_ONCE = 500
EVENTS_AT_ONCE = 32_768
"""Events of one chunk; more only where one customer alone has more."""
CHUNKS_AT_ONCE = 2


@dataclass(frozen=True)
class Catalogue:
    """The articles of a data set as they now are in the store: ``dna`` maps an article to float32 (128).

    ``written`` counts those that were new or changed; ``refused`` says of those without DNA why they were not taken.
    """

    dna: dict[str, Float32]
    written: int
    refused: dict[str, InvalidRecord]


@dataclass(frozen=True)
class Filled:
    """How many events were ``read``, of how many customers, and how many purchases and returns of them were new.

    Clicks and searches do not count among ``added``: a session forgets, and so cannot tell which it has had.
    """

    read: int
    added: int
    customers: int


async def fill_catalogue(
    data: DataSet, store: CatalogueStore, encoder: CatalogueEncoder, done: Callable[[int], None]
) -> Catalogue:
    """Write the articles that the store does not have as the data set has them, and the stock at the end of its data.

    Stock that was set for a later time stays as it is. ``done`` is told the number of articles. Raises
    StoreUnavailable.
    """
    in_stock = data.availability.in_stock_at(data.last_event)
    dna: dict[str, Float32] = {}
    refused: dict[str, InvalidRecord] = {}
    written = 0
    for start in range(0, len(data.article_ids), ARTICLES_AT_ONCE):
        articles = list(data.articles(start, start + ARTICLES_AT_ONCE))
        prepared = _prepare(data, articles, refused)
        missing = await _known(store, prepared, encoder.bundle_version, dna)
        encoded = encoder.encode(missing)
        usable = [missing[index] for index in encoded.usable]
        await store.upsert(usable, encoder.bundle_version, encoded.dna[encoded.usable])
        written += len(usable)
        dna.update((missing[index].article.article_id, encoded.dna[index]) for index in encoded.usable)
        refused.update((missing[index].article.article_id, error) for index, error in encoded.refused.items())
        await store.set_stock(
            [
                StockLevel(article.article_id, int(in_stock[start + index]), data.last_event)
                for index, article in enumerate(articles)
                if article.article_id in dna
            ]
        )
        done(len(articles))
    return Catalogue(dna, written, refused)


def _prepare(data: DataSet, articles: Sequence[Article], refused: dict[str, InvalidRecord]) -> list[StoredArticle]:
    """Articles with their pictures; those whose picture cannot be read go to ``refused``."""
    prepared = []
    for article in articles:
        try:
            prepared.append(prepare(article, data.image(article)))
        except InvalidRecord as error:
            refused[article.article_id] = error
    return prepared


async def _known(
    store: CatalogueStore, articles: Sequence[StoredArticle], bundle: str, dna: dict[str, Float32]
) -> list[StoredArticle]:
    """The articles that are not in the store, or not like this; the DNA of the others goes to ``dna``."""
    entries = await store.read([stored.article.article_id for stored in articles], bundle)
    missing = []
    for stored, entry in zip(articles, entries, strict=True):
        if entry is None or not entry.live or entry.dna is None or entry.fingerprint != stored.fingerprint:
            missing.append(stored)
        else:
            dna[stored.article.article_id] = entry.dna
    return missing


async def fill_customers(
    data: DataSet,
    customers: CustomerStore,
    catalogue: CatalogueStore,
    trends: TrendStore,
    model: StyleModel,
    done: Callable[[int], None],
) -> Filled:
    """Store all histories and sessions, with the states that ``model`` derives from them, and count what was sold.

    While the store is busy with one chunk, the next is made ready. ``done`` is told the number of rows. Cancelled, it
    ends the chunks that are under way first, so that what was stored also counts as sold. Raises StoreUnavailable.
    """
    with uncollected():
        return await _fill(EventTable(data), customers, HeldArticles(catalogue), trends, model, done)


async def _fill(
    events: EventTable,
    customers: CustomerStore,
    held: HeldArticles,
    trends: TrendStore,
    model: StyleModel,
    done: Callable[[int], None],
) -> Filled:
    under_way: deque[tuple[Chunk, asyncio.Future[int]]] = deque()
    added = 0

    async def oldest_stored() -> int:
        chunk, storing = under_way[0]
        new = await asyncio.shield(storing)
        under_way.popleft()
        done(chunk.read)
        return new

    try:
        for chunk in events.chunks(EVENTS_AT_ONCE):
            storing = asyncio.ensure_future(_store(customers, held, trends, model, events.by_customer(chunk.rows)))
            under_way.append((chunk, storing))
            if len(under_way) == CHUNKS_AT_ONCE:
                added += await oldest_stored()
        while under_way:
            added += await oldest_stored()
    finally:
        await asyncio.gather(*(storing for _, storing in under_way), return_exceptions=True)
    return Filled(events.read, added, events.customers)


async def _store(
    customers: CustomerStore,
    held: HeldArticles,
    trends: TrendStore,
    model: StyleModel,
    by_customer: Mapping[str, tuple[Event, ...]],
) -> int:
    """Number of purchases and returns that were new."""
    await held.hold(held_articles(by_customer.values()))
    logs = await customers.read_logs(list(by_customer))
    plans = plans_by_replay(model, list(by_customer.items()), logs)
    appended = await customers.append_many([plan.addition for plan in plans])
    await trends.add([sale for plan, done in zip(plans, appended, strict=True) for sale in plan.sales(done)])
    return sum(
        new and in_log(event)
        for plan, done in zip(plans, appended, strict=True)
        for new, event in zip(done.added, plan.addition.events, strict=True)
    )


@dataclass(frozen=True)
class Chunk:
    """The ``rows`` to store of some whole customers, one customer after the other, of ``read`` rows that they have."""

    rows: Rows
    read: int


class EventTable:
    """The events of a data set, grouped by customer: about 150 bytes an event in memory."""

    def __init__(self, data: DataSet):
        table = pa.Table.from_batches(list(data.events())).combine_chunks()
        self.read = table.num_rows
        customer = table["customer_id"].combine_chunks().dictionary_encode()
        self._codes: NDArray[np.int32] = customer.indices.to_numpy()
        self._ids: list[str] = customer.dictionary.to_pylist()
        self.customers = len(self._ids)
        self._times = seconds(table["timestamp"].combine_chunks())
        kind = table["type"].combine_chunks()
        logged = pc.is_in(kind, pa.array([EventType.PURCHASE.value, EventType.RETURN.value]))
        self._logged: NDArray[np.bool_] = logged.to_numpy(zero_copy_only=False)
        self._columns = table.select(["event_id", "type", "article_id", "query", "order_id", "position"])

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Whole customers, about ``size`` rows to store at a time."""
        order: Rows = np.lexsort((self._times, self._codes))
        order = order[self._worth_storing(order)]
        stored = np.bincount(self._codes[order], minlength=self.customers)
        read = np.bincount(self._codes, minlength=self.customers)
        start = first = 0
        for customer, end in enumerate(np.cumsum(stored)):
            if end - start >= size or customer == self.customers - 1:
                yield Chunk(order[start:end], int(read[first : customer + 1].sum()))
                start, first = end, customer + 1

    def _worth_storing(self, order: Rows) -> NDArray[np.bool_]:
        """Which of the rows, sorted by customer and time, are logged or among a customer's latest in the session.

        Rows of the time of the last that a session holds all stay: which of them it keeps, their ids decide.
        """
        keep = self._logged[order].copy()
        session = np.flatnonzero(~keep)
        customer, time = self._codes[order[session]], self._times[order[session]]
        begin, end = np.searchsorted(customer, customer, "left"), np.searchsorted(customer, customer, "right")
        oldest_kept = np.maximum(end - SESSION_LENGTH, begin)
        keep[session] = time >= time[oldest_kept]
        return keep

    def by_customer(self, rows: Rows) -> dict[str, tuple[Event, ...]]:
        """The events at ``rows``, which lie together by customer. Validated when the data set was opened, not again."""
        codes, times = self._codes[rows], self._times[rows].tolist()
        columns = [column.to_pylist() for column in self._columns.take(pa.array(rows)).columns]
        ends = [*(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(rows)]
        customers: dict[str, tuple[Event, ...]] = {}
        start = 0
        for end in ends:
            customer_id = self._ids[codes[start]]
            own = zip(times[start:end], *(column[start:end] for column in columns), strict=True)
            customers[customer_id] = tuple(_event(customer_id, row) for row in own)
            start = end
        return customers


_TYPES = {kind.value: kind for kind in EventType}


def _event(customer_id: str, row: tuple[Any, ...]) -> Event:
    timestamp, event_id, kind, article_id, query, order_id, position = row
    return stored_event(customer_id, timestamp, event_id, _TYPES[kind], article_id, query, order_id, position)
