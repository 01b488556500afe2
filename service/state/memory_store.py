"""Customers kept in this process: for tests, and as the plainest statement of what a store does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from model_store.records import Event
from service.generation.records import Footing, StoredGeneration
from service.generation.store import SEARCHING_KEPT
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
    generation: StoredGeneration | None = None
    searching: tuple[StoredGeneration, float] | None = None  # and until when it is kept, on the store's clock

    @property
    def revision(self) -> Revision:
        return Revision(self.log_id, len(self.log)) if self.log else NO_LOG


class MemoryStore:
    """A ``CustomerStore`` and ``GenerationStore`` in memory, gone with the process. ``monotonic``: seconds."""

    def __init__(self, log_ids: Callable[[], int] = new_log_id, monotonic: Callable[[], float] = time.monotonic):
        self._customers: dict[str, _Customer] = {}
        self._log_ids, self._monotonic = log_ids, monotonic

    async def read(self, customer_id: str) -> CustomerView:
        customer = self._customers.get(customer_id, _Customer())
        state, revision = customer.state or (None, None)
        session, generation = tuple(customer.session.values()), customer.generation
        return CustomerView(state, revision, lambda: session, lambda: generation)

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

    async def pages(self) -> AsyncIterator[list[str]]:
        yield [name for name, customer in self._customers.items() if customer.log]

    async def read_searching(self, customer_id: str) -> StoredGeneration | None:
        return self._searching(self._customers.get(customer_id, _Customer()))

    async def put_generation(
        self,
        customer_id: str,
        generation: StoredGeneration,
        searching: bool = False,
        footing: Footing | None = None,
    ) -> bool:
        customer = self._customers.get(customer_id)
        if customer is None or not _stands(customer, footing):
            return False
        kept = self._searching(customer) if searching else customer.generation
        if kept is not None and kept.reflects > generation.reflects:
            return False
        if searching:
            customer.searching = (generation, self._monotonic() + SEARCHING_KEPT)
        else:
            customer.generation = generation
        return True

    def _searching(self, customer: _Customer) -> StoredGeneration | None:
        if customer.searching is None or customer.searching[1] <= self._monotonic():
            return None
        return customer.searching[0]

    async def erase(self, customer_id: str) -> bool:
        return self._customers.pop(customer_id, None) is not None


def _stands(customer: _Customer, footing: Footing | None) -> bool:
    """Whether what a generation stands on is still there."""
    if not customer.log and not customer.session:
        return False
    if footing is None:
        return True
    return footing.log in {0, customer.log_id} and (not footing.event_id or footing.event_id in customer.session)


def _add(customer: _Customer, event: Event) -> bool:
    kept = customer.log if in_log(event) else customer.session
    if event.event_id in kept:
        return False
    kept[event.event_id] = event
    return True


def _latest(session: dict[str, Event]) -> dict[str, Event]:
    ordered = sorted(session.values(), key=lambda event: (event.timestamp, event.event_id))
    return {event.event_id: event for event in ordered[-SESSION_LENGTH:]}
