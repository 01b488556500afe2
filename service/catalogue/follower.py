"""Keeping one worker's index abreast of the catalogue that all workers share.

What a change is, the store says when asked: a follower asks what is true of an article now, and makes its index so.
Therefore changes may be heard twice, late or together, and a worker that wrote something itself need not wait to hear.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np

from service.cancelling import cancelled
from service.catalogue.encoder import CatalogueEncoder
from service.catalogue.records import CatalogueEntry, Float32, StoredArticle
from service.catalogue.store import FIRST_PAGE, CatalogueStore, ChangesLost, Position
from service.engine.cells import Cells
from service.engine.index import ArticleIndex
from service.engine.space import Space
from service.errors import StoreUnavailable

log = logging.getLogger(__name__)

WAIT = 0.2  # seconds that one call waits for changes: less than any timeout of the store's client
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between attempts while the store is away
PATIENCE = 10.0  # seconds for which one page is asked for again, before everything is loaded anew
AT_ONCE = 128
"""Articles that go into the index in one go: answers wait for at most that long (a few ms)."""


class CatalogueFollower:
    """Fills an index, and follows what changes. Articles that its bundle has not encoded yet are encoded here.

    Title embeddings are not shared between workers as Fashion DNA is: each depends on a short text alone, and stays in
    the index for as long as that does not change. ``clock``: Unix seconds.
    """

    def __init__(
        self,
        store: CatalogueStore,
        encoder: CatalogueEncoder,
        index: ArticleIndex,
        clock: Callable[[], float] = time.time,
    ):
        self._store, self._encoder, self._index, self._clock = store, encoder, index, clock
        self._position: Position | None = None
        self._lock = asyncio.Lock()  # what was read first is applied first
        self._seen: set[str] | None = None  # while everything is loaded again
        self._settling: asyncio.Task[None] | None = None
        self.refused: dict[str, str] = {}
        self.as_of: float | None = None
        """Unix seconds at which the index last held every change that the store had; None before it first did."""
        self.behind = 0
        """Changes that are known of and not in the index yet."""

    @property
    def index(self) -> ArticleIndex:
        return self._index

    @property
    def loaded(self) -> bool:
        """Whether the index was complete at some time, and has followed since."""
        return self._position is not None

    async def load(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the index equal to the whole catalogue; ``progress`` hears (articles done, articles in all).

        A store that holds nothing at all while the index holds something has lost its data: then the index stays, and
        goes on answering. Raises StoreUnavailable.
        """
        begun = self._clock()
        position = await self._store.position()
        total = await self._store.count()
        if total == 0 and len(self._index):
            log.error("the store has come back empty: %d articles are served from memory", len(self._index))
            self._position = position
            return
        self._seen = set()
        self._index.reserve(total)
        try:
            cursor: str | None = FIRST_PAGE
            while cursor is not None:
                cursor = await self._load_page(cursor)
                if progress is not None:
                    progress(min(len(self._index), total), total)
            for article_id in self._index.known_ids() - self._seen:
                self._index.forget(article_id)
        finally:
            self._seen = None
        await self._settled()
        self._encoder.forget_table()
        self._position, self.as_of, self.behind = position, begun, 0

    async def refresh(self, article_ids: Sequence[str]) -> None:
        """Make the index say what is true now of these articles. Raises StoreUnavailable."""
        async with self._lock:
            entries = await self._store.read(article_ids, self._encoder.bundle_version)
            for article_id, entry in zip(article_ids, entries, strict=True):
                if entry is None:
                    self._index.forget(article_id)
            await self._apply([entry for entry in entries if entry is not None])

    async def run(self) -> NoReturn:
        """Follow for ever: after what ``load`` found, or from scratch; through failures of the store, too."""
        try:
            await self._follow_through_failures()
        finally:
            await cancelled(self._settling)

    async def _follow_through_failures(self) -> NoReturn:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._follow()
                pause = FIRST_PAUSE
            except ChangesLost:
                log.warning("changes of the catalogue were missed: loading it again")
                self._position = None
            except StoreUnavailable as error:
                if pause > FIRST_PAUSE:  # once alone may be this worker's own delay
                    log.warning("the catalogue cannot be followed for the moment: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception:
                log.exception("following the catalogue failed; it is loaded again")
                self._position = None
                await asyncio.sleep(LONGEST_PAUSE)

    async def _follow(self) -> None:
        if self._position is None:
            await self.load()
        assert self._position is not None
        begun = self._clock()
        changes = await self._store.changes(self._position, WAIT)
        self.behind = changes.behind + changes.position.number - self._position.number
        if changes.article_ids:
            await self.refresh(changes.article_ids)
        self._position, self.behind = changes.position, changes.behind
        if not changes.behind:
            self.as_of = begun

    def _settle_soon(self) -> None:
        """Have made ready for searches what is worn, in a thread; others search and the catalogue changes meanwhile."""
        if self._settling is None or self._settling.done():
            worn = [(space, space.refit()) for space in self._index.worn()]
            if worn:
                self._settling = asyncio.create_task(_settle(worn))

    async def _settled(self) -> None:
        """Return once nothing is worn."""
        while True:
            self._settle_soon()
            if self._settling is None or self._settling.done():
                return
            await self._settling

    async def _load_page(self, cursor: str) -> str | None:
        """Where to go on. A store that is slow for once costs no more than that page."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await self._load_this(cursor)
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(FIRST_PAUSE)

    async def _load_this(self, cursor: str) -> str | None:
        async with self._lock:
            page = await self._store.page(cursor, self._encoder.bundle_version)
            await self._apply(page.entries)
        return page.cursor

    async def _apply(self, entries: Sequence[CatalogueEntry]) -> None:
        for start in range(0, len(entries), AT_ONCE):
            some = entries[start : start + AT_ONCE]
            encoded = {entry.article.article_id: entry.dna for entry in some if entry.dna is not None}
            encoded.update(await self._encode([entry for entry in some if entry.dna is None]))
            titles = await self._titles([entry for entry in some if entry.live and entry.article.article_id in encoded])
            self._put(some, encoded, titles)
            if self._seen is None:
                self._settle_soon()
            else:
                self._seen.update(entry.article.article_id for entry in some)
            await asyncio.sleep(0)

    def _put(
        self, entries: Sequence[CatalogueEntry], dna: Mapping[str, Float32], titles: Mapping[str, Float32] | None
    ) -> None:
        live = [entry for entry in entries if entry.live and entry.article.article_id in dna]
        if live:
            ids = [entry.article.article_id for entry in live]
            self._index.upsert_many(
                [entry.article for entry in live],
                np.stack([dna[article_id] for article_id in ids]),
                [entry.in_stock for entry in live],
                None if titles is None else np.stack([titles[article_id] for article_id in ids]),
            )
        for entry in entries:
            article_id = entry.article.article_id
            if not entry.live or article_id not in dna:
                self._index.remove(article_id)
            if not entry.live and article_id in dna:
                self._index.remember_dna(article_id, dna[article_id])

    async def _titles(self, entries: Sequence[CatalogueEntry]) -> dict[str, Float32] | None:
        """Title embeddings, of what the index does not hold with this title already; None where it holds none."""
        if not self._encoder.encodes_titles:
            return None
        same = [
            entry.article.article_id
            for entry in entries
            if self._index.title_of(entry.article.article_id) == entry.article.title
        ]
        titles = dict(zip(same, self._index.title_vectors_of(same), strict=True))
        others = [entry for entry in entries if entry.article.article_id not in titles]
        if others:
            loading = self._seen is not None
            encoded = await asyncio.to_thread(self._encoder.encode_titles, others, from_table=loading)
            titles.update(zip((entry.article.article_id for entry in others), encoded, strict=True))
        return titles

    async def _encode(self, entries: Sequence[CatalogueEntry]) -> dict[str, Float32]:
        """DNA of what this bundle meets for the first time; shared with the other workers."""
        if not entries:
            return {}
        images = await self._store.read_images([entry.article.article_id for entry in entries])
        stored = [
            StoredArticle(entry.article, entry.fingerprint, image) for entry, image in zip(entries, images, strict=True)
        ]
        encoded = await asyncio.to_thread(self._encoder.encode, stored)
        for place, error in encoded.refused.items():
            article_id = entries[place].article.article_id
            self.refused[article_id] = str(error)
            log.error("article '%s' cannot be recommended: %s", article_id, error)
        usable = [entries[place] for place in encoded.usable]
        await self._store.put_dna(self._encoder.bundle_version, usable, encoded.dna[encoded.usable])
        return {entries[place].article.article_id: encoded.dna[place] for place in encoded.usable}


async def _settle(worn: Sequence[tuple[Space, Callable[[], Cells]]]) -> None:
    for space, make in worn:
        cells = None
        try:
            cells = await asyncio.to_thread(make)
        finally:
            space.adopt(cells)
