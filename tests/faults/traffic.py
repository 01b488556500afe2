"""Customers' events, sent by several writers at once who ask again until each is acknowledged.

What is sent is drawn beforehand: purchases, some of them late; returns of what was bought; clicks and searches; and a
good part of it twice, by two writers. So the outcome is known, whoever comes first.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2

DAY = 86_400
PAUSE = 0.05  # seconds until a call that failed is made again
PATIENCE = 60.0  # seconds until a writer who hears nothing gives up

Event = dict[str, Any]


def draw_events(customers: int, each: int, articles: Sequence[str], until: int, rng: random.Random) -> list[Event]:
    """``each`` events of every customer, all before ``until`` (Unix seconds), in the order in which they happen.

    Of ten events seven are purchases (two of them late: up to 200 days), one is a return, two are clicks or searches.
    """
    events: list[Event] = []
    bought: dict[str, list[Event]] = {}
    for number in range(each):
        for name in range(customers):
            customer = f"customer {name:02}"
            now = until - (each - number) * DAY + rng.randrange(3_600)
            event: Event = {"event_id": f"{name}-{number}", "customer_id": customer, "timestamp": now}
            kind = rng.random()
            if kind < 0.7:
                event |= {"type": "purchase", "article_id": rng.choice(articles)}
                event["timestamp"] -= rng.randrange(200) * DAY if kind < 0.2 else 0
                bought.setdefault(customer, []).append(event)
            elif kind < 0.8 and bought.get(customer):
                event |= {"type": "return", "article_id": rng.choice(bought[customer])["article_id"]}
            elif kind < 0.9:
                event |= {"type": "search", "query": rng.choice(["red dress", "warm coat", "läufer"])}
            else:
                event |= {"type": "click", "article_id": rng.choice(articles)}
            events.append(event)
    return events


def calls_of(events: Sequence[Event], writers: int, twice: float, rng: random.Random) -> list[list[list[Event]]]:
    """For each writer the calls to make, of 1 to 5 events each. A share ``twice`` of the events is sent by two writers.

    Who sends what is drawn anew for each event, so that all write about the same customers at about the same time.
    """
    of_writer: list[list[Event]] = [[] for _ in range(writers)]
    for event in events:
        for writer in rng.sample(range(writers), 2 if rng.random() < twice else 1):
            of_writer[writer].append(event)
    return [_in_calls(own, rng) for own in of_writer]


def _in_calls(events: Sequence[Event], rng: random.Random) -> list[list[Event]]:
    rest = list(events)
    calls: list[list[Event]] = []
    while rest:
        size = rng.choice((1, 1, 1, 2, 5))
        calls.append(rest[:size])
        del rest[:size]
    return calls


CALM = {"llm_url": "off", "redis_timeout": 10}
"""Settings: on a machine that is busy with other tests, nothing is to fail because Redis took its time."""


@dataclass
class Told:
    """What writers were told. ``acknowledged``: event id → when (``time.monotonic``)."""

    accepted: int = 0
    duplicates: int = 0
    failed: int = 0
    reasons: set[str] = field(default_factory=set)
    acknowledged: dict[str, float] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)


async def write(url: str, calls: Sequence[Sequence[Sequence[Event]]], told: Told) -> None:
    """Let every writer make its calls in turn, each again until it is answered.

    Each call has a connection of its own, so that all workers get some.
    """
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(base_url=url, timeout=10, limits=limits) as http:
        await asyncio.gather(*(_write(http, own, told) for own in calls))


async def _write(http: httpx2.AsyncClient, calls: Iterable[Sequence[Event]], told: Told) -> None:
    for events in calls:
        answer = await _until_answered(partial(http.post, "/v1/events", json=events), told)
        taken = answer.json()
        assert taken["rejected"] == [], taken
        told.accepted += taken["accepted"]
        told.duplicates += taken["duplicates"]
        told.workers.add(answer.headers["x-request-id"].partition("-")[0])
        now = time.monotonic()
        for event in events:
            told.acknowledged.setdefault(event["event_id"], now)


def in_rounds(calls: Sequence[Sequence[Sequence[Event]]], count: int) -> list[list[Sequence[Sequence[Event]]]]:
    """The same calls, in ``count`` rounds that follow one another."""
    return [
        [own[number * len(own) // count : (number + 1) * len(own) // count] for own in calls] for number in range(count)
    ]


async def _until_answered(call: Callable[[], Awaitable[httpx2.Response]], told: Told) -> httpx2.Response:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, "nobody answers any more"
        try:
            answer = await call()
        except httpx2.TransportError as error:  # a connection that was cut, or refused
            told.reasons.add(repr(error))
        else:
            if answer.status_code == 200:
                return answer
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            told.reasons.add(answer.text)
        told.failed += 1
        await asyncio.sleep(PAUSE)
