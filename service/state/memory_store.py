"""Customers kept in this process: for tests, and as the plainest statement of what a store does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model_store.records import Event
from service.state.customer import (
    NO_LOG,
    SESSION_LENGTH,
    Addition,
    Appended,
    CustomerLog,
    CustomerState,
    CustomerView,
    Revision,
    in_log,
)
from service.state.store import new_log_id


@dataclass
class _Customer:
    log_id: int = 0
    log: dict[str, Event] = field(default_factory=dict)
    session: dict[str, Event] = field(default_factory=dict)
    state: tuple[CustomerState, Revision] | None = None

    @property
    def revision(self) -> Revision:
        return Revision(self.log_id, len(self.log)) if self.log else NO_LOG


class MemoryStore:
    """A ``CustomerStore`` in memory, gone with the process."""

    def __init__(self, log_ids: Callable[[], int] = new_log_id):
        self._customers: dict[str, _Customer] = {}
        self._log_ids = log_ids

    async def read(self, customer_id: str) -> CustomerView:
        customer = self._customers.get(customer_id, _Customer())
        state, revision = customer.state or (None, None)
        session = tuple(customer.session.values())
        return CustomerView(state, revision, lambda: session)

    async def read_many(self, customer_ids: Sequence[str]) -> list[CustomerView]:
        return [await self.read(customer_id) for customer_id in customer_ids]

    async def read_log(self, customer_id: str) -> CustomerLog:
        customer = self._customers.get(customer_id, _Customer())
        return CustomerLog(tuple(customer.log.values()), customer.revision)

    async def read_logs(self, customer_ids: Sequence[str]) -> list[CustomerLog]:
        return [await self.read_log(customer_id) for customer_id in customer_ids]

    async def append(self, addition: Addition) -> Appended:
        customer = self._customers.get(addition.customer_id, _Customer())
        if addition.events:
            self._customers[addition.customer_id] = customer
        before = customer.revision
        added = tuple(_add(customer, event) for event in addition.events)
        customer.session = _latest(customer.session)
        logged = [new for new, event in zip(added, addition.events, strict=True) if in_log(event)]
        stored = False
        if any(logged):
            customer.log_id = customer.log_id or self._log_ids()
            stored = all(logged) and addition.state is not None and addition.expected == before
            customer.state = (addition.state, customer.revision) if stored and addition.state else None
        return Appended(added, customer.revision, stored)

    async def append_many(self, additions: Sequence[Addition]) -> list[Appended]:
        return [await self.append(addition) for addition in additions]

    async def put_state(self, customer_id: str, state: CustomerState, revision: Revision) -> bool:
        customer = self._customers.get(customer_id)
        if customer is None or revision == NO_LOG or customer.revision != revision:
            return False
        customer.state = (state, revision)
        return True

    async def erase(self, customer_id: str) -> bool:
        return self._customers.pop(customer_id, None) is not None


def _add(customer: _Customer, event: Event) -> bool:
    kept = customer.log if in_log(event) else customer.session
    if event.event_id in kept:
        return False
    kept[event.event_id] = event
    return True


def _latest(session: dict[str, Event]) -> dict[str, Event]:
    ordered = sorted(session.values(), key=lambda event: (event.timestamp, event.event_id))
    return {event.event_id: event for event in ordered[-SESSION_LENGTH:]}
