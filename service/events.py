"""Taking events in: each is validated by itself; those that are sound are stored and count at once (design §6, §7).

A purchase costs one read, one step of the LSTM and one append, which all share whose events come in within a moment
(``service.gathered``). What cannot be had by a step (a late purchase, a return, a state of another bundle, none at all)
is replayed from the log.
"""

from __future__ import annotations

import logging
import random
import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from pydantic import ValidationError

from model_store.history import Purchase, effective_history
from model_store.records import Event, EventType, describe_validation_error
from service.engine.style import StyleModel
from service.errors import StoreUnavailable
from service.gathered import Gathered
from service.generation.records import GenerationRequest
from service.state.customer import Addition, Appended, CustomerLog, CustomerState, CustomerView, in_log
from service.state.store import CustomerStore

log = logging.getLogger(__name__)

DAY = 86_400  # seconds
CUSTOMERS_AT_ONCE = 64
"""Customers that are read, and then stored, together: few round trips, and turns for others in between."""


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


_RANDOM = random.Random(secrets.randbits(256))
"""Of this process: ids have to be different elsewhere, they are no secret."""


def new_event_id() -> str:
    """For events that come without one: a repeat of those cannot be told."""
    return str(uuid.UUID(int=_RANDOM.getrandbits(128), version=4))


async def nothing_generates(requests: Sequence[GenerationRequest]) -> None:
    """For shops without a language model."""


async def nothing_is_deleted(article_ids: Iterable[str]) -> None:
    """For catalogues that forget nothing."""


async def nothing_is_looked_up(article_ids: Sequence[str]) -> None:
    """For catalogues that nobody else writes."""


def held_articles(events: Iterable[Iterable[Event]]) -> set[str]:
    """The articles that purchases and returns are of."""
    return {event.article_id for some in events for event in some if in_log(event) and event.article_id is not None}


class EventRecorder:
    """Validates and stores events, and keeps every customer's state abreast of their log.

    ``clock`` gives Unix seconds. ``known_article`` tells whether an article can be spoken of: live, or deleted but
    remembered, so that a customer can still return it. ``look_up`` makes it say what is true now of articles that it
    does not know: another worker may just have been given them. ``hold`` has articles remembered before a history
    holds them.
    Once events are stored, ``on_sales`` learns of each change of what was sold, and ``schedule`` of every customer to
    whom anything new happened. Where those two fail with StoreUnavailable, the events are stored and
    acknowledged all the same.
    """

    def __init__(
        self,
        store: CustomerStore,
        clock: Callable[[], int],
        known_article: Callable[[str], bool],
        on_sales: Callable[[Sequence[Sale]], Awaitable[None]],
        event_ids: Callable[[], str] = new_event_id,
        schedule: Callable[[Sequence[GenerationRequest]], Awaitable[None]] = nothing_generates,
        hold: Callable[[Iterable[str]], Awaitable[None]] = nothing_is_deleted,
        look_up: Callable[[Sequence[str]], Awaitable[None]] = nothing_is_looked_up,
    ):
        self._store, self._clock, self._known_article = store, clock, known_article
        self._on_sales, self._event_ids, self._schedule = on_sales, event_ids, schedule
        self._hold, self._look_up = hold, look_up
        self._records = Gathered(self._record_many, CUSTOMERS_AT_ONCE)

    async def record(self, model: StyleModel, raw: Sequence[Any]) -> EventsAnswer:
        """Store what is sound among ``raw``, in any order; rejects nothing but the events that are at fault.

        Raises StoreUnavailable where the store fails; some events may then be stored, and sending all again under the
        same event ids is harmless.
        """
        checked = await self._checked(raw)
        events = [each for each in checked if isinstance(each, Event)]
        rejected = [each for each in checked if isinstance(each, Rejection)]
        accepted = 0
        by_customer = iter(_by_customer(events).items())
        while some := [_Deeds(model, *each) for each in islice(by_customer, CUSTOMERS_AT_ONCE)]:
            for new in await self._records.several(some):
                if isinstance(new, StoreUnavailable):
                    raise new
                accepted += new
        return EventsAnswer(accepted, len(events) - accepted, tuple(rejected))

    async def _checked(self, raw: Sequence[Any]) -> list[Event | Rejection]:
        """What is sound and what is not, in the order given."""
        now = self._clock()
        checked = [self._check(index, each, now) for index, each in enumerate(raw)]
        strangers = [each.index for each in checked if isinstance(each, Rejection) and each.type == UNKNOWN_ARTICLE]
        if strangers:
            await self._look_up(sorted({raw[index]["article_id"] for index in strangers}))
            for index in strangers:
                checked[index] = self._check(index, raw[index], now)
        return checked

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

    async def _record_many(self, deeds: Sequence[_Deeds]) -> list[int | StoreUnavailable]:
        """Store what some customers did; how many events of each were new, or why it could not be stored."""
        accepted: dict[int, int | StoreUnavailable] = {}
        for places in _rounds(deeds):
            accepted.update(zip(places, await self._record_apart([deeds[place] for place in places]), strict=True))
        return [accepted[place] for place in range(len(deeds))]

    async def _record_apart(self, deeds: Sequence[_Deeds]) -> Sequence[int | StoreUnavailable]:
        """``_record_round``; where it fails because of what is stored of one customer, for that one alone."""
        try:
            return await self._record_round(deeds)
        except StoreUnavailable as error:
            if len(deeds) == 1:
                return [error]
            if error.reason != "other":
                return [error] * len(deeds)
        return [one for each in deeds for one in await self._record_apart([each])]

    async def _record_round(self, deeds: Sequence[_Deeds]) -> list[int]:
        """``_record_many`` for distinct customers and one model."""
        await self._hold(held_articles(each.events for each in deeds))
        plans = await self._plans(deeds[0].model, {each.customer_id: each.events for each in deeds})
        appended = dict(
            zip(
                (plan.addition.customer_id for plan in plans),
                await self._store.append_many([plan.addition for plan in plans]),
                strict=True,
            )
        )
        await self._report([sale for plan in plans for sale in plan.sales(appended[plan.addition.customer_id])])
        await self._ask([customer_id for customer_id, done in appended.items() if any(done.added)])
        return [sum(appended[each.customer_id].added) for each in deeds]

    async def _plans(self, model: StyleModel, by_customer: Mapping[str, tuple[Event, ...]]) -> list[Plan]:
        """What to store: at once where the log is not concerned, by a step where that will do, else by replay."""
        plans: list[Plan] = []
        customers = [customer_id for customer_id, events in by_customer.items() if any(map(in_log, events))]
        views = dict(zip(customers, await self._store.read_many(customers), strict=True))
        plans += [
            Plan(Addition(customer_id, events))
            for customer_id, events in by_customer.items()
            if customer_id not in views
        ]
        states = _advanced(model, [(view, by_customer[customer_id]) for customer_id, view in views.items()])
        late: list[str] = []
        for (customer_id, view), state in zip(views.items(), states, strict=True):
            if state is None:
                late.append(customer_id)
            else:
                plans.append(Plan(Addition(customer_id, by_customer[customer_id], view.revision, state)))
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


class _Deeds(NamedTuple):
    """Sound events of one customer, oldest first, and the model that makes a state of them."""

    model: StyleModel
    customer_id: str
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Plan:
    """An addition, and the log that it was made for, where that had to be read."""

    addition: Addition
    before: CustomerLog | None = None

    def sales(self, done: Appended) -> list[Sale]:
        """What the addition changed in what was sold, given what of it was new."""
        added = [event for event, new in zip(self.addition.events, done.added, strict=True) if new and in_log(event)]
        known = () if self.before is None else self.before.events
        if not any(event.type is EventType.RETURN for event in (*known, *added)):
            return [Sale(event.article_id or "", event.timestamp, 1) for event in added]
        kept_before, kept_after = _kept(known), _kept([*known, *added])
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


def _advanced(
    model: StyleModel, done: Sequence[tuple[CustomerView, Sequence[Event]]]
) -> Iterator[CustomerState | None]:
    """The states after further events, one step per purchase; None where only a replay can tell."""
    steps = {place: _step(*each) for place, each in enumerate(done)}
    moving = {place: step for place, step in steps.items() if step is not None}
    states = dict(zip(moving, model.advances(list(moving.values())), strict=True))
    return (states.get(place) for place in steps)


def _step(view: CustomerView, events: Sequence[Event]) -> tuple[CustomerState, list[Purchase]] | None:
    """The state that a customer had, and what they bought since; None where there is no state, or a return."""
    logged = [event for event in events if in_log(event)]
    if view.state is None or any(event.type is EventType.RETURN for event in logged):
        return None
    return view.state, [
        Purchase(event.timestamp, event.event_id, event.article_id or "", event.order_id) for event in logged
    ]


def _rounds(deeds: Sequence[_Deeds]) -> Iterable[list[int]]:
    """Places of deeds that can be stored together: of one model, and one of each customer, who has them in turn."""
    rounds: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    met: Counter[str] = Counter()
    for place, each in enumerate(deeds):
        rounds[met[each.customer_id], id(each.model)].append(place)
        met[each.customer_id] += 1
    return rounds.values()


def _by_customer(events: Iterable[Event]) -> dict[str, tuple[Event, ...]]:
    """Events by customer, oldest first; of those that share an event id, the first that came."""
    distinct: dict[tuple[str, str, bool], Event] = {}
    for event in events:
        distinct.setdefault((event.customer_id, event.event_id, in_log(event)), event)
    customers: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(distinct.values(), key=lambda event: (event.timestamp, event.event_id)):
        customers[event.customer_id].append(event)
    return {customer_id: tuple(own) for customer_id, own in customers.items()}
