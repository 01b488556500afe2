"""Whether what Redis holds at the end is what was sent: each event once, and the state that a replay in turn gives."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import httpx2
import numpy as np
from faults.traffic import Event
from style_reference import Served, expected_history, expected_style

from service.state.connection import connect
from service.state.customer import SESSION_LENGTH
from service.state.redis_store import RedisStore

Events = dict[str, dict[str, Event]]
"""Events by customer and event id."""


def by_customer(events: Iterable[Event]) -> Events:
    """``events``, each once."""
    found: Events = {}
    for event in events:
        found.setdefault(event["customer_id"], {})[event["event_id"]] = event
    return found


async def stored_events(redis_url: str, customers: Iterable[str]) -> Events:
    """What Redis holds of some customers: purchases and returns, and the session."""
    client = connect(redis_url, timeout=10)
    try:
        store = RedisStore(client)
        return {name: await _stored(store, name) for name in customers}
    finally:
        await client.aclose()


async def _stored(store: RedisStore, customer_id: str) -> dict[str, Event]:
    events = [*(await store.read_log(customer_id)).events, *(await store.read(customer_id)).session]
    return {event.event_id: event.model_dump(mode="json", exclude_none=True) for event in events}


def expected_events(sent: Mapping[str, Event]) -> dict[str, Event]:
    """What is kept of one customer's events: all that was bought and returned, and the latest of the session."""
    seen = sorted(
        (event for event in sent.values() if event["type"] in {"click", "search"}),
        key=lambda event: (event["timestamp"], event["event_id"]),
    )
    kept = {event["event_id"] for event in seen[-SESSION_LENGTH:]}
    return {name: event for name, event in sent.items() if event["type"] in {"purchase", "return"} or name in kept}


async def check_states(url: str, redis_url: str, served: Served, logs: Mapping[str, Mapping[str, Event]]) -> None:
    """Every customer's state, as it is answered from, equals the reference's replay of ``logs`` from the beginning."""
    async with httpx2.AsyncClient(base_url=url, timeout=10) as http:
        for customer_id in logs:
            answer = await http.get(f"/v1/customers/{customer_id}/recommendations", params={"strategy": "style"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["degraded"] is False
    client = connect(redis_url, timeout=10)
    try:
        store = RedisStore(client)
        for customer_id, events in logs.items():
            await _check_state(store, served, customer_id, events)
    finally:
        await client.aclose()


async def _check_state(store: RedisStore, served: Served, customer_id: str, events: Mapping[str, Any]) -> None:
    state = (await store.read(customer_id)).state
    assert state is not None, f"{customer_id} has no state"
    history, returned = expected_history(dict(events))
    assert set(state.purchased) == {purchase["article_id"] for purchase in history}, customer_id
    assert set(state.returned) == returned, customer_id
    assert state.consumed == max(len(history) - 1, 0), customer_id
    at = max((event["timestamp"] for event in events.values()), default=0) + random.Random(customer_id).randrange(10**7)
    style = served.model.style(state, at)
    np.testing.assert_allclose(style, expected_style(served, history, at), atol=1e-4, rtol=0, err_msg=customer_id)
