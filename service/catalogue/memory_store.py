"""The catalogue in one process's memory: for tests, and for trying things out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from service.catalogue.records import (
    CatalogueEntry,
    Float32,
    StockLevel,
    StockOutcome,
    StoredArticle,
    pack_dna,
    unpack_dna,
)
from service.catalogue.store import FIRST_PAGE, KEPT_CHANGES, KEPT_UNHELD, Changes, ChangesLost, Page, Position

PAGE_SIZE = 256


class MemoryCatalogue:
    """A ``CatalogueStore`` of dictionaries."""

    def __init__(self, kept_changes: int = KEPT_CHANGES, kept_unheld: int = KEPT_UNHELD):
        self._kept_unheld = kept_unheld
        self._held: set[str] = set()
        self._unheld: dict[str, None] = {}  # deleted articles that no history holds, the latest last
        self._articles: dict[str, StoredArticle] = {}
        self._graveyard: dict[str, StoredArticle] = {}
        self._stock: dict[str, StockLevel] = {}
        self._dna: dict[str, dict[str, bytes]] = {}
        self._changes: deque[str] = deque(maxlen=kept_changes)
        self._count = 0
        self._changed = asyncio.Condition()

    async def upsert(self, articles: Sequence[StoredArticle], bundle: str, dna: Float32) -> None:
        for stored, vector in zip(articles, dna, strict=True):
            article_id = stored.article.article_id
            self._articles[article_id] = stored
            self._graveyard.pop(article_id, None)
            self._unheld.pop(article_id, None)
            self._dna.setdefault(bundle, {})[article_id] = pack_dna(stored.fingerprint, vector)
            await self._announce(article_id)

    async def delete(self, article_id: str) -> bool:
        stored = self._articles.pop(article_id, None)
        if stored is None:
            return False
        self._graveyard[article_id] = stored
        self._stock.pop(article_id, None)
        await self._announce(article_id)
        if article_id not in self._held:
            self._unheld[article_id] = None
        if len(self._unheld) > self._kept_unheld:
            await self._forget(next(iter(self._unheld)))
        return True

    async def _forget(self, article_id: str) -> None:
        del self._unheld[article_id], self._graveyard[article_id]
        for known in self._dna.values():
            known.pop(article_id, None)
        await self._announce(article_id)

    async def hold(self, article_ids: Sequence[str]) -> None:
        self._held.update(article_ids)
        for article_id in article_ids:
            self._unheld.pop(article_id, None)

    async def set_stock(self, levels: Sequence[StockLevel]) -> list[StockOutcome]:
        return [await self._set_one(level) for level in levels]

    async def _set_one(self, level: StockLevel) -> StockOutcome:
        if level.article_id not in self._articles:
            return StockOutcome.UNKNOWN_ARTICLE
        before = self._stock.get(level.article_id)
        if before is not None and level.set_time < before.set_time:
            return StockOutcome.STALE
        self._stock[level.article_id] = level
        if (before is None or before.quantity > 0) != (level.quantity > 0):
            await self._announce(level.article_id)
        return StockOutcome.APPLIED

    async def read(self, article_ids: Sequence[str], bundle: str) -> list[CatalogueEntry | None]:
        return [self._entry(article_id, bundle) for article_id in article_ids]

    async def read_images(self, article_ids: Sequence[str]) -> list[bytes | None]:
        stored = (self._articles.get(article_id) or self._graveyard.get(article_id) for article_id in article_ids)
        return [None if one is None else one.image for one in stored]

    async def put_dna(self, bundle: str, entries: Sequence[CatalogueEntry], dna: Float32) -> None:
        known = self._dna.setdefault(bundle, {})
        for entry, vector in zip(entries, dna, strict=True):
            known[entry.article.article_id] = pack_dna(entry.fingerprint, vector)

    async def drop_dna(self, bundle: str) -> None:
        self._dna.pop(bundle, None)

    async def encoded_by(self) -> list[str]:
        return sorted(self._dna)

    async def count(self) -> int:
        return len(self._articles)

    async def page(self, cursor: str, bundle: str) -> Page:
        # In order of id, and going on after the last one: so nothing that stays is missed while others come and go.
        rest = sorted(article_id for article_id in {*self._articles, *self._graveyard} if article_id > cursor)
        entries = [entry for article_id in rest[:PAGE_SIZE] if (entry := self._entry(article_id, bundle))]
        more = len(rest) > PAGE_SIZE
        return Page(tuple(entries), rest[PAGE_SIZE - 1] if more else None)

    async def position(self) -> Position:
        return Position("memory", 0, self._count)

    async def changes(self, since: Position, wait: float) -> Changes:
        if self._count - since.number > len(self._changes) or since.number > self._count:
            raise ChangesLost
        if self._count == since.number:
            try:
                async with asyncio.timeout(wait), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                return Changes((), since)
        new = list(self._changes)[since.number - self._count :]
        return Changes(tuple(dict.fromkeys(new)), Position("memory", 0, self._count))

    def _entry(self, article_id: str, bundle: str) -> CatalogueEntry | None:
        live = article_id in self._articles
        stored = self._articles.get(article_id) or self._graveyard.get(article_id)
        if stored is None:
            return None
        dna = unpack_dna(self._dna.get(bundle, {}).get(article_id), stored.fingerprint)
        return CatalogueEntry(stored.article, stored.fingerprint, live, self._stock.get(article_id), dna)

    async def _announce(self, article_id: str) -> None:
        async with self._changed:
            self._changes.append(article_id)
            self._count += 1
            self._changed.notify_all()


assert FIRST_PAGE == ""  # which is what makes every id follow it
