"""Articles and stock levels as calls bring them: each is checked by itself, and what is sound is stored and served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.errors import InvalidRecord
from model_store.records import Article, Identifier, Timestamp, describe_validation_error
from service.catalogue.encoder import CatalogueEncoder, prepare
from service.catalogue.pictures import read_picture
from service.catalogue.records import CatalogueEntry, Float32, StockLevel, StockOutcome, StoredArticle
from service.catalogue.store import CatalogueStore

DAY = 86_400  # seconds
MAX_QUANTITY = 1_000_000_000
INVALID_ARTICLE, INVALID_STOCK, UNKNOWN_ARTICLE = "invalid_article", "invalid_stock", "unknown_article"


@dataclass(frozen=True)
class Refusal:
    """Why the record at ``index`` was not taken. ``type`` is for programs: one of the constants above."""

    index: int
    type: str
    message: str
    field: str | None = None


@dataclass(frozen=True)
class IntakeAnswer:
    """Number of records that were taken, of which ``stale`` stock levels changed nothing, and the others by index."""

    accepted: int
    rejected: tuple[Refusal, ...]
    stale: int = 0


class _Stock(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    article_id: Identifier
    quantity: Annotated[int, Field(ge=0, le=MAX_QUANTITY, strict=True)]
    set_time: Timestamp | None = None


class Shown(Protocol):
    """What shows the catalogue on this worker: one index's follower, or all of them while the bundle changes."""

    async def refresh(self, article_ids: Sequence[str]) -> None:
        """Show what is true now of these articles. Raises StoreUnavailable."""
        ...


class CatalogueIntake:
    """Writes to the catalogue, and has this worker's index show it before the call is answered.

    ``image_root``: the folder of pictures that are given as a path; None: there is none. ``clock``: Unix seconds.
    """

    def __init__(self, store: CatalogueStore, image_root: Path | None, clock: Callable[[], int]):
        self._store, self._image_root, self._clock = store, image_root, clock

    async def put(self, raw: Sequence[Any], encoder: CatalogueEncoder, shown: Shown) -> IntakeAnswer:
        """Add or replace articles (fields of design §3), encoded by ``encoder``. Raises StoreUnavailable.

        Where that fails, some may be stored; to send all again is harmless.
        """
        articles, dna, refused = await asyncio.to_thread(self._encoded, raw, encoder)
        articles = await self._dated(articles, encoder.bundle_version)
        await self._store.upsert(articles, encoder.bundle_version, dna)
        await shown.refresh(list(dict.fromkeys(stored.article.article_id for stored in articles)))
        return IntakeAnswer(len(articles), tuple(refused))

    async def delete(self, article_id: str, shown: Shown) -> bool:
        """Take an article out of every answer; False where it was not there. Raises StoreUnavailable."""
        deleted = await self._store.delete(article_id)
        await shown.refresh([article_id])
        return deleted

    async def set_stock(self, raw: Sequence[Any], shown: Shown) -> IntakeAnswer:
        """Set stock levels: ``{"article_id", "quantity", "set_time"?}``, by default of now. Raises StoreUnavailable.

        One that is older than what is stored is accepted, and changes nothing.
        """
        now = self._clock()
        checked = [self._level(index, each, now) for index, each in enumerate(raw)]
        refused = [one for one in checked if isinstance(one, Refusal)]
        levels = {index: level for index, level in enumerate(checked) if isinstance(level, StockLevel)}
        outcomes = dict(zip(levels, await self._store.set_stock(list(levels.values())), strict=True))
        await shown.refresh(list(dict.fromkeys(level.article_id for level in levels.values())))
        for index, outcome in outcomes.items():
            if outcome is StockOutcome.UNKNOWN_ARTICLE:
                message = f"article '{levels[index].article_id}' is not in the catalogue"
                refused.append(Refusal(index, UNKNOWN_ARTICLE, message, "article_id"))
        refused.sort(key=lambda refusal: refusal.index)
        stale = sum(outcome is StockOutcome.STALE for outcome in outcomes.values())
        return IntakeAnswer(len(raw) - len(refused), tuple(refused), stale)

    async def _dated(self, articles: Sequence[StoredArticle], bundle: str) -> list[StoredArticle]:
        """Articles that do not say when they were created: when they first came here."""
        undated = [stored.article.article_id for stored in articles if stored.article.created_at is None]
        known = dict(zip(undated, await self._store.read(undated, bundle), strict=True)) if undated else {}
        now = self._clock()
        return [
            stored if stored.article.created_at is not None else _created(stored, known[stored.article.article_id], now)
            for stored in articles
        ]

    def _encoded(
        self, raw: Sequence[Any], encoder: CatalogueEncoder
    ) -> tuple[list[StoredArticle], Float32, list[Refusal]]:
        """(articles that are sound, their DNA float32 (N, 128), why the others are not)."""
        sound: dict[int, StoredArticle] = {}
        refused: list[Refusal] = []
        for index, each in enumerate(raw):
            try:
                sound[index] = self._article(each)
            except InvalidRecord as error:
                refused.append(_refusal(index, error))
        places, articles = list(sound), list(sound.values())
        encoded = encoder.encode(articles)
        refused += (_refusal(places[place], error) for place, error in encoded.refused.items())
        refused.sort(key=lambda refusal: refusal.index)
        return [articles[place] for place in encoded.usable], encoded.dna[encoded.usable], refused

    def _article(self, raw: Any) -> StoredArticle:
        """One article with its picture. Raises InvalidRecord."""
        if not isinstance(raw, Mapping):
            raise InvalidRecord("must be an object")
        fields = dict(raw)
        image = fields.pop("image", None)
        article = _validated(fields)
        if image is None:
            return prepare(article, None)
        if not isinstance(image, str):
            raise InvalidRecord("must be text: base64, or a path under the catalogue's image root", field="image")
        content, path = read_picture(image, self._image_root)
        return prepare(article if path is None else _validated({**fields, "image": path}), content)

    def _level(self, index: int, raw: Any, now: int) -> StockLevel | Refusal:
        try:
            stock = _Stock.model_validate(raw)
        except ValidationError as error:
            field, message = describe_validation_error(error)
            return Refusal(index, INVALID_STOCK, message, field)
        set_time = now if stock.set_time is None else stock.set_time
        if set_time > now + DAY:
            return Refusal(index, INVALID_STOCK, "must not lie more than a day ahead", "set_time")
        return StockLevel(stock.article_id, stock.quantity, set_time)


def _created(stored: StoredArticle, known: CatalogueEntry | None, now: int) -> StoredArticle:
    time = now if known is None else known.article.created_at
    return replace(stored, article=stored.article.model_copy(update={"created_at": time}))


def _validated(fields: Mapping[str, Any]) -> Article:
    try:
        return Article.model_validate(fields)
    except ValidationError as error:
        field, message = describe_validation_error(error)
        raise InvalidRecord(message, field=field) from None


def _refusal(index: int, error: InvalidRecord) -> Refusal:
    message = str(error)
    if error.field is not None:
        message = message.removeprefix(f"{error.field}: ")
    return Refusal(index, INVALID_ARTICLE, message, error.field)
