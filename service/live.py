"""The bundle that answers: all that is made of it, and the switch to another without a dropped request.

A request takes one ``Live`` and keeps it to its end, so that no answer ever mixes two bundles. Another bundle is
opened, checked against its golden cases and given the whole catalogue while the old one goes on answering; then one
reference changes. All workers get ready before the first of them switches (``service.rollout``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_store import golden
from model_store.article_table import load_articles
from model_store.bundle import Bundle, open_bundle, read_manifest, set_current, versions
from model_store.errors import InvalidBundle, ModisteError
from model_store.generation import Generation, open_generation
from model_store.popularity import POPULARITY
from service.cancelling import cancelled
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.follower import CatalogueFollower
from service.catalogue.store import CatalogueStore
from service.choice import Choice, SharedChoice, candidates, published
from service.engine.best_sellers import MOST
from service.engine.ids import IdSpace
from service.engine.index import ArticleIndex
from service.engine.mixup import Mixup
from service.engine.ranking import Ranker
from service.engine.style import StyleModel, bundle_stamp
from service.errors import ActivationInProgress, NotReady, StoreUnavailable, UnknownBundle
from service.heap import settle
from service.metrics import Metrics
from service.rollout import Coming, Rollout
from service.titles import TitleVectors

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at which bundle was chosen
READY_PAUSE = 0.05  # the same, while another bundle lies ready
RENEWED = 1.0  # seconds between two assurances that an activation goes on
PATIENCE = 300.0
"""Seconds that an activation waits for workers that load; those that take longer follow when they have."""


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
    blend, leading = bundle.manifest.blend, _best_sellers(bundle)
    if half is None:
        index, encoder, titles = ArticleIndex(), CatalogueEncoder(bundle), None
        ranker = Ranker(blend, best_sellers=leading)
    else:
        ids = IdSpace(half.ids)
        index = ArticleIndex(titles=True, place_of=ids.place_of)
        encoder = CatalogueEncoder(bundle, title_encoder=half.title_encoder)
        ranker, titles = Ranker(blend, Mixup(ids, half.spec.mixup), leading), TitleVectors(half.title_encoder)
    style = StyleModel.of_bundle(bundle, index.dna_of)
    return Live(bundle, style, ranker, index, encoder, CatalogueFollower(catalogue, encoder, index), titles)


def _best_sellers(bundle: Bundle) -> list[str]:
    """What sold most when the bundle was trained, as far as it counts; none where its blend does not ask for it."""
    if not bundle.manifest.blend.best_sellers:
        return []
    article_ids, _, dna = load_articles(bundle)
    sold = dna[:, POPULARITY]
    first = np.argsort(-sold, kind="stable")[:MOST]
    return [article_ids[row] for row in first[sold[first] > 0].tolist()]


class Lives:
    """Which ``Live`` answers on this worker, following what all workers share.

    ``clock``: Unix seconds. ``on_first`` is called once, when the first one answers. ``patience``: seconds, as
    ``PATIENCE``.
    """

    def __init__(
        self,
        store: Path,
        catalogue: CatalogueStore,
        choice: SharedChoice,
        rollout: Rollout,
        clock: Callable[[], float],
        pause: float = PAUSE,
        patience: float = PATIENCE,
        on_first: Callable[[], None] | None = None,
    ):
        self._store, self._catalogue, self._choice, self._clock = store, catalogue, choice, clock
        self._rollout, self._pause, self._patience, self._on_first = rollout, pause, patience, on_first
        self._name = secrets.token_hex(8)
        self._live: Live | None = None
        self._coming: Live | None = None  # loading, or loaded and not answering yet
        self._following: asyncio.Task[None] | None = None
        self._coming_following: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None  # of the one before
        self._preparing: asyncio.Task[None] | None = None
        self._invitation: Coming | None = None  # the one that this worker prepares for, or has
        self._settled = ""  # the token of the last one that it is ready for, or cannot follow
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
            await cancelled(watching, self._preparing)
            await cancelled(self._following, self._coming_following)
            if self._ending is not None:
                await self._ending

    async def refresh(self, article_ids: Sequence[str]) -> None:
        """Let articles that this worker wrote show at once: in what answers, and in what is about to."""
        for live in (self._live, self._coming):
            if live is not None:
                await live.follower.refresh(article_ids)

    async def activate(self, version: str) -> Live:
        """Answer from ``version`` on all workers; returns once this one does, and the others are about to.

        Raises UnknownBundle, InvalidBundle, ActivationInProgress or StoreUnavailable; the old one then keeps answering.
        """
        if version not in await asyncio.to_thread(versions, self._store):
            raise UnknownBundle(f"the store has no bundle '{version}'; GET /v1/bundles lists what it has")
        if self._switching.locked():
            raise ActivationInProgress("a bundle is being loaded; try again when that has ended")
        async with self._switching:
            live = await self._lead(version)
            try:
                await asyncio.to_thread(set_current, self._store, version)
            except OSError as error:
                log.warning("%s: CURRENT cannot be written (%s); the choice stands in Redis", self._store, error)
            return live

    async def is_chosen(self, live: Live) -> bool:
        """Whether ``live`` answers, and is what all workers shall answer from. Raises StoreUnavailable."""
        chosen = candidates(published(self._store), await self._choice.read())
        return live is self._live and bool(chosen) and chosen[0].version == live.version

    async def stamps(self) -> set[str]:
        """Every bundle that can be activated, or answers, as its states and Fashion DNA are stamped."""
        found = await asyncio.to_thread(_stamps, self._store)
        return found | {live.style.bundle_version for live in (self._live, self._coming) if live is not None}

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
                await self._look()
            except StoreUnavailable as error:
                self._why_not = f"waiting for Redis: {error}"
            except Exception:
                log.exception("the choice of the bundle could not be followed")
            await asyncio.sleep(self._pause if self._coming_following is None else min(self._pause, READY_PAUSE))

    async def _look(self) -> None:
        """See what is to come, get ready for it, and switch where something was chosen."""
        invitation = None if self._live is None else await self._rollout.look(self._name, self._settled)
        if invitation is not None and invitation != self._invitation:
            await cancelled(self._preparing)
            self._invitation = invitation
            self._preparing = asyncio.create_task(self._prepare(invitation))
        await self._follow_choice()
        if invitation is None and self._invitation is not None:
            await cancelled(self._preparing)
            self._invitation = None
            if not self._switching.locked():
                await self._drop_coming()

    async def _prepare(self, invitation: Coming) -> None:
        """Load what is to come. Where that cannot be, nobody need wait for this worker."""
        async with self._switching:
            try:
                await self._ready(invitation.version)
            except InvalidBundle as error:
                log.error("bundle '%s', which others get ready for, is refused: %s", invitation.version, error)
            except StoreUnavailable as error:
                log.warning("bundle '%s' could not be loaded in advance: %s", invitation.version, error)
            except Exception:
                log.exception("bundle '%s' could not be loaded in advance", invitation.version)
        self._settled = invitation.token

    async def _follow_choice(self) -> None:
        """Switch to the latest choice that can be served, where that is not what answers already."""
        current = published(self._store)
        shared = await self._choice.read()
        chosen = candidates(current, shared)
        if not chosen:
            self._why_not = f"{self._store} has no live bundle; publish one with 'modiste export'"
        for choice in chosen:
            if choice.version == self.version:
                return
            known_to_all = shared is not None and choice.version == shared.version  # CURRENT repeats an activation
            if choice not in self._refused and await self._try(choice, lead=not known_to_all):
                return

    async def _try(self, choice: Choice, *, lead: bool) -> bool:
        """Answer from what was chosen; False where it is refused. ``lead``: bring all other workers along."""
        if lead and self._live is not None and self._switching.locked():
            return True  # what is under way comes first
        async with self._switching:
            try:
                if lead and self._live is not None:
                    await self._lead(choice.version, choice)
                else:
                    self._swap(await self._ready(choice.version))
            except ActivationInProgress:
                return True
            except InvalidBundle as error:
                log.error("bundle '%s' is refused: %s", choice.version, error)
                self._refused.add(choice)
                self._why_not = str(error)
                return False
        return True

    async def _lead(self, version: str, choice: Choice | None = None) -> Live:
        """Get ready, have all other workers get ready, then choose: ``choice``, or ``version`` as of then."""
        token = await self._rollout.announce(version)
        if token is None:
            raise ActivationInProgress("another worker is activating a bundle; try again when that has ended")
        renewing = asyncio.create_task(self._renew(token))
        try:
            live = await self._ready(version)
            await self._others_ready(token, version)
            if not await self._rollout.renew(token):
                raise ActivationInProgress("the other workers lost sight of this activation; try again")
            await self._choice.write(choice or Choice(version=version, chosen_at=self._clock()))
            self._swap(live)
        finally:
            await self._drop_coming()
            await cancelled(renewing)
            with suppress(StoreUnavailable):  # it then ends by itself
                await self._rollout.withdraw(token)
        return live

    async def _renew(self, token: str) -> None:
        while True:
            await asyncio.sleep(RENEWED)
            with suppress(StoreUnavailable):
                await self._rollout.renew(token)

    async def _others_ready(self, token: str, version: str) -> None:
        """Wait until all workers that serve have loaded it, or cannot; but not for ever."""
        await self._rollout.invite(token)
        others: frozenset[str] = frozenset()
        try:
            async with asyncio.timeout(self._patience):
                while others := await self._rollout.awaited() - {self._name}:  # noqa: ASYNC110 - they are elsewhere
                    await asyncio.sleep(READY_PAUSE)
        except TimeoutError:
            log.warning("%d workers still load bundle '%s'; they follow when they have", len(others), version)

    async def _ready(self, version: str) -> Live:
        """``version`` with the whole catalogue, which it follows from here on, whether or not it answers already."""
        for known in (self._live, self._coming):
            if known is not None and known.version == version:
                return known
        await self._drop_coming()
        log.info("loading bundle '%s'", version)
        live = await asyncio.to_thread(open_live, self._store / version, self._catalogue)
        self._coming = live  # told of what this worker writes, from here on
        try:
            await live.follower.load(self._report)
        except BaseException:
            self._coming = None
            raise
        self._coming_following = asyncio.create_task(live.follower.run(), context=Context())  # of no request
        return live

    async def _drop_coming(self) -> None:
        """Give back what lies ready, and is not needed."""
        following, self._coming, self._coming_following = self._coming_following, None, None
        await cancelled(following)

    def _report(self, done: int, total: int) -> None:
        self._why_not = f"loading the catalogue: {done:,} of {total:,} articles"

    def _swap(self, live: Live) -> None:
        """Answer from ``live`` from now on. Requests under way end with what they began with."""
        if live is self._live:
            return
        self._ending = asyncio.create_task(cancelled(self._following))
        self._live, self._following = live, self._coming_following
        self._coming = self._coming_following = None
        settle()
        log.info("bundle '%s' answers, with %d articles", live.version, len(live.index))
        if self._on_first is not None:
            self._on_first()
            self._on_first = None


def _stamps(store: Path) -> set[str]:
    stamps = set()
    for version in versions(store):
        with suppress(InvalidBundle):
            stamps.add(bundle_stamp(read_manifest(store / version)))
    return stamps


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
