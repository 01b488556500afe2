"""Any sequence of calls does to the real store what it does to dictionaries, kept by the plainest means."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from redis_server import empty_server

from model_store.records import Event
from service.state.connection import connect
from service.state.customer import NO_LOG, SESSION_LENGTH, Addition, CustomerState, Revision, in_log
from service.state.redis_store import RedisStore

CUSTOMERS = ["a", "{b}"]
EVENTS = st.builds(
    lambda number, kind, time: Event(
        event_id=f"é{number}", type=kind, customer_id="a", article_id=f"article {number} {time}", timestamp=time
    ),
    st.integers(0, 99),
    st.sampled_from(["purchase", "return", *["click"] * 6]),
    st.integers(0, 5),
)
BATCHES = st.lists(EVENTS, min_size=1, max_size=40)


def state_named(name: str) -> CustomerState:
    return CustomerState(name, 0, np.zeros(256, np.float32), np.zeros(256, np.float32), None)


class RedisAgainstDictionaries(RuleBasedStateMachine):
    """Each customer: the log, the session, the state that should be there, and every revision that was ever seen."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.client = connect(empty_server(), timeout=10)
        self.store = RedisStore(self.client)
        self.logs: dict[str, dict[str, Event]] = {each: {} for each in CUSTOMERS}
        self.sessions: dict[str, dict[str, Event]] = {each: {} for each in CUSTOMERS}
        self.states: dict[str, str | None] = dict.fromkeys(CUSTOMERS)
        self.revisions: dict[str, list[Revision]] = {each: [NO_LOG] for each in CUSTOMERS}
        self.names = iter(range(10**9))

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.client.aclose())
            self.runner.close()

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    @rule(customer_id=st.sampled_from(CUSTOMERS), events=BATCHES, age=st.integers(-1, 4), bring=st.booleans())
    def append(self, customer_id: str, events: list[Event], age: int, bring: bool) -> None:
        """With no expectation (age -1), the current revision (0) or an older one; with a state or without."""
        events = [event.model_copy(update={"customer_id": customer_id}) for event in events]
        seen = self.revisions[customer_id]
        current = self.revision(customer_id)
        expected = None if age < 0 else current if age == 0 else seen[max(len(seen) - 1 - age, 0)]
        name = f"state {next(self.names)}"
        addition = Addition(customer_id, tuple(events), expected, state_named(name) if bring else None)
        appended = self.run(self.store.append(addition))
        added = [self.add(customer_id, event) for event in events]
        self.trim(customer_id)
        assert appended.added == tuple(added)
        new = [was_new for was_new, event in zip(added, events, strict=True) if in_log(event)]
        stored = any(new) and all(new) and bring and expected == current
        assert appended.state_stored == stored
        if any(new):
            self.states[customer_id] = name if stored else None
            seen.append(appended.revision)
        assert appended.revision == self.revision(customer_id)
        assert appended.revision.entries == len(self.logs[customer_id])

    def add(self, customer_id: str, event: Event) -> bool:
        kept = self.logs[customer_id] if in_log(event) else self.sessions[customer_id]
        if event.event_id in kept:
            return False
        kept[event.event_id] = event
        return True

    def trim(self, customer_id: str) -> None:
        session = self.sessions[customer_id]
        for event in sorted(session.values(), key=lambda event: (event.timestamp, event.event_id))[:-SESSION_LENGTH]:
            del session[event.event_id]

    def revision(self, customer_id: str) -> Revision:
        return self.revisions[customer_id][-1] if self.logs[customer_id] else NO_LOG

    @rule(customer_id=st.sampled_from(CUSTOMERS), age=st.integers(0, 4))
    def put_state(self, customer_id: str, age: int) -> None:
        seen = self.revisions[customer_id]
        revision = seen[max(len(seen) - 1 - age, 0)]
        name = f"state {next(self.names)}"
        fits = revision == self.revision(customer_id) != NO_LOG
        assert self.run(self.store.put_state(customer_id, state_named(name), revision)) == fits
        if fits:
            self.states[customer_id] = name

    @rule(customer_id=st.sampled_from(CUSTOMERS))
    def erase(self, customer_id: str) -> None:
        known = bool(self.logs[customer_id] or self.sessions[customer_id])
        assert self.run(self.store.erase(customer_id)) == known
        self.logs[customer_id], self.sessions[customer_id], self.states[customer_id] = {}, {}, None

    @rule()
    def forget_scripts(self) -> None:
        self.run(self.client.execute_command("SCRIPT FLUSH"))

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not hasattr(self, "runner"):
            return
        for customer_id in CUSTOMERS:
            log = self.run(self.store.read_log(customer_id))
            assert {event.event_id: event for event in log.events} == self.logs[customer_id]
            assert log.revision == self.revision(customer_id)
            view = self.run(self.store.read(customer_id))
            ordered = sorted(self.sessions[customer_id].values(), key=lambda event: (event.timestamp, event.event_id))
            assert list(view.session) == ordered
            name = self.states[customer_id]
            assert (None if view.state is None else view.state.bundle) == name
            assert view.revision == (None if name is None else log.revision)


RedisAgainstDictionaries.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestRedisAgainstDictionaries = RedisAgainstDictionaries.TestCase
