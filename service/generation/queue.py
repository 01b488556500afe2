"""Who waits for a generation: the protocol that every queue fulfils. One contract suite holds all of them to it.

A customer waits at most once; a moment after they were scheduled they are due, so that a burst of events asks for one
generation. Whoever takes a request has it until they finish it or give it back; from one who dies it is taken over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.generation.records import GenerationRequest

MOST_TRIES = 4
"""Times that a request is tried before it is given up."""
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds
WRITING, WAITING = "writing", "waiting"
STAGES = (WRITING, WAITING)
"""What is timed: the language model's writing, and how long a request waited until it was taken."""


class Outcome(StrEnum):
    """What became of a request; the queue itself counts the last three."""

    WRITTEN = "written"
    FRESH = "fresh"
    """What was there reflected everything already."""
    NOTHING_TO_SAY = "nothing_to_say"
    """The customer did nothing that a prompt could tell, or was erased."""
    TOO_LATE = "too_late"
    """Something newer was there already, or the customer was erased meanwhile."""
    UNPARSEABLE = "unparseable"
    REFUSED = "refused"
    """The language model takes no such prompt, neither now nor later."""
    RETRIED = "retried"
    GIVEN_UP = "given_up"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Taken:
    """A request in hand. ``tries`` counts this one; ``waited``: seconds since it was first scheduled."""

    entry: str
    request: GenerationRequest
    tries: int
    waited: float


@dataclass(frozen=True)
class Timing:
    """How long one stage took, over all: ``counts`` per bucket of ``BUCKETS`` and beyond them, ``total`` seconds."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0


@dataclass(frozen=True)
class Figures:
    """The queue at a glance: who waits, what is in hand, and what became of all the others since it was begun."""

    waiting: int
    in_hand: int
    outcomes: Mapping[Outcome, int]
    timings: Mapping[str, Timing]


class GenerationQueue(Protocol):
    """Requests for generations, oldest first, shared by all who write. All calls raise StoreUnavailable."""

    async def schedule(self, requests: Sequence[GenerationRequest]) -> None:
        """Let customers wait, in order. One who waits already stays in place; a newer query replaces their older one.

        Where more wait than the queue may hold, the oldest are dropped, and counted.
        """
        ...

    async def forget(self, customer_id: str) -> None:
        """Let an erased customer wait no more."""
        ...

    async def take(self, wait: float) -> Taken | None:
        """The next request that is due, or None where there is none within ``wait`` seconds.

        What happens to its customer from here on is scheduled anew. A request that was taken and neither finished nor
        given back for too long counts as abandoned and is taken again, after too many tries given up.
        """
        ...

    async def finish(self, taken: Taken, outcome: Outcome, seconds: float | None = None) -> None:
        """Done with a request, for good. ``seconds``: what the language model took, where it wrote."""
        ...

    async def give_back(self, taken: Taken, *, failed: bool = True) -> None:
        """Let the request be taken again later, behind the others; after too many tries that ``failed``, give it up.

        Nothing happens where somebody else has finished it, or the customer waits again anyway.
        """
        ...

    async def figures(self) -> Figures:
        """What is to be known about the queue."""
        ...


def increments(outcome: Outcome, waited: float, seconds: float | None) -> dict[str, float]:
    """What one request that ends adds to which count."""
    found: dict[str, float] = {outcome.value: 1} | _timed(WAITING, waited)
    if seconds is not None:
        found |= _timed(WRITING, seconds)
    return found


def figures_of(waiting: int, in_hand: int, counts: Mapping[str, float]) -> Figures:
    """Figures from what ``increments`` added up to."""
    return Figures(
        waiting,
        in_hand,
        {outcome: int(counts.get(outcome.value, 0)) for outcome in Outcome},
        {stage: _timing(stage, counts) for stage in STAGES},
    )


def _timed(stage: str, seconds: float) -> dict[str, float]:
    return {_bucket(stage, bisect_left(BUCKETS, seconds)): 1, f"{stage}:total": seconds}


def _timing(stage: str, counts: Mapping[str, float]) -> Timing:
    each = tuple(int(counts.get(_bucket(stage, place), 0)) for place in range(len(BUCKETS) + 1))
    return Timing(each, counts.get(f"{stage}:total", 0.0))


def _bucket(stage: str, place: int) -> str:
    """Named by its bound, so that a release with other buckets does not read them wrongly."""
    return f"{stage}:{BUCKETS[place] if place < len(BUCKETS) else 'beyond'}"
