"""Many who schedule at once share few calls, and each hears the truth about theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.errors import StoreUnavailable
from service.generation.memory_queue import MemoryGenerationQueue
from service.generation.records import GenerationRequest
from service.generation.together import Together


class Slow(MemoryGenerationQueue):
    """A queue that answers in a moment, or fails its first ``failing`` calls."""

    def __init__(self, failing: int = 0) -> None:
        super().__init__(debounce=0)
        self.calls: list[list[GenerationRequest]] = []
        self.failing = failing

    async def schedule(self, requests: Sequence[GenerationRequest]) -> None:
        self.calls.append(list(requests))
        await asyncio.sleep(0.01)
        if len(self.calls) <= self.failing:
            raise StoreUnavailable("down")
        await super().schedule(requests)

    async def waiting(self) -> int:
        return (await self.figures()).waiting


def asks(*customers: str) -> list[GenerationRequest]:
    return [GenerationRequest(customer_id) for customer_id in customers]


async def test_one_alone_makes_one_call() -> None:
    queue = Slow()
    together = Together(queue)
    await together.schedule(asks("a", "b"))
    await together.schedule(asks("a"))
    assert queue.calls == [asks("a", "b"), asks("a")]


async def test_those_who_come_during_a_call_share_the_next() -> None:
    queue = Slow()
    together = Together(queue)

    async def one(number: int) -> None:
        await together.schedule(asks(f"customer {number % 40}"))
        assert any(GenerationRequest(f"customer {number % 40}") in call for call in queue.calls)

    await asyncio.gather(*(one(number) for number in range(100)))
    assert [len(call) for call in queue.calls] in ([1, 40], [40])
    assert await queue.waiting() == 40


async def test_the_newest_query_is_scheduled_last() -> None:
    queue = Slow()
    together = Together(queue)
    red, blue = GenerationRequest("a", "red"), GenerationRequest("a", "blue")
    await asyncio.gather(*(together.schedule([each]) for each in (red, blue, red)))
    taken = await queue.take(0)
    assert taken is not None
    assert taken.request == red


async def test_a_failure_is_everybodys_own_and_hides_no_success() -> None:
    queue = Slow(failing=2)
    together = Together(queue)
    answers = await asyncio.gather(*(together.schedule(asks(name)) for name in "abcde"), return_exceptions=True)
    assert sum(isinstance(answer, StoreUnavailable) for answer in answers) == 2
    assert await queue.waiting() >= 3


async def test_one_who_is_cancelled_takes_nobody_along() -> None:
    queue = Slow()
    together = Together(queue)
    tasks = [asyncio.create_task(together.schedule(asks(name))) for name in "abc"]
    await asyncio.sleep(0.005)
    tasks[0].cancel()
    await asyncio.gather(*tasks[1:])
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert await queue.waiting() >= 2
