"""What a customer wants right now: what was generated for them, how fresh that is, and what follows from it.

Nothing here ever waits for a language model, unless the request says for how long it may. What is missing is asked for
behind the answer's back; the answer is made of what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from service.cancelling import cancelled
from service.engine.mixup import Intent
from service.engine.ranking import Strategy
from service.errors import StoreUnavailable
from service.generation.queue import GenerationQueue
from service.generation.records import GenerationRequest, StoredGeneration, view_mark
from service.live import Live
from service.state.customer import NO_LOG, CustomerLog, CustomerView

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05  # seconds between two looks for a generation that a request waits for
MOST_WANTED = 2_000
"""Customers that are to be scheduled at the next opportunity; beyond, the oldest are left to their next request."""
GATHERED = 0.25
"""Seconds in which wishes are gathered that nobody waits for, to be sent in one call that costs each answer next to
nothing. That is short beside the time that a customer waits anyway, until their session rests."""
AGAIN = 5.0
"""Seconds in which a customer who did nothing since is scheduled once; the queue keeps those who wait already."""

_LISTENING: frozenset[Strategy] = frozenset({"blended", "generated"})
"""Strategies that what was generated takes part in."""


class Freshness(StrEnum):
    """Whether a generation reflects all that the customer did, only some of it, or is not there."""

    FRESH = "fresh"
    STALE = "stale"
    NONE = "none"


class Customers(Protocol):
    """Where customers and their generations are kept (``CustomerStore``, ``GenerationStore``)."""

    async def read(self, customer_id: str) -> CustomerView:
        """State, session and generation. Raises StoreUnavailable."""
        ...

    async def read_log(self, customer_id: str) -> CustomerLog:
        """All purchases and returns. Raises StoreUnavailable."""
        ...

    async def read_searching(self, customer_id: str) -> StoredGeneration | None:
        """The latest generation for a query. Raises StoreUnavailable."""
        ...


@dataclass(frozen=True)
class Question:
    """Whose intent is asked for. ``wait``: seconds that a fresh generation is worth."""

    customer_id: str
    query: str | None = None
    wait: float = 0.0


@dataclass(frozen=True)
class Found:
    """The ``intent`` for a ranking, and the generation that it comes from, which may be none."""

    freshness: Freshness = Freshness.NONE
    generation: StoredGeneration | None = None
    intent: Intent | None = None


NOTHING = Found()


def listens(live: Live, strategy: Strategy) -> bool:
    """Whether what was generated takes part in a strategy's answers at all."""
    return live.titles is not None and strategy in _LISTENING


class Scheduler:
    """Lets customers wait for generations, in the background: together, bounded, and never in an answer's way.

    ``monotonic``: seconds that never go back. ``gathered``: seconds, as ``GATHERED``.
    """

    def __init__(self, queue: GenerationQueue, monotonic: Callable[[], float], gathered: float = GATHERED):
        self._queue, self._monotonic, self._gathered = queue, monotonic, gathered
        self._wanted: OrderedDict[GenerationRequest, None] = OrderedDict()
        self._scheduled: OrderedDict[GenerationRequest, tuple[str, float]] = OrderedDict()  # the longest ago first
        self._sending: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def want(self, request: GenerationRequest, mark: str, *, at_once: bool = False) -> None:
        """Have a request scheduled soon, unless that was done just now for what the customer did until ``mark``.

        ``at_once``: somebody waits for what is generated, so it is not gathered with others first.
        """
        now = self._monotonic()
        before, when = self._scheduled.get(request, ("", -math.inf))
        if before != mark or now - when >= AGAIN:
            self._take(request, mark, now)
        if at_once and request in self._wanted:
            self._hurry.set()

    def _take(self, request: GenerationRequest, mark: str, now: float) -> None:
        self._scheduled[request] = (mark, now)
        self._scheduled.move_to_end(request)
        while now - next(iter(self._scheduled.values()))[1] >= AGAIN:
            self._scheduled.popitem(last=False)
        self._wanted[request] = None
        if len(self._wanted) > MOST_WANTED:
            left, _ = self._wanted.popitem(last=False)
            self._scheduled.pop(left, None)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), context=Context())  # of no single request

    async def forget(self, customer_id: str) -> None:
        """Know nothing of an erased customer, and let them wait no more. Raises StoreUnavailable."""
        for kept in (self._wanted, self._scheduled):
            for request in [request for request in kept if request.customer_id == customer_id]:
                del kept[request]
        await self._queue.forget(customer_id)

    @property
    def waiting(self) -> int:
        """Customers that are to be scheduled with the next call."""
        return len(self._wanted)

    async def sent(self) -> None:
        """Return once all that is wanted so far was sent."""
        if self._sending is not None:
            await asyncio.shield(self._sending)

    async def aclose(self) -> None:
        """Send no more."""
        await cancelled(self._sending)

    async def _send(self) -> None:
        while self._wanted:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), self._gathered)
            self._hurry.clear()
            requests = list(self._wanted)
            self._wanted.clear()
            if not requests:  # all were erased meanwhile
                return
            try:
                await self._queue.schedule(requests)
            except StoreUnavailable as error:
                log.warning("%d generations could not be scheduled: %s", len(requests), error)


class Intents:
    """Finds what was generated for customers. Without a ``scheduler`` nothing new is asked for, nor waited for.

    The ``revision`` of every view that is given is that of the log, whether or not a state is stored.
    """

    def __init__(self, customers: Customers, scheduler: Scheduler | None, monotonic: Callable[[], float]):
        self._customers, self._scheduler, self._monotonic = customers, scheduler, monotonic

    async def find(self, live: Live, question: Question, view: CustomerView) -> Found:
        """What is there for a customer at this moment. Raises StoreUnavailable.

        For a ``query``, only a generation for that very query counts, while it is fresh; before there is one, the query
        itself says what the customer wants.
        """
        assert live.titles is not None
        if question.query is None:
            return _found(live, view.generation, _is_fresh(live, view, view.generation))
        written = await self._customers.read_searching(question.customer_id)
        if _is_fresh(live, view, written, question.query):
            return _found(live, written, fresh=True)
        return Found(intent=Intent(live.titles.of(question.query)))

    def ask(self, question: Question, view: CustomerView, found: Found) -> bool:
        """Have written what is missing; whether there is something to wait for."""
        if found.freshness is Freshness.FRESH or self._scheduler is None:
            return False
        if view.revision in {None, NO_LOG} and not view.session_ids:
            return False  # of nobody, nothing is stored: not even what was written for a query
        request = GenerationRequest(question.customer_id, question.query)
        self._scheduler.want(request, view_mark(view, question.query), at_once=question.wait > 0)
        return True

    async def wait(self, live: Live, question: Question, view: CustomerView) -> None:
        """Return once a fresh generation is there, or ``question.wait`` is over. Raises StoreUnavailable.

        What the customer does meanwhile counts: a generation is fresh where it reflects that, too.
        """
        end, pause = self._monotonic() + question.wait, FIRST_PAUSE
        while (left := end - self._monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(1.5 * pause, LONGEST_PAUSE)
            if question.query is None:
                view = await self._read(question.customer_id)
                written = view.generation
            else:
                written = await self._customers.read_searching(question.customer_id)
            if _is_fresh(live, view, written, question.query):
                return

    async def _read(self, customer_id: str) -> CustomerView:
        view = await self._customers.read(customer_id)
        if view.revision is not None:
            return view
        return replace(view, revision=(await self._customers.read_log(customer_id)).revision)

    async def forget(self, customer_id: str) -> None:
        """Ask for nothing more for an erased customer. Raises StoreUnavailable."""
        if self._scheduler is not None:
            await self._scheduler.forget(customer_id)


def remembered(live: Live, question: Question, view: CustomerView) -> Found:
    """What is known without asking the store."""
    assert live.titles is not None
    if question.query is not None:
        return Found(intent=Intent(live.titles.of(question.query)))
    return _found(live, view.generation, _is_fresh(live, view, view.generation))


def _is_fresh(live: Live, view: CustomerView, written: StoredGeneration | None, query: str | None = None) -> bool:
    return written is not None and (written.bundle, written.mark) == (live.style.bundle_version, view_mark(view, query))


def _found(live: Live, written: StoredGeneration | None, fresh: bool) -> Found:
    """The title is embedded by the bundle that answers, whichever wrote it: text is what bundles have in common."""
    if written is None:
        return NOTHING
    assert live.titles is not None
    intent = Intent(live.titles.of(written.title), written.article_id)
    return Found(Freshness.FRESH if fresh else Freshness.STALE, written, intent)
