"""Which articles histories hold, told to the catalogue before the history does."""

from __future__ import annotations

from collections.abc import Iterable

from service.catalogue.store import CatalogueStore

MOST_TOLD = 500_000
"""Article ids that are kept so that they are not told again: about 70 bytes each."""


class HeldArticles:
    """Has the catalogue remember what is bought: told once by each worker, since it is never taken back."""

    def __init__(self, catalogue: CatalogueStore, most: int = MOST_TOLD):
        self._catalogue, self._most = catalogue, most
        self._told: set[str] = set()

    async def hold(self, article_ids: Iterable[str]) -> None:
        """Return once all of them are held. Raises StoreUnavailable."""
        new = set(article_ids) - self._told
        if not new:
            return
        await self._catalogue.hold(sorted(new))
        if len(self._told) + len(new) > self._most:
            self._told.clear()
        self._told |= new
