"""Where the catalogue is kept: the protocol that every store fulfils. One contract suite holds all of them to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from service.catalogue.records import CatalogueEntry, Float32, StockLevel, StockOutcome, StoredArticle

KEPT_CHANGES = 100_000
"""Changes that a store keeps at least; who falls further behind loads everything again."""


KEPT_UNHELD = 10_000
"""Deleted articles that no history holds which are remembered all the same: purchases may arrive late."""


class Position(NamedTuple):
    """A place in the sequence of changes: the ``number``-th of one ``epoch`` of one ``server``.

    Changes are numbered without gaps, so a reader sees for itself when one is missing. A new epoch begins with an
    empty catalogue; a server that was restarted may have lost its latest changes and numbers them anew.
    """

    server: str
    epoch: int
    number: int


class ChangesLost(Exception):
    """The changes after a position cannot be known any more: load everything again."""


@dataclass(frozen=True)
class Changes:
    """``article_ids`` that changed in any way, each once; ``position`` after the last of them.

    ``behind``: changes after that position that there were when these were asked for, left to the next call.
    """

    article_ids: tuple[str, ...]
    position: Position
    behind: int = 0


@dataclass(frozen=True)
class Page:
    """Some of the catalogue, and where to go on: None after the last page. An article may come twice."""

    entries: tuple[CatalogueEntry, ...]
    cursor: str | None


FIRST_PAGE = ""


class CatalogueStore(Protocol):
    """Articles, pictures, stock, and DNA per bundle.

    Every change of one article is atomic and announced in the same step. An announcement only names the article: who
    reads it asks what is true now, so changes may be applied twice or together. To follow without a gap, take
    ``position`` first, then all pages, then ``changes`` from there. All raise StoreUnavailable where the store does
    not answer or refuses.
    """

    async def upsert(self, articles: Sequence[StoredArticle], bundle: str, dna: Float32) -> None:
        """Add or replace articles with their pictures and their ``dna`` float32 (N, 128) under ``bundle``.

        Stock is left as it is. In order: of an id that repeats, the last one stays.
        """
        ...

    async def delete(self, article_id: str) -> bool:
        """Take an article and its stock out; False where it was not live.

        Record, picture and DNA are remembered, so that histories that hold it can be replayed, under later bundles too;
        of articles that none holds (``hold``), those of the ``KEPT_UNHELD`` latest deletions.
        """
        ...

    async def hold(self, article_ids: Sequence[str]) -> None:
        """Remember articles for ever, whether or not they are deleted: a history holds them, or is about to."""
        ...

    async def set_stock(self, levels: Sequence[StockLevel]) -> list[StockOutcome]:
        """Set stock levels, in order; what is older than the stored one is left out as stale."""
        ...

    async def read(self, article_ids: Sequence[str], bundle: str) -> list[CatalogueEntry | None]:
        """What is true of each article now; None for one that was never here."""
        ...

    async def read_images(self, article_ids: Sequence[str]) -> list[bytes | None]:
        """The pictures of articles, live or remembered."""
        ...

    async def put_dna(self, bundle: str, entries: Sequence[CatalogueEntry], dna: Float32) -> None:
        """Keep the ``dna`` float32 (N, 128) that ``bundle`` computed from these very entries. Not a change."""
        ...

    async def drop_dna(self, bundle: str) -> None:
        """Forget every DNA of a bundle that will not be served again (it would only be computed anew)."""
        ...

    async def encoded_by(self) -> list[str]:
        """Bundles of which any DNA is kept."""
        ...

    async def count(self) -> int:
        """Live articles."""
        ...

    async def page(self, cursor: str, bundle: str) -> Page:
        """All articles, live and remembered, page by page from ``FIRST_PAGE``.

        Whatever is here from the first to the last page is in one of them.
        """
        ...

    async def position(self) -> Position:
        """The place after the latest change."""
        ...

    async def changes(self, since: Position, wait: float) -> Changes:
        """What changed after ``since``; where nothing did, wait up to ``wait`` seconds for something to.

        Raises ChangesLost where changes after ``since`` may be missing.
        """
        ...
