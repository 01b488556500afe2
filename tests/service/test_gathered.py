"""service.gathered: who shares a call or a computation, and that nobody spoils another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.gathered import Gathered, WorkedOff


class Doubling:
    """Answers twice the key, notes its calls, and fails where it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.calls: list[list[int]] = []
        self.failure = failure
        self.called, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def __call__(self, keys: Sequence[int]) -> list[int]:
        self.calls.append(list(keys))
        self.called.set()
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        return [2 * key for key in keys]


async def test_who_asks_in_the_same_turn_shares_a_call_and_gets_their_own_answer() -> None:
    many = Doubling()
    gathered = Gathered(many, most=3)
    assert await asyncio.gather(*map(gathered.one, [5, 6, 5, 7])) == [10, 12, 10, 14]
    assert many.calls == [[5, 6, 5], [7]]
    assert await gathered.one(8) == 16
    assert many.calls[2:] == [[8]]


async def test_who_asks_while_a_call_is_under_way_is_not_answered_by_it() -> None:
    many = Doubling()
    many.go_on.clear()
    gathered = Gathered(many, held=60.0)
    first = asyncio.create_task(gathered.one(1))
    await many.called.wait()
    others = [asyncio.create_task(gathered.one(key)) for key in (1, 2)]
    await asyncio.sleep(0.01)
    others.append(asyncio.create_task(gathered.one(3)))
    await asyncio.sleep(0.01)
    assert many.calls == [[1]]
    many.go_on.set()
    assert await asyncio.gather(first, *others) == [2, 2, 4, 6]
    assert many.calls == [[1], [1, 2, 3]]


async def test_a_call_that_takes_long_holds_nobody_back() -> None:
    many = Doubling()
    many.go_on.clear()
    gathered = Gathered(many, held=0.01)
    tasks = []
    for number in (1, 2, 3):
        many.called.clear()
        tasks.append(asyncio.create_task(gathered.one(number)))
        async with asyncio.timeout(10):
            await many.called.wait()
        assert many.calls == [[each] for each in range(1, number + 1)]
    many.go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_who_waits_for_a_call_that_fails_has_one_of_their_own() -> None:
    many = Doubling(OSError("down"))
    many.go_on.clear()
    gathered = Gathered(many, held=60.0)
    first = asyncio.create_task(gathered.one(1))
    await many.called.wait()
    second = asyncio.create_task(gathered.one(2))
    await asyncio.sleep(0)
    many.go_on.set()
    with pytest.raises(OSError, match="down"):
        await first
    many.failure = None
    assert await second == 4


async def test_a_failure_reaches_all_who_shared_the_call_and_nobody_else() -> None:
    many = Doubling(OSError("down"))
    gathered = Gathered(many)
    answers = await asyncio.gather(gathered.one(1), gathered.one(2), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["down", "down"]
    many.failure = None
    assert await gathered.one(3) == 6


async def test_who_gives_up_does_not_take_the_others_along() -> None:
    many = Doubling()
    many.go_on.clear()
    gathered = Gathered(many)
    tasks = [asyncio.create_task(gathered.one(key)) for key in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # before the call
    await asyncio.sleep(0.01)
    assert many.calls == [[2, 3]]
    tasks[1].cancel()  # during the call
    await asyncio.sleep(0)
    many.go_on.set()
    assert await tasks[2] == 6
    for given_up in tasks[:2]:
        with pytest.raises(asyncio.CancelledError):
            await given_up


def halves(keys: Sequence[int]) -> list[int]:
    """Half of each key; for an odd one there is none."""
    for key in keys:
        if key % 2:
            raise ValueError(f"{key} is odd")
    return [key // 2 for key in keys]


async def test_what_is_asked_in_the_same_turn_is_worked_off_together() -> None:
    calls: list[list[int]] = []

    def many(keys: Sequence[int]) -> list[int]:
        calls.append(list(keys))
        return halves(keys)

    worked_off = WorkedOff(many, most=3)
    assert await asyncio.gather(*map(worked_off.one, [2, 4, 2, 6])) == [1, 2, 1, 3]
    assert calls == [[2, 4, 2], [6]]
    assert await worked_off.one(8) == 4


async def test_what_fails_fails_for_itself_alone() -> None:
    worked_off = WorkedOff(halves)
    answers = await asyncio.gather(*map(worked_off.one, [2, 3, 4, 5]), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["1", "3 is odd", "2", "5 is odd"]


async def test_nothing_is_worked_off_for_those_who_have_given_up() -> None:
    calls: list[list[int]] = []
    worked_off = WorkedOff(lambda keys: calls.append(list(keys)) or keys)  # type: ignore[func-returns-value]
    tasks = [asyncio.create_task(worked_off.one(key)) for key in (1, 2)]
    asyncio.get_running_loop().call_soon(tasks[0].cancel)
    assert await tasks[1] == 2
    assert tasks[0].cancelled()
