"""One request, from a customer's events to what is stored: read → prompt → language model → parse → keep.

Pure orchestration: stores, catalogue and language model are given. What is written is never trusted: it is parsed, and
its id is looked up by whoever reads it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from model_store.prompts import Prompt, UnparseableGeneration, parse_response
from model_store.records import Event
from service.catalogue.store import CatalogueStore
from service.errors import PromptRefused
from service.generation.prompting import Prompting
from service.generation.queue import Outcome
from service.generation.records import Footing, GenerationRequest, StoredGeneration, session_mark
from service.generation.store import GenerationStore
from service.generation.text import TextGenerator, Written
from service.state.customer import CustomerLog, CustomerView
from service.state.store import CustomerStore

log = logging.getLogger(__name__)

TELL_AGAIN = 60.0  # seconds between two log lines on generations that cannot be parsed


class Customers(CustomerStore, GenerationStore, Protocol):
    """Customers and their generations, which every store keeps together."""


@dataclass(frozen=True, eq=False)
class Scribe:
    """One bundle's language model, and the prompts that it was trained on."""

    prompting: Prompting
    text: TextGenerator


@dataclass(frozen=True)
class Done:
    """What became of a request; ``seconds`` that the language model took, where it was asked."""

    outcome: Outcome
    seconds: float | None = None


class Writes(Protocol):
    """Who works off requests."""

    async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
        """As ``Generator`` does."""
        ...


@dataclass(frozen=True)
class _Read:
    """What is known of a customer at a moment, by the generator's clock."""

    moment: float
    log: CustomerLog
    view: CustomerView

    @property
    def events(self) -> list[Event]:
        return [*self.log.events, *self.view.session]

    @property
    def footing(self) -> Footing:
        latest = self.view.session[-1].event_id if self.view.session else ""
        return Footing(self.log.revision.log, latest)


class Generator:
    """Works off requests. ``clock``: Unix seconds. How long the language model may take, its text generator says."""

    def __init__(
        self,
        customers: Customers,
        catalogue: CatalogueStore,
        clock: Callable[[], float] = time.time,
        *,
        log_prompts: bool = False,
    ):
        self._customers, self._catalogue, self._clock = customers, catalogue, clock
        self._log_prompts = log_prompts
        self._unparseable, self._told = 0, -math.inf  # since it was logged last, and when that was

    async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
        """Write for one customer, and keep what was written.

        Raises LanguageModelUnavailable and StoreUnavailable; then try again later.
        """
        read = await self._read(request.customer_id)
        if not read.events:  # nobody, or erased: not even a query is answered, since nothing may be stored of them
            return Done(Outcome.NOTHING_TO_SAY)
        bundle = scribe.prompting.bundle
        mark = session_mark(read.log.revision, read.view.session, request.query)
        before = await self._before(read, request)
        if before is not None and (before.bundle, before.mark) == (bundle, mark):
            return Done(Outcome.FRESH)
        prompt = await scribe.prompting.prompt(read.events, request.query, self._catalogue)
        if prompt is None:
            return Done(Outcome.NOTHING_TO_SAY)
        try:
            written, seconds = await self._write(scribe.text, prompt)
        except PromptRefused as error:
            log.error("the language model of bundle '%s' refuses a prompt: %s", bundle, error)
            return Done(Outcome.REFUSED)
        try:
            generated = parse_response(written.text, cut_off=written.cut_off)
        except UnparseableGeneration:
            self._tell_unparseable(bundle)
            return Done(Outcome.UNPARSEABLE, seconds)
        now = self._clock()
        kept = await self._customers.put_generation(
            request.customer_id,
            StoredGeneration(
                bundle, mark, prompt.actions, generated.article_id, generated.title, now, now - read.moment
            ),
            searching=request.query is not None,
            footing=read.footing,
        )
        return Done(Outcome.WRITTEN if kept else Outcome.TOO_LATE, seconds)

    def _tell_unparseable(self, bundle: str) -> None:
        """Log how many there were, seldom: a model that writes rubbish does so many times a second."""
        self._unparseable += 1
        now = self._clock()
        if now - self._told >= TELL_AGAIN:
            log.warning(
                "generations of bundle '%s' cannot be parsed: %d since this was said", bundle, self._unparseable
            )
            self._unparseable, self._told = 0, now

    async def _read(self, customer_id: str) -> _Read:
        moment = self._clock()
        history = await self._customers.read_log(customer_id)
        return _Read(moment, history, await self._customers.read(customer_id))

    async def _before(self, read: _Read, request: GenerationRequest) -> StoredGeneration | None:
        if request.query is None:
            return read.view.generation
        return await self._customers.read_searching(request.customer_id)

    async def _write(self, text: TextGenerator, prompt: Prompt) -> tuple[Written, float]:
        """What the language model wrote, and how many seconds it took."""
        begun = time.perf_counter()
        written = await text.write(prompt.token_ids)
        if self._log_prompts:
            log.info("prompt: %s\nwritten: %s", prompt.text, written.text)
        return written, time.perf_counter() - begun
