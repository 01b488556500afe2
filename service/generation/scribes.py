"""Which bundle's language model writes: the one whose answers it is for, following what all workers share."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from model_store import golden
from model_store.bundle import Bundle, open_bundle
from model_store.errors import InvalidBundle, ModisteError
from service.cancelling import cancelled
from service.choice import Choice, SharedChoice, candidates, published
from service.errors import LanguageModelUnavailable, StoreUnavailable
from service.generation.generator import Scribe
from service.generation.prompting import Prompting, open_prompting
from service.generation.text import TextGenerator

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at which bundle was chosen
READY_LIMIT = 180.0  # seconds that the switch to a new language model waits for it to load


class Scribes:
    """The ``Scribe`` of the bundle that answers, or none where that has no language model that can be used.

    A new bundle's language model is loaded while the one before goes on, and that is closed when nobody uses it any
    more. ``open_text`` makes a bundle's text generator, in the event loop and without waiting; it may raise
    InvalidBundle.
    """

    def __init__(
        self,
        store: Path,
        choice: SharedChoice,
        open_text: Callable[[Bundle, Prompting], TextGenerator],
        pause: float = PAUSE,
    ):
        self._store, self._choice, self._open_text, self._pause = store, choice, open_text, pause
        self._version: str | None = None  # that was chosen, with a language model or not
        self._current: Scribe | None = None
        self._users: Counter[Scribe] = Counter()
        self._retired: set[Scribe] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._refused: set[Choice] = set()

    @property
    def version(self) -> str | None:
        """The version that was chosen last, or None before any was."""
        return self._version

    @contextmanager
    def current(self) -> Iterator[Scribe | None]:
        """Who writes at this moment; stays open for as long as the block lasts."""
        scribe = self._current
        if scribe is None:
            yield None
            return
        self._users[scribe] += 1
        try:
            yield scribe
        finally:
            self._users[scribe] -= 1
            self._close_unused()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the choice until the block ends; then close what is open."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            await cancelled(watching)
            self._retire()
            self._users.clear()
            self._close_unused()
            if self._closing:
                await asyncio.wait(self._closing)

    async def _watch(self) -> None:
        told: str | None = None
        while True:
            try:
                await self._follow_choice()
                told = None
            except (StoreUnavailable, InvalidBundle) as error:
                if str(error) != told:
                    log.warning("which bundle was chosen cannot be told: %s", error)
                told = str(error)
            except Exception:
                log.exception("the choice of the bundle could not be followed")
            await asyncio.sleep(self._pause)

    async def _follow_choice(self) -> None:
        """Switch to the latest choice that workers can serve, where that is not the one at hand already."""
        for choice in candidates(published(self._store), await self._choice.read()):
            if choice.version == self._version:
                return
            if choice in self._refused:
                continue
            try:
                bundle = await asyncio.to_thread(_sound_bundle, self._store / choice.version)
            except InvalidBundle as error:
                log.error("bundle '%s' is refused: %s", choice.version, error)
                self._refused.add(choice)
            else:
                await self._switch(bundle)
                return

    async def _switch(self, bundle: Bundle) -> None:
        scribe = await self._opened(bundle)
        self._retire()
        self._version, self._current = bundle.version, scribe
        self._close_unused()

    async def _opened(self, bundle: Bundle) -> Scribe | None:
        """The bundle's language model and prompts, ready where it can be; None where it has none that is sound."""
        if bundle.manifest.generation is None:
            log.info("bundle '%s' has no language model: nothing is generated", bundle.version)
            return None
        try:
            prompting = await asyncio.to_thread(open_prompting, bundle)
            scribe = Scribe(prompting, self._open_text(bundle, prompting))
        except ModisteError as error:
            log.error("bundle '%s' generates nothing: %s", bundle.version, error)
            return None
        try:
            async with asyncio.timeout(READY_LIMIT):
                await scribe.text.ready()
        except (LanguageModelUnavailable, TimeoutError) as error:
            log.error("the language model of bundle '%s' cannot write yet: %s", bundle.version, error)
        except BaseException:
            await scribe.text.aclose()
            raise
        else:
            log.info("the language model of bundle '%s' writes", bundle.version)
        return scribe

    def _retire(self) -> None:
        if self._current is not None:
            self._retired.add(self._current)
            self._current = None

    def _close_unused(self) -> None:
        for scribe in [scribe for scribe in self._retired if not self._users[scribe]]:
            self._retired.remove(scribe)
            closing = asyncio.create_task(scribe.text.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _sound_bundle(folder: Path) -> Bundle:
    """A bundle, verified as workers verify it, so that who writes and who answers judge it alike."""
    bundle = open_bundle(folder)
    try:
        golden.check(bundle)
    except ModisteError:
        raise
    except Exception as error:  # what a graph that loads may raise when it runs has no common base
        raise InvalidBundle(f"{folder}: cannot be served ({type(error).__name__}: {error})") from error
    return bundle
