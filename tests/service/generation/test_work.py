"""Working off the queue: what fails is tried again, but never at once, and nothing in hand is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from service.errors import LanguageModelUnavailable, StoreUnavailable
from service.generation.fake import FakeTextGenerator
from service.generation.generator import Done, Generator, Scribe
from service.generation.memory_queue import MemoryGenerationQueue
from service.generation.queue import MOST_TRIES, Outcome, Taken
from service.generation.records import GenerationRequest
from service.generation.rest import Rest
from service.generation.scribes import Scribes
from service.generation.work import MOST_RUBBISH, WORTH, Work


class Writer(Generator):
    """A generator whose customers have nothing but an id: it only asks the language model."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
        await scribe.text.write([len(self.done)])
        self.done.append(request.customer_id)
        return Done(Outcome.WRITTEN, 0.01)


class OneScribe(Scribes):
    """Always the same language model, or none."""

    def __init__(self, text: FakeTextGenerator | None):
        self.scribe = None if text is None else Scribe(None, text)  # type: ignore[arg-type]

    @contextmanager
    def current(self) -> Iterator[Scribe | None]:
        yield self.scribe


def asks(*customers: str) -> list[GenerationRequest]:
    return [GenerationRequest(customer_id) for customer_id in customers]


@asynccontextmanager
async def working(
    queue: MemoryGenerationQueue, writer: Generator, text: FakeTextGenerator | None, **how: Any
) -> AsyncIterator[Work]:
    work = Work(queue, writer, OneScribe(text), **{"first_rest": 0.02, **how})
    running = asyncio.create_task(work.run())
    try:
        yield work
    finally:
        work.stop()
        async with asyncio.timeout(20):
            await running


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)


async def outcomes(queue: MemoryGenerationQueue) -> dict[str, int]:
    return {outcome.value: number for outcome, number in (await queue.figures()).outcomes.items() if number}


async def test_what_waits_is_worked_off_in_order() -> None:
    queue, writer = MemoryGenerationQueue(debounce=0), Writer()
    await queue.schedule(asks("a", "b", "c"))
    async with working(queue, writer, FakeTextGenerator()):
        await until(lambda: len(writer.done) == 3)
        await queue.schedule(asks("d"))
        await until(lambda: len(writer.done) == 4)
    assert writer.done == ["a", "b", "c", "d"]
    assert await outcomes(queue) == {"written": 4}
    assert (await queue.figures()).in_hand == 0


@pytest.mark.parametrize("at_once", [1, 3])
async def test_as_many_are_written_at_once_as_may_be(at_once: int) -> None:
    queue, writer, text = MemoryGenerationQueue(debounce=0), Writer(), FakeTextGenerator(delay=0.1)
    await queue.schedule(asks("a", "b", "c", "d", "e"))
    most = 0
    async with working(queue, writer, text, at_once=at_once):
        while len(writer.done) < 5:
            await asyncio.sleep(0.005)
            most = max(most, text.writing)
    assert most == at_once


async def test_a_language_model_that_is_away_is_left_alone_and_loses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    queue, writer = MemoryGenerationQueue(debounce=0), Writer()
    text = FakeTextGenerator(failure=LanguageModelUnavailable("down"))
    await queue.schedule(asks(*"abcdefgh"))
    with caplog.at_level(logging.INFO):
        async with working(queue, writer, text, at_once=2):
            await until(lambda: "nothing is generated for the moment: down" in caplog.text)
            await asyncio.sleep(0.5)
            figures = await queue.figures()
            assert figures.waiting == 8
            assert figures.outcomes[Outcome.GIVEN_UP] == 0
            assert len(text.prompts) <= 2  # it is asked whether it is back, not with one customer after the other
            text.failure = None
            await until(lambda: len(writer.done) == 8)
    assert sorted(writer.done) == list("abcdefgh")
    assert caplog.text.count("nothing is generated for the moment") == 1
    assert caplog.text.count("the language model writes again") == 1


async def test_one_that_only_seems_to_be_there_is_rested_from_longer_and_longer() -> None:
    """It says that it is ready and fails each prompt: each is given up after a few tries, never in a busy loop."""

    class Broken(FakeTextGenerator):
        async def ready(self) -> None:
            """All is well, it says."""

        async def write(self, prompt: Any) -> Any:
            self.prompts.append(tuple(prompt))
            raise LanguageModelUnavailable("500")

    queue, text, now = MemoryGenerationQueue(debounce=0), Broken(), 0.0
    await queue.schedule(asks("a"))
    slept: list[float] = []

    def monotonic() -> float:
        return now

    class Impatient(Work):
        """Sleeps at once, and notes for how long."""

        async def _pause(self, seconds: float) -> None:
            nonlocal now
            slept.append(seconds)
            now += seconds + 1e-6
            await asyncio.sleep(0)

    work = Impatient(queue, Writer(), OneScribe(text), monotonic=monotonic, first_rest=0.5)
    running = asyncio.create_task(work.run())
    await until(lambda: len(text.prompts) == MOST_TRIES)
    work.stop()
    await running
    assert await outcomes(queue) == {"retried": MOST_TRIES - 1, "given_up": 1}
    assert sum(slept) >= 0.5 + 1 + 2


class Rubbish(Writer):
    """What it is given cannot be read, while it ``writes`` so."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = True

    async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
        done = await super().generate(scribe, request)
        return replace(done, outcome=Outcome.UNPARSEABLE) if self.writes else done


async def test_a_language_model_that_writes_nothing_but_rubbish_is_left_alone_until_it_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue, writer = MemoryGenerationQueue(debounce=0), Rubbish()
    await queue.schedule([GenerationRequest(f"c{number}") for number in range(3 * MOST_RUBBISH)])
    with caplog.at_level(logging.INFO):
        async with working(queue, writer, FakeTextGenerator(), first_rest=0.2):
            await until(lambda: "nothing is generated for the moment" in caplog.text)
            assert len(writer.done) == MOST_RUBBISH
            await until(lambda: len(writer.done) > MOST_RUBBISH)  # one is tried after a rest
            assert len(writer.done) == MOST_RUBBISH + 1
            writer.writes = False
            await until(lambda: len(writer.done) == 3 * MOST_RUBBISH)
    assert await outcomes(queue) == {"unparseable": MOST_RUBBISH + 1, "written": 2 * MOST_RUBBISH - 1}
    assert caplog.text.count("nothing is generated for the moment") == 1
    assert caplog.text.count("the language model writes again") == 1


@pytest.mark.parametrize(("of", "rests"), [(WORTH + 1, False), (WORTH + 2, True)])
async def test_one_that_writes_more_rubbish_than_what_else_it_writes_makes_up_for_is_too(
    of: int, rests: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One generation in ``of`` can be parsed. That one now and then can is no reason to believe in it again."""

    class Mostly(Rubbish):
        async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
            self.writes = (len(self.done) + 1) % of != 0
            return await super().generate(scribe, request)

    queue, writer, count = MemoryGenerationQueue(debounce=0), Mostly(), 2 * of * MOST_RUBBISH
    await queue.schedule([GenerationRequest(f"c{number}") for number in range(count)])
    with caplog.at_level(logging.INFO):
        async with working(queue, writer, FakeTextGenerator(), first_rest=0.001):
            await until(lambda: len(writer.done) == count or "for the moment" in caplog.text)
            some = min(len(writer.done) + 2 * of, count)
            await until(lambda: len(writer.done) >= some)
    assert caplog.text.count("nothing is generated for the moment") == int(rests)
    assert "writes again" not in caplog.text


async def test_a_store_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryGenerationQueue):
        failing = 4

        async def take(self, wait: float) -> Taken | None:
            self.failing -= 1
            if self.failing >= 0:
                raise StoreUnavailable("down")
            return await super().take(wait)

    queue, writer = Away(debounce=0), Writer()
    await queue.schedule(asks("a"))
    with caplog.at_level(logging.INFO):
        async with working(queue, writer, FakeTextGenerator()):
            await until(lambda: writer.done == ["a"])
    assert caplog.text.count("cannot be worked off for the moment: down") == 1
    assert "the queue is worked off again" in caplog.text


async def test_a_store_that_fails_while_it_is_generated_leaves_it_to_be_taken_over() -> None:
    class Down(Writer):
        failing = 1

        async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
            self.failing -= 1
            if self.failing >= 0:
                raise StoreUnavailable("down")
            return await super().generate(scribe, request)

    queue, writer = MemoryGenerationQueue(debounce=0, abandoned_after=0.1), Down()
    await queue.schedule(asks("a"))
    async with working(queue, writer, FakeTextGenerator()):
        await until(lambda: writer.done == ["a"])


async def test_a_fault_of_our_own_is_logged_and_tried_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Writer):
        async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
            if request.customer_id == "a":
                raise KeyError("a bug")
            return await super().generate(scribe, request)

    queue, writer = MemoryGenerationQueue(debounce=0), Faulty()
    await queue.schedule(asks("a", "b"))
    async with working(queue, writer, FakeTextGenerator()):
        await until(lambda: caplog.text.count("a generation failed") == MOST_TRIES)
        await until(lambda: writer.done == ["b"])
    assert await outcomes(queue) == {"written": 1, "retried": MOST_TRIES - 1, "given_up": 1}


async def test_without_a_language_model_everybody_waits() -> None:
    queue, writer = MemoryGenerationQueue(debounce=0), Writer()
    await queue.schedule(asks("a"))
    async with working(queue, writer, None):
        await asyncio.sleep(0.3)
        assert (await queue.figures()).waiting == 1


async def test_asked_to_stop_it_ends_what_it_has_in_hand() -> None:
    queue, writer, text = MemoryGenerationQueue(debounce=0), Writer(), FakeTextGenerator(delay=0.2)
    await queue.schedule(asks("a", "b", "c"))
    async with working(queue, writer, text):
        await until(lambda: text.writing == 1)
    assert writer.done == ["a"]
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand) == (2, 0)


async def test_cancelled_it_gives_back_what_it_has_in_hand() -> None:
    queue, writer, text = MemoryGenerationQueue(debounce=0), Writer(), FakeTextGenerator(delay=60)
    await queue.schedule(asks("a", "b"))
    running = asyncio.create_task(Work(queue, writer, OneScribe(text), at_once=2).run())
    await until(lambda: text.writing == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand) == (2, 0)
    taken = await queue.take(0)
    assert taken is not None
    assert taken.tries == 1  # it was not its fault


async def test_where_one_hand_fails_the_others_have_the_time_that_giving_back_takes() -> None:
    class Slow(MemoryGenerationQueue):
        async def take(self, wait: float) -> Taken | None:
            if text.writing:
                raise RuntimeError("unexpected")
            return await super().take(wait)

        async def give_back(self, taken: Taken, *, failed: bool = True) -> None:
            await asyncio.sleep(0.15)
            await super().give_back(taken, failed=failed)

    queue, writer, text = Slow(debounce=0), Writer(), FakeTextGenerator(delay=60)
    await queue.schedule(asks("a"))
    with pytest.raises(RuntimeError):
        await Work(queue, writer, OneScribe(text), at_once=2).run()
    figures = await queue.figures()
    assert (figures.waiting, figures.in_hand) == (1, 0)


def test_a_rest_doubles_up_to_its_longest() -> None:
    now = 0.0
    rest = Rest(lambda: now, first=1.0, longest=5.0)
    assert rest.is_over
    assert rest.failed()
    assert not rest.failed()  # within the same rest: others met the same
    lengths = []
    for _ in range(5):
        lengths.append(rest.left)
        now += rest.left
        assert rest.left == 0
        assert not rest.is_over
        assert not rest.failed()
    assert lengths == [1, 2, 4, 5, 5]
    assert rest.succeeded()
    assert not rest.succeeded()
    assert rest.left == 0
    assert rest.is_over
