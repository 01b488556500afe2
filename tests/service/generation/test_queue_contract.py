"""What every GenerationQueue does; held against the one in memory and those in a real Valkey and a real cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from redis_server import cluster_url as cluster_url  # noqa: PLC0414 - a fixture

from service.generation.queue import MOST_TRIES, WAITING, WRITING, GenerationQueue, Outcome, Taken
from service.generation.records import GenerationRequest

from .queues import Make, memory_queues, redis_queues

ODD_IDS = ["a", "{x}", "}{", "日本 / %7B", "é" * 128, "a b\u2028", "*", "1-1", "0"]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    if request.param == "memory":
        async with memory_queues() as make:
            yield make
        return
    url = request.getfixturevalue("cluster_url") if request.param == "cluster" else None
    async with redis_queues(url) as make:
        yield make


def asks(*customers: str) -> list[GenerationRequest]:
    return [GenerationRequest(customer_id) for customer_id in customers]


async def take(queue: GenerationQueue) -> Taken:
    taken = await queue.take(1)
    assert taken is not None
    return taken


async def customers(queue: GenerationQueue) -> list[str]:
    """All that wait, finished on the way."""
    found = []
    while (taken := await queue.take(0)) is not None:
        found.append(taken.request.customer_id)
        await queue.finish(taken, Outcome.WRITTEN)
    return found


async def counts(queue: GenerationQueue) -> dict[str, int]:
    return {outcome.value: number for outcome, number in (await queue.figures()).outcomes.items() if number}


async def test_nobody_waits_at_first(make: Make) -> None:
    queue = make()
    assert await queue.take(0) is None
    assert await queue.take(0.05) is None
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand, set(figures.outcomes.values())) == (0, 0, {0})
    await queue.schedule([])
    await queue.forget("nobody")
    assert await queue.take(0) is None


async def test_the_first_come_is_the_first_taken(make: Make) -> None:
    queue = make()
    await queue.schedule(asks(*ODD_IDS))
    assert (await queue.figures()).waiting == len(ODD_IDS)
    assert await customers(queue) == ODD_IDS
    assert await customers(queue) == []
    assert await counts(queue) == {"written": len(ODD_IDS)}


async def test_who_waits_already_stays_in_place(make: Make) -> None:
    queue = make()
    await queue.schedule(asks("a", "b", "a"))
    await queue.schedule(asks("b", "c", "a"))
    assert await customers(queue) == ["a", "b", "c"]


async def test_what_happens_after_the_taking_is_scheduled_anew(make: Make) -> None:
    queue = make()
    await queue.schedule(asks("a"))
    first = await take(queue)
    await queue.schedule(asks("a"))
    second = await take(queue)
    assert first.request == second.request
    assert first.entry != second.entry
    await queue.finish(first, Outcome.WRITTEN)
    assert (await queue.figures()).in_hand == 1
    await queue.finish(second, Outcome.FRESH)
    assert await counts(queue) == {"written": 1, "fresh": 1}


async def test_a_burst_is_due_once_a_moment_after_its_first(make: Make) -> None:
    queue = make(debounce=0.3)
    await queue.schedule(asks("a"))
    assert await queue.take(0) is None
    await queue.schedule(asks("a"))
    taken = await take(queue)
    assert taken.waited >= 0.29
    await queue.finish(taken, Outcome.WRITTEN)
    assert await queue.take(0.5) is None


@pytest.mark.parametrize("query", ["red dress", "", " 1-1 {} \u2028 赤", '"'])
async def test_a_query_waits_beside_the_customer_it_is_of(make: Make, query: str) -> None:
    queue = make()
    await queue.schedule([GenerationRequest("a", query), GenerationRequest("a"), GenerationRequest("b", query)])
    await queue.schedule([GenerationRequest("a", query)])
    taken = [(await take(queue)).request for _ in range(3)]
    assert taken == [GenerationRequest("a", query), GenerationRequest("a"), GenerationRequest("b", query)]
    assert await queue.take(0) is None


async def test_the_newest_query_is_what_is_searched_now(make: Make) -> None:
    queue = make()
    await queue.schedule([GenerationRequest("a", "red"), GenerationRequest("b", "blue")])
    await queue.schedule([GenerationRequest("a", "red dress")])
    assert (await queue.figures()).waiting == 2
    assert [(await take(queue)).request for _ in range(2)] == [
        GenerationRequest("b", "blue"), GenerationRequest("a", "red dress")
    ]  # fmt: skip
    assert await queue.take(0) is None


async def test_the_oldest_go_where_too_many_wait(make: Make) -> None:
    queue = make(most=3)
    await queue.schedule(asks("a", "b", "c", "d"))
    await queue.schedule(asks("e", "b"))
    assert (await queue.figures()).waiting == 3
    assert await customers(queue) == ["c", "d", "e"]  # b's place was the oldest
    assert await counts(queue) == {"dropped": 2, "written": 3}
    await queue.schedule(asks("a"))  # who was dropped can wait again
    assert await customers(queue) == ["a"]


async def test_what_is_in_hand_is_not_dropped(make: Make) -> None:
    queue = make(most=2)
    await queue.schedule(asks("a", "b"))
    taken = [await take(queue), await take(queue)]
    await queue.schedule(asks("c", "d", "e"))
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand, figures.outcomes[Outcome.DROPPED]) == (2, 2, 1)
    for each in taken:
        await queue.give_back(each)
    assert await customers(queue) == ["a", "b"]


async def test_a_thousand_are_dropped_at_once(make: Make) -> None:
    queue = make(most=10)
    await queue.schedule(asks(*(f"customer {number}" for number in range(2500))))
    assert await customers(queue) == [f"customer {number}" for number in range(2490, 2500)]
    assert (await queue.figures()).outcomes[Outcome.DROPPED] == 2490


async def test_whoever_is_forgotten_waits_no_more(make: Make) -> None:
    queue = make()
    await queue.schedule([*asks("a", "b"), GenerationRequest("a", "red"), *asks("c")])
    await queue.forget("a")
    assert (await queue.figures()).waiting == 2
    assert await customers(queue) == ["b", "c"]


async def test_what_is_given_back_comes_behind_the_others(make: Make) -> None:
    queue = make()
    await queue.schedule([GenerationRequest("a", "red"), *asks("b")])
    first = await take(queue)
    assert first.tries == 1
    await queue.give_back(first)
    assert (await take(queue)).request.customer_id == "b"
    again = await take(queue)
    assert (again.request, again.tries) == (GenerationRequest("a", "red"), 2)
    assert again.waited >= first.waited
    assert (await queue.figures()).outcomes[Outcome.RETRIED] == 1


async def test_what_fails_again_and_again_is_given_up(make: Make) -> None:
    queue = make()
    await queue.schedule(asks("a"))
    for tries in range(1, MOST_TRIES + 1):
        taken = await take(queue)
        assert taken.tries == tries
        await queue.give_back(taken)
    assert await queue.take(0) is None
    assert await counts(queue) == {"given_up": 1, "retried": MOST_TRIES - 1}
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand) == (0, 0)


async def test_what_did_not_fail_is_given_back_for_ever(make: Make) -> None:
    queue = make()
    await queue.schedule(asks("a"))
    for _ in range(MOST_TRIES + 2):
        taken = await take(queue)
        assert taken.tries == 1
        await queue.give_back(taken, failed=False)
    assert await customers(queue) == ["a"]


async def test_giving_back_who_waits_again_leaves_them_once(make: Make) -> None:
    queue = make()
    await queue.schedule(asks("a", "b"))
    taken = await take(queue)
    await queue.schedule(asks("a"))
    await queue.give_back(taken)
    assert await customers(queue) == ["b", "a"]


async def test_what_somebody_dropped_dead_with_is_taken_over(make: Make) -> None:
    queue, heir = make(abandoned_after=60), make(abandoned_after=0.1)
    await queue.schedule([GenerationRequest("a", "red"), *asks("b")])
    dead = await take(queue)
    assert (await take(queue)).request.customer_id == "b"
    assert await queue.take(0) is None
    await asyncio.sleep(0.15)
    over = await take(heir)
    assert (over.request, over.tries) == (dead.request, 2)
    assert (await take(heir)).request.customer_id == "b"
    assert await heir.take(0) is None


async def test_the_slow_one_of_two_ends_nothing_twice(make: Make) -> None:
    """It was taken over while it worked: what either of them does first counts, and the other changes nothing."""
    queue, heir = make(abandoned_after=60), make(abandoned_after=0)
    for end in ("finish", "give_back"):
        await queue.schedule(asks("a"))
        slow = await take(queue)
        quick = await take(heir)
        assert quick.request == slow.request
        await queue.finish(quick, Outcome.WRITTEN)
        if end == "finish":
            await queue.finish(slow, Outcome.WRITTEN)
        else:
            await queue.give_back(slow)
        assert await queue.take(0) is None
    assert await counts(queue) == {"written": 2}


async def test_what_kills_everybody_is_given_up(make: Make) -> None:
    heir = make(abandoned_after=0)
    await heir.schedule(asks("poison"))
    for tries in range(1, MOST_TRIES + 1):
        assert (await take(heir)).tries == tries
    assert await heir.take(0) is None
    assert await counts(heir) == {"given_up": 1}


async def test_a_dead_ones_customer_who_waits_again_waits_once(make: Make) -> None:
    queue, heir = make(abandoned_after=60), make(abandoned_after=0)
    await queue.schedule(asks("a"))
    await take(queue)
    await queue.schedule(asks("a"))
    assert (await take(heir)).tries == 1
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand) == (0, 1)


async def test_a_waiting_taker_hears_at_once(make: Make) -> None:
    queue = make()
    waiting = asyncio.create_task(queue.take(20))
    await asyncio.sleep(0.05)
    await queue.schedule(asks("a"))
    async with asyncio.timeout(10):
        taken = await waiting
    assert taken is not None
    assert taken.request.customer_id == "a"


async def test_many_takers_share_and_none_takes_twice(make: Make) -> None:
    queue = make()
    everybody = [f"customer {number}" for number in range(300)]
    done: list[list[str]] = [[] for _ in range(6)]

    async def work(mine: list[str]) -> None:
        while (taken := await queue.take(0.5)) is not None:
            mine.append(taken.request.customer_id)
            await asyncio.sleep(0)
            await queue.finish(taken, Outcome.WRITTEN)

    tasks = [asyncio.create_task(work(mine)) for mine in done]
    for start in range(0, 300, 10):
        await queue.schedule(asks(*everybody[start : start + 10]))
    await asyncio.gather(*tasks)
    assert Counter(customer for mine in done for customer in mine) == Counter(everybody)
    assert min(map(len, done)) > 0


async def test_figures_tell_times_and_outcomes(make: Make) -> None:
    queue = make()
    await queue.schedule(asks("a", "b", "c"))
    for outcome, seconds in ((Outcome.WRITTEN, 0.03), (Outcome.UNPARSEABLE, 500.0), (Outcome.NOTHING_TO_SAY, None)):
        await queue.finish(await take(queue), outcome, seconds)
    figures = await queue.figures()
    assert await counts(queue) == {"written": 1, "unparseable": 1, "nothing_to_say": 1}
    writing = figures.timings[WRITING]
    assert writing.counts == (0, 0, 1, *[0] * 9, 1)
    assert writing.total == pytest.approx(500.03)
    assert sum(figures.timings[WAITING].counts) == 3
