"""service.intents: who is scheduled behind the answers' back, how often, and how many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service import intents
from service.errors import StoreUnavailable
from service.generation.memory_queue import MemoryGenerationQueue
from service.generation.records import GenerationRequest
from service.intents import AGAIN, GATHERED, Scheduler


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(MemoryGenerationQueue):
    """Keeps every call until a test lets it go, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__(debounce=0)
        self.calls: list[list[GenerationRequest]] = []
        self.called, self.go_on, self.down = asyncio.Event(), asyncio.Event(), False

    async def schedule(self, requests: Sequence[GenerationRequest]) -> None:
        self.calls.append(list(requests))
        self.called.set()
        await self.go_on.wait()
        if self.down:
            raise StoreUnavailable("down")
        await super().schedule(requests)


def request(number: int, query: str | None = None) -> GenerationRequest:
    return GenerationRequest(f"c{number}", query)


async def test_what_is_wanted_while_one_call_is_under_way_goes_together_in_the_next() -> None:
    queue = Slow()
    scheduler = Scheduler(queue, Ticks(), gathered=0)
    scheduler.want(request(0), "m")
    await queue.called.wait()
    for number in (1, 2, 1):
        scheduler.want(request(number), "m")
    queue.go_on.set()
    await scheduler.sent()
    assert queue.calls == [[request(0)], [request(1), request(2)]]
    assert (await queue.figures()).waiting == 3


async def test_what_is_wanted_within_a_moment_goes_together() -> None:
    queue = Slow()
    queue.go_on.set()
    scheduler = Scheduler(queue, Ticks())
    for number in (1, 2, 3):
        scheduler.want(request(number), "m")
        await asyncio.sleep(GATHERED / 100)
    await scheduler.sent()
    assert queue.calls == [[request(1), request(2), request(3)]]


async def test_what_somebody_waits_for_takes_all_that_is_wanted_with_it_at_once() -> None:
    queue = Slow()
    queue.go_on.set()
    scheduler = Scheduler(queue, Ticks(), gathered=600)
    scheduler.want(request(1), "m")
    scheduler.want(request(2), "m")
    await asyncio.sleep(0.01)
    assert queue.calls == []
    scheduler.want(request(2), "m", at_once=True)  # which was asked for before
    await scheduler.sent()
    assert queue.calls == [[request(1), request(2)]]
    scheduler.want(request(2), "m", at_once=True)  # was sent just now
    scheduler.want(request(3), "m", at_once=True)
    await scheduler.sent()
    assert queue.calls[1:] == [[request(3)]]


async def test_the_same_is_wanted_once_in_a_while_and_at_once_where_the_customer_did_something() -> None:
    queue, ticks = Slow(), Ticks()
    queue.go_on.set()
    scheduler = Scheduler(queue, ticks)
    for later, mark, query in (
        (0.0, "m", None),
        (1.0, "m", None),
        (1.0, "n", None),
        (1.0, "n", "q"),
        (AGAIN, "n", None),
    ):
        ticks.now = later if later != AGAIN else 1.0 + AGAIN
        scheduler.want(request(0, query), mark)
        await scheduler.sent()
    assert queue.calls == [[request(0)], [request(0)], [request(0, "q")], [request(0)]]


async def test_what_waits_to_be_sent_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intents, "MOST_WANTED", 3)
    queue = Slow()
    scheduler = Scheduler(queue, Ticks())
    for number in range(10):
        scheduler.want(request(number), "m")
    queue.go_on.set()
    await scheduler.sent()
    assert queue.calls == [[request(7), request(8), request(9)]]
    for number in (9, 0):
        scheduler.want(request(number), "m")
    await scheduler.sent()
    assert queue.calls[1:] == [[request(0)]]  # 9 is remembered


async def test_nobody_is_remembered_for_longer_than_it_matters() -> None:
    queue, ticks = Slow(), Ticks()
    queue.go_on.set()
    scheduler = Scheduler(queue, ticks, gathered=0.0)
    for number in range(100):
        ticks.now = number
        scheduler.want(request(number), "m")
        await scheduler.sent()
    assert len(scheduler._scheduled) == AGAIN
    assert len(queue.calls) == 100


async def test_a_failing_queue_is_tried_again_with_the_next() -> None:
    queue = Slow()
    queue.go_on.set()
    queue.down = True
    scheduler = Scheduler(queue, Ticks())
    scheduler.want(request(0), "m")
    await scheduler.sent()
    queue.down = False
    scheduler.want(request(1), "m")
    await scheduler.sent()
    assert (await queue.figures()).waiting == 1


async def test_an_erased_customer_is_forgotten_and_closing_ends_what_is_under_way() -> None:
    queue = Slow()
    scheduler = Scheduler(queue, Ticks())
    for number in (0, 1, 2):
        scheduler.want(request(number), "m")
    await scheduler.forget("c1")
    await queue.called.wait()
    assert queue.calls == [[request(0), request(2)]]
    await scheduler.aclose()
    assert (await queue.figures()).waiting == 0


async def test_nothing_is_sent_where_all_that_was_wanted_was_erased() -> None:
    queue = Slow()
    queue.go_on.set()
    scheduler = Scheduler(queue, Ticks())
    scheduler.want(request(0), "m")
    await asyncio.sleep(0)
    await scheduler.forget("c0")
    await scheduler.sent()
    assert queue.calls == []
