"""After a change of bundle: states of the one before are replayed behind answers' backs, before anybody asks for them.

An answer replays what it needs by itself (``service.recommend``), so nothing depends on this: it only takes the replay
out of the first answer to each customer. One worker at a time goes through all customers. What it replays is stored
only where the log has not moved on since; should it die, another begins anew, and passes over what is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NoReturn

from service.catalogue.held import HeldArticles
from service.catalogue.store import CatalogueStore
from service.errors import StoreUnavailable
from service.events import held_articles
from service.live import Live, Lives
from service.replay_board import Progress, ReplayBoard
from service.state.customer import CustomerLog, CustomerState
from service.state.store import CustomerStore

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks whether there is something to replay
TOLD = 0.5  # seconds between two notes of how far it is
AT_ONCE = 16
"""Customers that are replayed together: few, so that no answer waits for long while their logs are decoded."""


def _articles_of(state: CustomerState) -> tuple[str, ...]:
    return (*state.purchased, *state.returned)


class Replays:
    """Goes through all customers once for each bundle that is chosen, while it is this worker's turn.

    ``share`` of one processor core that it takes at most (above 0, up to 1): after each batch it rests. ``look``:
    seconds, as ``LOOK``.
    """

    def __init__(
        self,
        customers: CustomerStore,
        catalogue: CatalogueStore,
        held: HeldArticles,
        board: ReplayBoard,
        lives: Lives,
        share: float,
        look: float = LOOK,
    ):
        self._customers, self._catalogue, self._board, self._lives = customers, catalogue, board, lives
        self._held = held
        self._share, self._pause = share, look
        self._finished: Live | None = None

    async def run(self) -> NoReturn:
        """Replay what there is to replay, for ever."""
        while True:
            try:
                await self._turn()
            except StoreUnavailable as error:
                log.warning("states are not replayed for the moment: %s", error)
            except Exception:
                log.exception("replaying states failed; it is begun again")
            await asyncio.sleep(self._pause)

    async def _turn(self) -> None:
        live = self._lives.live if self._lives.version is not None else None
        if live is None or live is self._finished or not await self._lives.is_chosen(live):
            return
        mine = await self._board.take(live.style.bundle_version)
        if mine is None:
            self._finished = live
        elif mine:
            try:
                await self._replay_all(live)
            finally:
                await self._board.give_back()

    async def _replay_all(self, live: Live) -> None:
        progress = Progress(live.style.bundle_version, await self._count())
        if not await self._board.tell(progress):
            return
        begun = told = time.monotonic()
        done = replayed = 0
        async for names in self._customers.pages():
            for start in range(0, len(names), AT_ONCE):
                some = names[start : start + AT_ONCE]
                replayed += await self._replay(live, some)
                done += len(some)
                if time.monotonic() - told > TOLD:
                    told = time.monotonic()
                    progress = Progress(progress.bundle, max(progress.total, done), done, replayed)
                    if not (await self._lives.is_chosen(live) and await self._board.tell(progress)):
                        return
        await self._forget_retired()
        if await self._board.tell(Progress(progress.bundle, done, done, replayed, ended=True)):
            took = time.monotonic() - begun
            log.info("bundle '%s': %d states of %d customers replayed in %.1f s", live.version, replayed, done, took)

    async def _count(self) -> int:
        return sum([len(names) async for names in self._customers.pages()])

    async def _replay(self, live: Live, names: Sequence[str]) -> int:
        """Give those of some customers a state of this bundle that have none; how many these were."""
        begun = time.monotonic()
        views = await self._customers.read_many(names)
        stale = [
            name
            for name, view in zip(names, views, strict=True)
            if view.state is None or not live.style.fits(view.state)
        ]
        await self._held.hold(
            article_id for view in views if view.state is not None for article_id in _articles_of(view.state)
        )
        if stale:
            logs = await self._customers.read_logs(stale)
            await self._store(live, [(name, each) for name, each in zip(stale, logs, strict=True) if each.events])
        await asyncio.sleep((time.monotonic() - begun) * (1 / self._share - 1))
        return len(stale)

    async def _store(self, live: Live, logs: Sequence[tuple[str, CustomerLog]]) -> None:
        await self._held.hold(held_articles(each.events for _, each in logs))
        states = await asyncio.to_thread(live.style.replay_later([each.events for _, each in logs]))
        for (name, each), state in zip(logs, states, strict=True):
            await self._customers.put_state(name, state, each.revision)

    async def _forget_retired(self) -> None:
        """Give back the Fashion DNA of bundles that nobody can activate any more."""
        kept = await self._lives.stamps()
        for bundle in await self._catalogue.encoded_by():
            if bundle not in kept:
                log.info("Fashion DNA of bundle '%s' is forgotten: the store holds that bundle no more", bundle)
                await self._catalogue.drop_dna(bundle)
