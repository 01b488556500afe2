"""The bundle that answers: all that is made of it, and the switch to another without a dropped request.

A request takes one ``Live`` and keeps it to its end, so that no answer ever mixes two bundles. Another bundle is
opened, checked against its golden cases and given the whole catalogue while the old one goes on answering; then one
reference changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store import golden
from model_store.bundle import Bundle, load_articles, open_bundle, read_manifest, set_current, versions
from model_store.errors import InvalidBundle, ModisteError
from model_store.generation import Generation, open_generation
from service.cancelling import cancelled
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.follower import CatalogueFollower
from service.catalogue.store import CatalogueStore
from service.choice import Choice, SharedChoice, candidates
from service.engine.ids import IdSpace
from service.engine.index import ArticleIndex
from service.engine.mixup import Mixup
from service.engine.ranking import Ranker
from service.engine.style import StyleModel
from service.errors import ActivationInProgress, NotReady, StoreUnavailable, UnknownBundle
from service.heap import settle
from service.metrics import Metrics
from service.titles import TitleVectors

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at which bundle was chosen


@dataclass(frozen=True, eq=False)
class Live:
    """One bundle, and everything that is made of it. ``index`` follows the catalogue; the rest never changes.

    ``titles``: embeds generated titles and queries, where the bundle has a generating half.
    """

    bundle: Bundle
    style: StyleModel
    ranker: Ranker
    index: ArticleIndex
    encoder: CatalogueEncoder
    follower: CatalogueFollower
    titles: TitleVectors | None = None

    @property
    def version(self) -> str:
        return self.bundle.version


def open_live(folder: Path, catalogue: CatalogueStore) -> Live:
    """A bundle, verified and found to compute what it promises, with an index that is still empty.

    Takes seconds of processor time: call it in a thread. Raises InvalidBundle.
    """
    bundle = open_bundle(folder)
    try:
        half = _open_half(bundle)
        golden.check(bundle, generation=half)
        return _live(bundle, half, catalogue)
    except ModisteError:
        raise
    except Exception as error:  # what a graph that loads may raise when it runs has no common base
        raise InvalidBundle(f"{folder}: cannot be served ({type(error).__name__}: {error})") from error


def _open_half(bundle: Bundle) -> Generation | None:
    spec = bundle.manifest.generation
    return None if spec is None else open_generation(bundle.folder, spec, load_articles(bundle)[0])


def _live(bundle: Bundle, half: Generation | None, catalogue: CatalogueStore) -> Live:
    """All parts of a bundle put together; of its generating half what answers need, which is not its memory."""
    blend = bundle.manifest.blend
    if half is None:
        index, encoder, ranker, titles = ArticleIndex(), CatalogueEncoder(bundle), Ranker(blend), None
    else:
        ids = IdSpace(half.ids)
        index = ArticleIndex(titles=True, place_of=ids.place_of)
        encoder = CatalogueEncoder(bundle, title_encoder=half.title_encoder)
        ranker, titles = Ranker(blend, Mixup(ids, half.spec.mixup)), TitleVectors(half.title_encoder)
    style = StyleModel.of_bundle(bundle, index.dna_of)
    return Live(bundle, style, ranker, index, encoder, CatalogueFollower(catalogue, encoder, index), titles)


class Lives:
    """Which ``Live`` answers on this worker, following what all workers share.

    ``clock``: Unix seconds. ``on_first`` is called once, when the first one answers.
    """

    def __init__(
        self,
        store: Path,
        catalogue: CatalogueStore,
        choice: SharedChoice,
        clock: Callable[[], float],
        pause: float = PAUSE,
        on_first: Callable[[], None] | None = None,
    ):
        self._store, self._catalogue, self._choice, self._clock = store, catalogue, choice, clock
        self._pause, self._on_first = pause, on_first
        self._live: Live | None = None
        self._coming: Live | None = None  # loaded, but not answering yet
        self._following: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None  # of the one before
        self._switching = asyncio.Lock()
        self._refused: set[Choice] = set()
        self._why_not = "the service is starting"

    @property
    def live(self) -> Live:
        """What answers at this moment. Raises NotReady, which says why nothing does."""
        if self._live is None:
            raise NotReady(self._why_not)
        return self._live

    @property
    def version(self) -> str | None:
        """The version that answers, or None before any does."""
        return None if self._live is None else self._live.version

    def remembers(self, article_id: str) -> bool:
        """Whether the article is in the catalogue, or was. Raises NotReady."""
        return self.live.index.dna_of(article_id) is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Bring up what was chosen, and follow the choice and the catalogue, until the block ends."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            await cancelled(watching, self._following)
            if self._ending is not None:
                await self._ending

    async def refresh(self, article_ids: Sequence[str]) -> None:
        """Let articles that this worker wrote show at once: in what answers, and in what is about to."""
        for live in (self._live, self._coming):
            if live is not None:
                await live.follower.refresh(article_ids)

    async def activate(self, version: str) -> Live:
        """Answer from ``version`` on all workers; returns once this one does.

        Raises UnknownBundle, InvalidBundle, ActivationInProgress or StoreUnavailable; the old one then keeps answering.
        """
        if version not in await asyncio.to_thread(versions, self._store):
            raise UnknownBundle(f"the store has no bundle '{version}'; GET /v1/bundles lists what it has")
        if self._switching.locked():
            raise ActivationInProgress("a bundle is being loaded; try again when that has ended")
        async with self._switching:
            async with self._loaded(version) as live:
                await self._choice.write(Choice(version=version, chosen_at=self._clock()))
                self._swap(live)
            try:
                await asyncio.to_thread(set_current, self._store, version)
            except OSError as error:
                log.warning("%s: CURRENT cannot be written (%s); the choice stands in Redis", self._store, error)
            return live

    async def bundles(self) -> list[dict[str, Any]]:
        """Every version of the store, with what its manifest says."""
        return await asyncio.to_thread(_summaries, self._store, self.version)

    def show(self, metrics: Metrics) -> None:
        """Set the gauges that tell what answers."""
        live = self._live
        metrics.show_ready(live is not None)
        if live is not None:
            metrics.show_bundle(live.version)
            metrics.show_index(len(live.index), live.index.in_stock_count)
            metrics.show_catalogue(live.follower.as_of, live.follower.behind, len(live.follower.refused))

    async def _watch(self) -> None:
        while True:
            try:
                await self._follow_choice()
            except StoreUnavailable as error:
                self._why_not = f"waiting for Redis: {error}"
            except Exception:
                log.exception("the choice of the bundle could not be followed")
            await asyncio.sleep(self._pause)

    async def _follow_choice(self) -> None:
        """Switch to the latest choice that can be served, where that is not what answers already."""
        chosen = candidates(await self._choice.read(), self._store)
        if not chosen:
            self._why_not = f"{self._store} has no live bundle; publish one with 'modiste export'"
        for choice in chosen:
            if choice.version == self.version:
                return
            if choice not in self._refused and await self._try(choice):
                return

    async def _try(self, choice: Choice) -> bool:
        async with self._switching:
            try:
                async with self._loaded(choice.version) as live:
                    self._swap(live)
            except InvalidBundle as error:
                log.error("bundle '%s' is refused: %s", choice.version, error)
                self._refused.add(choice)
                self._why_not = str(error)
                return False
        return True

    @asynccontextmanager
    async def _loaded(self, version: str) -> AsyncIterator[Live]:
        """``version`` with the whole catalogue, told of every change from here on, for as long as the block lasts."""
        if self._live is not None and self._live.version == version:
            yield self._live
            return
        log.info("loading bundle '%s'", version)
        live = await asyncio.to_thread(open_live, self._store / version, self._catalogue)
        self._coming = live
        try:
            await live.follower.load(self._report)
            yield live
        finally:
            self._coming = None

    def _report(self, done: int, total: int) -> None:
        self._why_not = f"loading the catalogue: {done:,} of {total:,} articles"

    def _swap(self, live: Live) -> None:
        """Answer from ``live`` from now on. Requests under way end with what they began with."""
        if live is self._live:
            return
        self._ending = asyncio.create_task(cancelled(self._following))
        self._live = live
        self._following = asyncio.create_task(live.follower.run(), context=Context())  # of no request
        settle()
        log.info("bundle '%s' answers, with %d articles", live.version, len(live.index))
        if self._on_first is not None:
            self._on_first()
            self._on_first = None


def _summaries(store: Path, live: str | None) -> list[dict[str, Any]]:
    return [_summary(store, version) | {"live": version == live} for version in versions(store)]


def _summary(store: Path, version: str) -> dict[str, Any]:
    try:
        manifest = read_manifest(store / version)
    except InvalidBundle as error:
        return {"version": version, "error": str(error)}
    return {
        "version": version,
        "created": manifest.created,
        "data_set": manifest.data_set.model_dump(),
        "metrics": manifest.metrics,
    }
