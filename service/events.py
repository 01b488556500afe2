"""Taking events in: each is validated by itself; those that are sound are stored and count at once (design §6, §7).

A purchase costs one read, one step of the LSTM and one append. What cannot be had by a step (a late purchase, a return,
a state of another bundle, none at all) is replayed from the log.
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from pydantic import ValidationError

from model_store.history import Purchase, effective_history
from model_store.records import Event, EventType, describe_validation_error
from service.engine.style import StyleModel
from service.errors import StoreUnavailable
from service.generation.records import GenerationRequest
from service.state.customer import Addition, Appended, CustomerLog, CustomerState, CustomerView, in_log
from service.state.store import CustomerStore

log = logging.getLogger(__name__)

DAY = 86_400  # seconds
CUSTOMERS_AT_ONCE = 64
"""Customers of one call that are read, and then stored, together: few round trips, and turns for others in between."""


class Sale(NamedTuple):
    """A change of what was sold: ``change`` is +1 for a purchase, -1 for one that a return took out, at its time."""

    article_id: str
    timestamp: int
    change: int


@dataclass(frozen=True)
class Rejection:
    """Why the event at ``index`` was not taken. ``type`` is for programs: one of the constants below."""

    index: int
    type: str
    message: str
    field: str | None = None


INVALID_EVENT, UNKNOWN_ARTICLE, TIMESTAMP_IN_FUTURE = "invalid_event", "unknown_article", "timestamp_in_future"


@dataclass(frozen=True)
class EventsAnswer:
    """What became of the events: those stored, those that were there already, and why each other one was not taken."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]


def new_event_id() -> str:
    """For events that come without one: a repeat of those cannot be told."""
    return str(uuid.uuid4())


async def nothing_generates(requests: Sequence[GenerationRequest]) -> None:
    """For shops without a language model."""


class EventRecorder:
    """Validates and stores events, and keeps every customer's state abreast of their log.

    ``clock`` gives Unix seconds. ``known_article`` tells whether an article can be spoken of: live, or deleted but
    remembered, so that a customer can still return it. Once events are stored, ``on_sales`` learns of each change of
    what was sold, and ``schedule`` of every customer to whom anything new happened, once per call. Where those fail
    with StoreUnavailable, the events are stored and acknowledged all the same.
    """

    def __init__(
        self,
        store: CustomerStore,
        clock: Callable[[], int],
        known_article: Callable[[str], bool],
        on_sales: Callable[[Sequence[Sale]], Awaitable[None]],
        event_ids: Callable[[], str] = new_event_id,
        schedule: Callable[[Sequence[GenerationRequest]], Awaitable[None]] = nothing_generates,
    ):
        self._store, self._clock, self._known_article = store, clock, known_article
        self._on_sales, self._event_ids, self._schedule = on_sales, event_ids, schedule

    async def record(self, model: StyleModel, raw: Sequence[Any]) -> EventsAnswer:
        """Store what is sound among ``raw``, in any order; rejects nothing but the events that are at fault.

        Raises StoreUnavailable where the store fails; some events may then be stored, and sending all again under the
        same event ids is harmless.
        """
        now = self._clock()
        events: list[Event] = []
        rejected: list[Rejection] = []
        for index, each in enumerate(raw):
            checked = self._check(index, each, now)
            (events if isinstance(checked, Event) else rejected).append(checked)  # type: ignore[arg-type]
        accepted = 0
        active: list[str] = []
        by_customer = iter(_by_customer(events).items())
        try:
            while some := dict(islice(by_customer, CUSTOMERS_AT_ONCE)):
                accepted += await self._record_some(model, some, active)
        finally:  # of what was stored before the store failed, nobody would tell again: repeats are not new
            await self._ask(active)
        return EventsAnswer(accepted, len(events) - accepted, tuple(rejected))

    def _check(self, index: int, raw: Any, now: int) -> Event | Rejection:
        if not isinstance(raw, Mapping):
            return Rejection(index, INVALID_EVENT, "must be an object")
        fields = dict(raw)
        if fields.get("event_id") is None:
            fields["event_id"] = self._event_ids()
        if fields.get("timestamp") is None:
            fields["timestamp"] = now
        try:
            event = Event.model_validate(fields)
        except ValidationError as error:
            field, message = describe_validation_error(error)
            return Rejection(index, INVALID_EVENT, message, field)
        if event.timestamp > now + DAY:
            return Rejection(index, TIMESTAMP_IN_FUTURE, "must not lie more than a day ahead", "timestamp")
        if event.article_id is not None and not self._known_article(event.article_id):
            message = f"article '{event.article_id}' is not in the catalogue: put it there, then send the event again"
            return Rejection(index, UNKNOWN_ARTICLE, message, "article_id")
        return event

    async def _record_some(
        self, model: StyleModel, by_customer: Mapping[str, tuple[Event, ...]], active: list[str]
    ) -> int:
        """Number of events that were new, all of them stored; their customers are added to ``active``."""
        plans = await self._plans(model, by_customer)
        appended = await self._store.append_many([plan.addition for plan in plans])
        active += (plan.addition.customer_id for plan, done in zip(plans, appended, strict=True) if any(done.added))
        await self._report([sale for plan, done in zip(plans, appended, strict=True) for sale in plan.sales(done)])
        return sum(sum(done.added) for done in appended)

    async def _plans(self, model: StyleModel, by_customer: Mapping[str, tuple[Event, ...]]) -> list[Plan]:
        """What to store: at once where the log is not concerned, by a step where that will do, else by replay."""
        plans: list[Plan] = []
        customers = [customer_id for customer_id, events in by_customer.items() if any(map(in_log, events))]
        views = dict(zip(customers, await self._store.read_many(customers), strict=True))
        late: list[str] = []
        for customer_id, events in by_customer.items():
            view = views.get(customer_id)
            if view is None:
                plans.append(Plan(Addition(customer_id, events)))
            elif (state := _advanced(model, view, events)) is not None:
                plans.append(Plan(Addition(customer_id, events, view.revision, state)))
            else:
                late.append(customer_id)
        before = await self._store.read_logs(late)
        return plans + plans_by_replay(model, [(each, by_customer[each]) for each in late], before)

    async def _report(self, sales: Sequence[Sale]) -> None:
        if not sales:
            return
        try:
            await self._on_sales(sales)
        except StoreUnavailable as error:
            log.warning("%d sales were stored, but do not count as trending: %s", len(sales), error)

    async def _ask(self, active: Sequence[str]) -> None:
        if not active:
            return
        try:
            await self._schedule([GenerationRequest(customer_id) for customer_id in active])
        except StoreUnavailable as error:
            log.warning("events of %d customers were stored, but ask for no generation: %s", len(active), error)


@dataclass(frozen=True)
class Plan:
    """An addition, and the log that it was made for, where that had to be read."""

    addition: Addition
    before: CustomerLog | None = None

    def sales(self, done: Appended) -> list[Sale]:
        """What the addition changed in what was sold, given what of it was new."""
        added = [event for event, new in zip(self.addition.events, done.added, strict=True) if new and in_log(event)]
        if self.before is None:  # no returns: a step took it
            return [Sale(event.article_id or "", event.timestamp, 1) for event in added]
        kept_before = _kept(self.before.events)
        kept_after = _kept([*self.before.events, *added])
        came = [
            Sale(kept_after[key].article_id, kept_after[key].timestamp, 1) for key in kept_after.keys() - kept_before
        ]
        went = [
            Sale(kept_before[key].article_id, kept_before[key].timestamp, -1) for key in kept_before.keys() - kept_after
        ]
        return came + went


def plans_by_replay(
    model: StyleModel, additions: Sequence[tuple[str, tuple[Event, ...]]], logs: Sequence[CustomerLog]
) -> list[Plan]:
    """Plans for the events of some customers, given their logs as they are; works without the state that is stored."""
    new = [
        tuple(event for event in events if not in_log(event) or event.event_id not in log.event_ids)
        for (_, events), log in zip(additions, logs, strict=True)
    ]
    states = model.replay_many([(*log.events, *events) for log, events in zip(logs, new, strict=True)])
    return [
        Plan(Addition(customer_id, events, log.revision, state), log)
        for (customer_id, _), events, log, state in zip(additions, new, logs, states, strict=True)
    ]


def _kept(events: Iterable[Event]) -> dict[str, Purchase]:
    return {purchase.event_id: purchase for purchase in effective_history(events)[0]}


def _advanced(model: StyleModel, view: CustomerView, events: Iterable[Event]) -> CustomerState | None:
    """The state after ``events``, one step per purchase; None where only a replay can tell."""
    if view.state is None:
        return None
    logged = [event for event in events if in_log(event)]
    if any(event.type is EventType.RETURN for event in logged):
        return None
    return model.advance(
        view.state,
        [Purchase(event.timestamp, event.event_id, event.article_id or "", event.order_id) for event in logged],
    )


def _by_customer(events: Iterable[Event]) -> dict[str, tuple[Event, ...]]:
    """Events by customer, oldest first; of those that share an event id, the first that came."""
    distinct: dict[tuple[str, str, bool], Event] = {}
    for event in events:
        distinct.setdefault((event.customer_id, event.event_id, in_log(event)), event)
    customers: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(distinct.values(), key=lambda event: (event.timestamp, event.event_id)):
        customers[event.customer_id].append(event)
    return {customer_id: tuple(own) for customer_id, own in customers.items()}
