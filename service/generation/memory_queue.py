"""Requests for generations in one process's memory: for tests, and as the plainest statement of what a queue does."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from service.generation.queue import MOST_TRIES, Figures, Outcome, Taken, figures_of, increments
from service.generation.records import GenerationRequest


@dataclass(frozen=True)
class _Entry:
    request: GenerationRequest
    name: str
    since: float  # first scheduled
    placed: float  # scheduled into this place
    tries: int = 0


@dataclass
class Requests:
    """What queues that share it have in common: who waits, oldest first, and what is in hand since when."""

    waiting: dict[tuple[str, bool], _Entry] = field(default_factory=dict)
    in_hand: dict[str, tuple[_Entry, float]] = field(default_factory=dict)
    counts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    names: Iterator[int] = field(default_factory=count)
    scheduled: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryGenerationQueue:
    """A ``GenerationQueue`` of dictionaries. Times in seconds; ``monotonic`` gives them."""

    def __init__(
        self,
        requests: Requests | None = None,
        *,
        most: int = 10_000,
        debounce: float = 0.3,
        abandoned_after: float = 25.0,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._requests = requests or Requests()
        self._most, self._debounce, self._abandoned_after = most, debounce, abandoned_after
        self._monotonic = monotonic

    async def schedule(self, requests: Sequence[GenerationRequest]) -> None:
        now = self._monotonic()
        for request in requests:
            before = self._requests.waiting.get(_key(request))
            if before is None or before.request != request:
                self._place(_Entry(request, self._name(), now, now))
        self._drop_oldest()
        self._requests.scheduled.set()

    async def forget(self, customer_id: str) -> None:
        for query in (None, ""):
            self._requests.waiting.pop(_key(GenerationRequest(customer_id, query)), None)

    async def take(self, wait: float) -> Taken | None:
        deadline = self._monotonic() + wait
        while True:
            if (taken := self._abandoned() or self._next()) is not None:
                return taken
            now = self._monotonic()
            if now >= deadline:
                return None
            await self._something_new(min(deadline - now, self._until_due(now)))

    async def finish(self, taken: Taken, outcome: Outcome, seconds: float | None = None) -> None:
        if self._requests.in_hand.pop(taken.entry, None) is not None:
            for name, added in increments(outcome, taken.waited, seconds).items():
                self._requests.counts[name] += added

    async def give_back(self, taken: Taken, *, failed: bool = True) -> None:
        entry, _ = self._requests.in_hand.pop(taken.entry, (None, None))
        if entry is None or _key(entry.request) in self._requests.waiting:
            return
        if failed and taken.tries >= MOST_TRIES:
            self._count(Outcome.GIVEN_UP)
            return
        tries = taken.tries - (not failed)
        self._place(replace(entry, name=self._name(), placed=self._monotonic(), tries=tries))
        self._count(Outcome.RETRIED)
        self._drop_oldest()
        self._requests.scheduled.set()

    async def figures(self) -> Figures:
        return figures_of(len(self._requests.waiting), len(self._requests.in_hand), self._requests.counts)

    def _place(self, entry: _Entry) -> None:
        """At the end."""
        self._requests.waiting.pop(_key(entry.request), None)
        self._requests.waiting[_key(entry.request)] = entry

    def _drop_oldest(self) -> None:
        while len(self._requests.waiting) > self._most:
            del self._requests.waiting[next(iter(self._requests.waiting))]
            self._count(Outcome.DROPPED)

    def _abandoned(self) -> Taken | None:
        now = self._monotonic()
        for name, (entry, since) in sorted(self._requests.in_hand.items(), key=lambda held: int(held[0])):
            if now - since < self._abandoned_after:
                continue
            del self._requests.in_hand[name]
            if _key(entry.request) in self._requests.waiting:
                continue
            if entry.tries >= MOST_TRIES:
                self._count(Outcome.GIVEN_UP)
                continue
            return self._hand_out(entry, now)
        return None

    def _next(self) -> Taken | None:
        now = self._monotonic()
        if not self._requests.waiting or self._until_due(now) > 0:
            return None
        return self._hand_out(self._requests.waiting.pop(next(iter(self._requests.waiting))), now)

    def _hand_out(self, entry: _Entry, now: float) -> Taken:
        entry = replace(entry, tries=entry.tries + 1)
        self._requests.in_hand[entry.name] = (entry, now)
        return Taken(entry.name, entry.request, entry.tries, now - entry.since)

    def _until_due(self, now: float) -> float:
        """Seconds until the first who waits is due; without end where nobody waits."""
        first = next(iter(self._requests.waiting.values()), None)
        return float("inf") if first is None else first.placed + self._debounce - now

    async def _something_new(self, seconds: float) -> None:
        self._requests.scheduled.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._requests.scheduled.wait()
        except TimeoutError:
            return

    def _name(self) -> str:
        return str(next(self._requests.names))

    def _count(self, outcome: Outcome) -> None:
        self._requests.counts[outcome.value] += 1


def _key(request: GenerationRequest) -> tuple[str, bool]:
    """Whoever waits: a customer, or the same customer's latest search."""
    return request.customer_id, request.query is not None
