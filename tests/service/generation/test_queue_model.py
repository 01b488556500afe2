"""Whatever happens in whatever order, the queue in Redis does what the one in memory does, and loses nobody."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from redis_server import empty_server

from service.generation.memory_queue import MemoryGenerationQueue, Requests
from service.generation.queue import Outcome, Taken
from service.generation.records import GenerationRequest
from service.generation.redis_queue import RedisGenerationQueue
from service.state.connection import connect

MOST = 4
REQUESTS = st.builds(GenerationRequest, st.sampled_from(["a", "{b}", "c", "d", "é"]), st.sampled_from([None, "x", "y"]))
Held = tuple[Taken, Taken]
"""One request in hand: of the queue in Redis, and of the one in memory."""


class RedisAgainstMemory(RuleBasedStateMachine):
    """``held``: what living takers have in hand. ``owed``: who was scheduled, and not taken and finished since."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.client = connect(empty_server(), timeout=10)
        requests = self.runner.run(self.made())
        self.queues = [
            RedisGenerationQueue(self.client, most=MOST, debounce=0, abandoned_after=600),
            MemoryGenerationQueue(requests, most=MOST, debounce=0, abandoned_after=600),
        ]
        self.heirs = [
            RedisGenerationQueue(self.client, most=MOST, debounce=0, abandoned_after=0),
            MemoryGenerationQueue(requests, most=MOST, debounce=0, abandoned_after=0),
        ]
        self.held: list[Held] = []
        self.owed: dict[tuple[str, bool], int] = {}
        self.taken_at: dict[str, int] = {}
        self.moments = 0

    async def made(self) -> Requests:
        return Requests()

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.everybody_is_accounted_for()
        self.runner.run(self.client.aclose())
        self.runner.close()

    def both(self, call: Any) -> list[Any]:
        return [self.runner.run(call(queue)) for queue in self.queues]

    def take_from(self, queues: Any) -> Held | None:
        ours, theirs = (self.runner.run(queue.take(0)) for queue in queues)
        assert (ours is None) == (theirs is None)
        if ours is None or theirs is None:
            return None
        assert (ours.request, ours.tries) == (theirs.request, theirs.tries)
        self.moments += 1
        self.taken_at[ours.entry] = self.moments
        return ours, theirs

    @rule(requests=st.lists(REQUESTS, max_size=7))
    def schedule(self, requests: list[GenerationRequest]) -> None:
        self.both(lambda queue: queue.schedule(requests))
        self.moments += 1
        self.owed |= {who(request): self.moments for request in requests}

    @rule()
    def take(self) -> None:
        if (held := self.take_from(self.queues)) is not None:
            self.held.append(held)

    @rule(index=st.integers(0, 20), outcome=st.sampled_from([Outcome.WRITTEN, Outcome.FRESH, Outcome.UNPARSEABLE]))
    def finish(self, index: int, outcome: Outcome) -> None:
        if self.held:
            self.end(self.held.pop(index % len(self.held)), outcome)

    def end(self, held: Held, outcome: Outcome) -> None:
        for queue, taken in zip(self.queues, held, strict=True):
            self.runner.run(queue.finish(taken, outcome, 0.5))  # type: ignore[attr-defined]
        if self.owed.get(who(held[0].request), 0) <= self.taken_at[held[0].entry]:
            self.owed.pop(who(held[0].request), None)

    @rule(index=st.integers(0, 20), failed=st.booleans())
    def give_back(self, index: int, failed: bool) -> None:
        if self.held:
            held = self.held.pop(index % len(self.held))
            for queue, taken in zip(self.queues, held, strict=True):
                self.runner.run(queue.give_back(taken, failed=failed))  # type: ignore[attr-defined]

    @rule(index=st.integers(0, 20))
    def die(self, index: int) -> None:
        """Whoever has it neither finishes it nor gives it back."""
        if self.held:
            self.held.pop(index % len(self.held))

    @rule()
    def take_over(self) -> None:
        """From the dead, or from somebody who is only slow and may still end what is no longer theirs."""
        if (held := self.take_from(self.heirs)) is not None:
            self.held.append(held)

    @rule(customer_id=st.sampled_from(["a", "{b}"]))
    def forget(self, customer_id: str) -> None:
        self.both(lambda queue: queue.forget(customer_id))
        for searching in (False, True):
            self.owed.pop((customer_id, searching), None)

    @rule()
    def forget_scripts(self) -> None:
        self.runner.run(self.client.execute_command("SCRIPT FLUSH"))  # type: ignore[no-untyped-call]

    @invariant()
    def both_tell_the_same_and_hold_the_bound(self) -> None:
        if hasattr(self, "runner"):
            ours, theirs = self.both(lambda queue: queue.figures())
            assert (ours.waiting, ours.in_hand, ours.outcomes) == (theirs.waiting, theirs.in_hand, theirs.outcomes)
            assert ours.waiting <= MOST

    def everybody_is_accounted_for(self) -> None:
        """After all have died: whoever is owed a generation is taken, or counted as dropped or given up."""
        while (held := self.take_from(self.heirs)) is not None:
            self.end(held, Outcome.WRITTEN)
        figures = self.both(lambda queue: queue.figures())[0]
        assert (figures.waiting, figures.in_hand) == (0, 0)
        assert len(self.owed) <= figures.outcomes[Outcome.DROPPED] + figures.outcomes[Outcome.GIVEN_UP]


def who(request: GenerationRequest) -> tuple[str, bool]:
    return request.customer_id, request.query is not None


RedisAgainstMemory.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRedisAgainstMemory = RedisAgainstMemory.TestCase


async def test_without_drops_and_endless_failure_nobody_is_lost() -> None:
    """The bound above is only as good as its counts: with none of either, all that was scheduled is taken."""
    client = connect(empty_server(), timeout=10)
    queue, heir = (RedisGenerationQueue(client, debounce=0, abandoned_after=after) for after in (600, 0))
    everybody = [GenerationRequest(f"customer {number}", "q" if number % 3 else None) for number in range(60)]
    await queue.schedule(everybody)
    found = []
    for number in range(60):
        taken = await queue.take(0)
        assert taken is not None
        if number % 3:  # whoever has each third dies
            await queue.finish(taken, Outcome.WRITTEN)
            found.append(taken.request)
    assert await queue.take(0) is None
    while (taken := await heir.take(0)) is not None:
        await heir.finish(taken, Outcome.WRITTEN)
        found.append(taken.request)
    assert sorted(found, key=everybody.index) == everybody
    await client.aclose()
