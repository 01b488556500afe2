"""The sequences that the generating half learns from and is measured on (Amazon 2024, §4.1, §4.2, §5.1).

One example per order: what the customer searched, clicked and bought before it, and one article of it to be foretold.
The rules, each held by a test:

- An order is one customer's purchases with one order_id, or else with one timestamp; its moment is its first purchase,
  be that taken back later or not.
- The session holds only events strictly before that moment, and purchases less the returns known at that moment.
- Clicks on the target are left out of the session, as the paper leaves them out of its data. When serving nobody
  knows the target, so such clicks are there; what the model then foretells is the *next* article, not a clicked one.
- The target is drawn from the order's articles that were kept as far as is known at the end of the window, were in
  stock at that moment, and whose id a response can name. An order without any such article gives no example, nor does
  one of a customer who did nothing before it.
- Nothing at or after the end of the window is read.

The prompt is what serving would write for the same events at that moment: ``model_store.sessions`` chooses the
actions, ``model_store.prompts`` writes them, and the candidates are what the memory gives for the latest query, in
stock at that moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store import tables
from model_store.dataset import DataSet
from model_store.generation import QueryMemory
from model_store.generation_spec import GenerationSpec
from model_store.history import effective_history
from model_store.prompts import Prompt, PromptWriter, can_be_written
from model_store.records import Article, Event, EventType
from model_store.sessions import latest_query, session_actions, session_events
from model_store.tokens import Tokenizer
from offline.progress import Progress, Silent

Float32 = NDArray[np.float32]
_COLUMNS = ("event_id", "type", "article_id", "query", "order_id")
_LOOK_BACK = 4  # events read per action wanted, before more are


@dataclass(frozen=True)
class Example:
    """One order to be foretold: at ``time`` (Unix seconds) the customer bought the article of row ``target``.

    ``events``: the session before it, oldest first, at most as many as were asked for, never none.
    """

    customer_id: str
    time: int
    events: tuple[Event, ...]
    target: int


@dataclass(frozen=True)
class Tokenised:
    """Token ids of a ``prompt`` and of the ``response`` that it should have, the response's end included."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


def find_examples(
    data: DataSet, since: int, until: int, *, actions: int, most: int | None, rng: np.random.Generator
) -> list[Example]:
    """An example for each order with since ≤ moment < until, in order of customer id and time.

    Sessions hold the latest ``actions``. Where there are more than ``most`` orders, ``rng`` draws that many.
    """
    log, offer = _read_log(data, until), _Offer(data)
    orders = [order for index in log.bought_since(since).tolist() for order in _orders(log, index, offer, since, rng)]
    if most is not None and len(orders) > most:
        orders = [orders[place] for place in np.sort(rng.choice(len(orders), most, replace=False))]
    examples = []
    for order in orders:
        session = _latest(log.history(order.customer), order.before, actions, data.article_ids[order.target])
        examples.append(Example(log.customer_ids[order.customer], order.time, tuple(session), order.target))
    return examples


class Prompts:
    """Prompts of examples, as serving would have written them at that moment.

    ``encode_query`` turns B queries into the memory's keys, float32 (B, 128); each query is encoded once.
    """

    def __init__(
        self,
        data: DataSet,
        spec: GenerationSpec,
        tokenizer: Tokenizer,
        memory: QueryMemory,
        encode_query: Callable[[Sequence[str]], Float32],
    ):
        self._spec, self._memory, self._encode_query = spec, memory, encode_query
        self._writer = PromptWriter(spec.prompt, tokenizer)
        self._articles = list(data.articles())
        self._row_of = {article_id: row for row, article_id in enumerate(data.article_ids)}
        self._availability = data.availability
        self._keys: dict[str, Float32] = {}

    def prompt(self, example: Example) -> Prompt:
        """The prompt of one example."""
        actions = session_actions(example.events, self._article)
        query = latest_query(actions)
        return self._writer.write(actions, self._candidates(query, example.time) if query is not None else ())

    def tokenise(self, examples: Sequence[Example], progress: Progress | None = None) -> list[Tokenised]:
        """Prompt and response of every example, in their order."""
        self._remember_keys(examples)
        tokenised = []
        with (progress or Silent()).bar("prompts", len(examples)) as bar:
            for example in examples:
                response = self._writer.response_ids(self._articles[example.target])
                tokenised.append(Tokenised(self.prompt(example).token_ids, tuple(response)))
                bar.advance()
        return tokenised

    def _candidates(self, query: str, time: int) -> list[str]:
        in_stock = self._availability.in_stock_at(time)
        return self._memory.candidates(
            self._key(query),
            self._spec.nearest_queries,
            self._spec.top_articles,
            lambda article_id: article_id in self._row_of and bool(in_stock[self._row_of[article_id]]),
        )

    def _key(self, query: str) -> Float32:
        if query not in self._keys:
            self._keys[query] = self._encode_query([query])[0]
        return self._keys[query]

    def _remember_keys(self, examples: Sequence[Example]) -> None:
        """Encode the queries of ``examples`` together, which is much faster than one by one."""
        searched = (event.query for example in examples for event in example.events if event.query is not None)
        new = sorted({query for query in searched if query not in self._keys})
        if new:
            self._keys.update(zip(new, self._encode_query(new), strict=True))

    def _article(self, article_id: str) -> Article | None:
        row = self._row_of.get(article_id)
        return None if row is None else self._articles[row]


# --- orders ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """``before``: how many of the customer's events come strictly before the order's moment, ``time``."""

    customer: int
    time: int
    before: int
    target: int


class _Log:
    """Every customer's events, customers in order of id; those of one in order of time, then event id."""

    def __init__(self, table: pa.Table, customer_ids: list[str], offsets: NDArray[np.int64]):
        self._columns = {name: table[name].combine_chunks() for name in _COLUMNS}
        self._offsets, self.customer_ids = offsets, customer_ids
        self.timestamp = tables.seconds(table["timestamp"].combine_chunks())
        self._of_type = {kind: self._are(kind) for kind in EventType}

    def bought_since(self, since: int) -> NDArray[np.int64]:
        """Numbers of the customers who bought something from ``since`` on."""
        places = np.flatnonzero(self._of_type[EventType.PURCHASE] & (self.timestamp >= since))
        customers: NDArray[np.int64] = np.unique(np.searchsorted(self._offsets, places, side="right") - 1)
        return customers

    def history(self, customer: int) -> _History:
        """The events of customer number ``customer``."""
        return _History(self, customer, int(self._offsets[customer]), int(self._offsets[customer + 1]))

    def places(self, low: int, high: int, *kinds: EventType) -> NDArray[np.int64]:
        """Where between two places of the log events of ``kinds`` are, in order."""
        chosen = np.logical_or.reduce([self._of_type[kind][low:high] for kind in kinds])
        places: NDArray[np.int64] = np.flatnonzero(chosen) + low
        return places

    def events(self, customer: int, places: NDArray[np.int64]) -> list[Event]:
        """Records of a customer's events; not validated again, as the data set was when it was opened."""
        columns = [self._columns[name].take(pa.array(places)).to_pylist() for name in _COLUMNS]
        return [
            Event.model_construct(
                event_id=event_id,
                type=EventType(kind),
                customer_id=self.customer_ids[customer],
                article_id=article_id,
                query=query,
                order_id=order_id,
                timestamp=timestamp,
                position=None,
            )
            for event_id, kind, article_id, query, order_id, timestamp in zip(
                *columns, self.timestamp[places].tolist(), strict=True
            )
        ]

    def _are(self, kind: EventType) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = pc.equal(self._columns["type"], kind.value).to_numpy(zero_copy_only=False)
        return found


@dataclass(frozen=True)
class _History:
    """One customer's events, places ``low`` to ``high`` of the log; a record is made only of what is asked for.

    A record costs some 15 µs, and most of a long history is never looked at.
    """

    log: _Log
    customer: int
    low: int
    high: int

    def before(self, time: int) -> int:
        """How many events come strictly before ``time``."""
        return int(np.searchsorted(self.log.timestamp[self.low : self.high], time, side="left"))

    def events(self, start: int, end: int) -> list[Event]:
        """Events from number ``start`` to before number ``end``."""
        return self.log.events(self.customer, np.arange(self.low + start, self.low + end))

    def trade(self, end: int) -> list[Event]:
        """Purchases and returns among the first ``end`` events."""
        return self._of(end, EventType.PURCHASE, EventType.RETURN)

    def looked(self, end: int, but: str) -> bool:
        """Whether there is a search among the first ``end`` events, or a click on another article than ``but``."""
        return self._first_search < end or any(event.article_id != but for event in self._of(end, EventType.CLICK))

    @cached_property
    def _first_search(self) -> int:
        searches = self.log.places(self.low, self.high, EventType.SEARCH)
        return int(searches[0]) - self.low if len(searches) else self.high - self.low

    def time(self, number: int) -> int:
        """The moment of an event."""
        return int(self.log.timestamp[self.low + number])

    def _of(self, end: int, *kinds: EventType) -> list[Event]:
        return self.log.events(self.customer, self.log.places(self.low, self.low + end, *kinds))


class _Offer:
    """Which articles can be foretold, and when."""

    def __init__(self, data: DataSet):
        self.article_ids, self._availability = data.article_ids, data.availability
        self._row_of = {name: row for row, name in enumerate(data.article_ids) if can_be_written(name)}

    def targets(self, article_ids: Sequence[str], time: int) -> NDArray[np.int64]:
        """Rows of those articles that a response can name and that were in stock at ``time``: int64 (…)."""
        rows = np.asarray([self._row_of[name] for name in article_ids if name in self._row_of], dtype=np.int64)
        targets: NDArray[np.int64] = rows[self._availability.in_stock(rows, time)]
        return targets


def _read_log(data: DataSet, until: int) -> _Log:
    names = ["customer_id", "timestamp", *_COLUMNS]
    batches = [
        pa.table(batch).select(names).filter(pa.array(tables.seconds(batch.column("timestamp")) < until))
        for batch in data.events()
    ]
    table = pa.concat_tables(batches) if batches else tables.EVENTS.schema.empty_table().select(names)
    table = table.sort_by([("customer_id", "ascending"), ("timestamp", "ascending"), ("event_id", "ascending")])
    counted = pc.value_counts(table["customer_id"])  # in order of first appearance, so by id
    counts = np.asarray(counted.field("counts").to_numpy(zero_copy_only=False), dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return _Log(table, counted.field("values").to_pylist(), offsets)


def _orders(log: _Log, customer: int, offer: _Offer, since: int, rng: np.random.Generator) -> Iterator[_Order]:
    """The orders of one customer from ``since`` on that give an example."""
    history = log.history(customer)
    trade = history.trade(history.high - history.low)
    kept = {purchase.event_id for purchase in effective_history(trade)[0]}
    for purchases in _by_order(trade):
        time = purchases[0].timestamp
        if time < since:
            continue
        targets = offer.targets([event.article_id or "" for event in purchases if event.event_id in kept], time)
        if not len(targets):
            continue
        target = int(targets[rng.integers(len(targets))])
        before = history.before(time)
        if history.looked(before, offer.article_ids[target]) or effective_history(history.trade(before))[0]:
            yield _Order(customer, time, before, target)


def _by_order(events: Sequence[Event]) -> list[list[Event]]:
    """Purchases by order, orders by their first purchase."""
    orders: dict[tuple[bool, str | int], list[Event]] = defaultdict(list)
    for event in events:
        if event.type is EventType.PURCHASE:
            named = event.order_id is not None
            orders[named, event.order_id if event.order_id is not None else event.timestamp].append(event)
    return list(orders.values())


def _latest(history: _History, before: int, most: int, target: str) -> list[Event]:
    """What ``session_events`` gives for the first ``before`` events, from no more of the latest than are needed.

    A return takes out the latest purchase of its article, so one in the part that is read never depends on what lies
    before it, provided that no moment is cut in two. The first action that is found there may repeat the one before,
    so one more than ``most`` must be found.
    """
    read = _LOOK_BACK * (most + 1)
    while True:
        start = history.before(history.time(max(before - read, 0)))
        events = history.events(start, before)
        session = session_events(events, most + 1, without_clicks_on=frozenset({target}))
        if start == 0 or len(session) > most:
            return session[-most:]
        read *= 2
