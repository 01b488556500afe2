"""Working off the queue: take, generate, finish — several at once, and not at all while the language model is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from service.cancelling import cancelled
from service.errors import LanguageModelUnavailable, StoreUnavailable
from service.generation.generator import Scribe, Writes
from service.generation.queue import GenerationQueue, Outcome, Taken
from service.generation.rest import FIRST_REST, Rest
from service.generation.scribes import Scribes

log = logging.getLogger(__name__)

WAIT = 0.2
"""Seconds that one call waits for a request: as often it is seen whether to stop."""
TO_GIVE_BACK = 0.5  # seconds that a hand has, once it is cancelled
IDLE = 0.1  # seconds between two looks for a language model while there is none
MOST_RUBBISH, WORTH = 16, 3
"""A language model is left alone, as if it were away, once so many of its generations could not be parsed, where each
that could makes up for ``WORTH`` others: so one does not write on of which more than three in four are rubbish. It is
believed again once it made up for all."""


class Work:
    """Takes what waits, and has it generated, ``at_once`` requests at a time."""

    def __init__(
        self,
        queue: GenerationQueue,
        generator: Writes,
        scribes: Scribes,
        *,
        at_once: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
        first_rest: float = FIRST_REST,
    ):
        self._queue, self._generator, self._scribes, self._at_once = queue, generator, scribes, at_once
        self._monotonic, self._first_rest = monotonic, first_rest
        self._store = Rest(monotonic, first_rest)
        self._model = Rest(monotonic, first_rest)
        self._rubbish, self._doubted = 0, False  # generations that could not be parsed and were not made up for
        self._rested_for: Scribe | None = None  # whose failures ``_model`` and ``_rubbish`` count
        self._taking = asyncio.Lock()  # so that of many hands one waits at the queue
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work until ``stop``; what is in hand then is ended. Cancelled, it is given back."""
        hands = [asyncio.create_task(self._hand()) for _ in range(self._at_once)]
        try:
            await asyncio.gather(*hands)
        finally:
            await cancelled(*hands, again=TO_GIVE_BACK)

    def stop(self) -> None:
        """Take nothing more."""
        self._stop.set()

    async def _hand(self) -> None:
        while not self._stop.is_set():
            try:
                await self._turn()
            except StoreUnavailable as error:
                if self._store.failed():
                    log.warning("the queue cannot be worked off for the moment: %s", error)
                await self._pause(self._store.left)

    async def _turn(self) -> None:
        """Take one request and end it, or find out that there is none."""
        with self._scribes.current() as scribe:
            if scribe is None:
                await self._pause(IDLE)
                return
            async with self._taking:
                taken = await self._take(scribe)
            if taken is not None:
                await self._generate(scribe, taken)

    async def _take(self, scribe: Scribe) -> Taken | None:
        if self._stop.is_set() or not await self._can_write(scribe):
            return None
        taken = await self._queue.take(WAIT)
        if self._store.succeeded():
            log.info("the queue is worked off again")
        return taken

    async def _can_write(self, scribe: Scribe) -> bool:
        """Whether the language model is there. After a failure it is asked, before another request meets the same."""
        if scribe is not self._rested_for:
            self._rested_for, self._model = scribe, Rest(self._monotonic, self._first_rest)
            self._rubbish, self._doubted = 0, False
        if self._model.is_over:
            return True
        if self._model.left:
            await self._pause(min(self._model.left, WAIT))
            return False
        try:
            await scribe.text.ready()
        except LanguageModelUnavailable:
            self._model.failed()
            return False
        return True

    async def _generate(self, scribe: Scribe, taken: Taken) -> None:
        try:
            done = await self._generator.generate(scribe, taken.request)
        except LanguageModelUnavailable as error:
            if scribe is self._rested_for and self._model.failed():
                log.warning("nothing is generated for the moment: %s", error)
            await self._queue.give_back(taken)
        except StoreUnavailable:  # it is taken over by whoever finds the store again
            raise
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailable):
                await self._queue.give_back(taken, failed=False)
            raise
        except Exception:
            log.exception("a generation failed; it is tried again")
            await self._queue.give_back(taken)
        else:
            if scribe is self._rested_for and done.seconds is not None:
                self._wrote(done.outcome)
            await self._queue.finish(taken, done.outcome, done.seconds)

    def _wrote(self, outcome: Outcome) -> None:
        """The language model answered; whether that was of any use."""
        rubbish = outcome is Outcome.UNPARSEABLE
        self._rubbish = min(self._rubbish + 1, MOST_RUBBISH) if rubbish else max(0, self._rubbish - WORTH)
        self._doubted = self._rubbish == MOST_RUBBISH or (self._doubted and self._rubbish > 0)
        if not self._doubted:
            if self._model.succeeded():
                log.info("the language model writes again")
        elif rubbish and self._model.failed():
            log.warning("nothing is generated for the moment: most of what the language model writes is rubbish")

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until it is time to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
