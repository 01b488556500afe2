"""What an article and an event are, for every importer, table, endpoint and model (pydantic at the edges)."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_ID_LENGTH = 128
MAX_TEXT_LENGTH = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

EARLIEST_TIMESTAMP = 0  # 1970-01-01
LATEST_TIMESTAMP = 253_402_300_799  # 9999-12-31T23:59:59Z


def _without_control_characters(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


def _text(value: str) -> str:
    """Text for people: line breaks and tabs become spaces, other control characters are refused."""
    return _without_control_characters(re.sub(r"[\t\r\n]+", " ", value))


def parse_timestamp(value: object) -> int:
    """Unix seconds, UTC, of an ISO 8601 string, a datetime or a number of seconds; fractions are cut off.

    A time without a zone is taken as UTC. Raises ValueError outside 1970-01-01 … 9999-12-31.
    """
    if isinstance(value, bool):
        raise ValueError("must be ISO 8601 or Unix seconds")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be ISO 8601 or Unix seconds") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        try:
            value = value.timestamp()
        except (OverflowError, ValueError):
            raise ValueError("must lie between the years 1970 and 9999") from None
    if not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("must be ISO 8601 or Unix seconds")
    if not EARLIEST_TIMESTAMP <= value <= LATEST_TIMESTAMP:
        raise ValueError("must lie between the years 1970 and 9999")
    return math.floor(value)


Identifier = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
    ),
    AfterValidator(_without_control_characters),
]
"""An id of an article, customer, event or order: 1 to 128 characters, no control characters."""

_TEXT = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"
ShortText = Annotated[
    str, Field(min_length=1, max_length=1_000, json_schema_extra={"pattern": _TEXT}), AfterValidator(_text)
]
LongText = Annotated[
    str, Field(max_length=MAX_TEXT_LENGTH, json_schema_extra={"pattern": _TEXT}), AfterValidator(_text)
]
Timestamp = Annotated[int, BeforeValidator(parse_timestamp)]


class EventType(StrEnum):
    """What a customer did. Purchases and returns make the history; all but returns make the session."""

    PURCHASE = "purchase"
    CLICK = "click"
    SEARCH = "search"
    RETURN = "return"


class Article(BaseModel):
    """One article of the shop (design §3). Missing means unknown, never a default value.

    ``price`` is in the shop's currency and above 0; ``materials`` maps a fibre to its percentage, 0 to 100, the sum at
    most 100.5 (rounding); ``image`` is a path relative to the data set's folder or the catalogue's image root.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    article_id: Identifier
    title: ShortText
    category: ShortText
    brand: ShortText | None = None
    colour: ShortText | None = None
    size: ShortText | None = None
    gender: ShortText | None = None
    season: ShortText | None = None
    occasion: ShortText | None = None
    holiday: ShortText | None = None
    description: LongText | None = None
    price: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    tags: Annotated[tuple[ShortText, ...], Field(max_length=256)] = ()
    materials: dict[ShortText, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = {}
    image: Annotated[str, Field(min_length=1, max_length=4_096), AfterValidator(_without_control_characters)] | None = (
        None
    )
    created_at: Timestamp | None = None

    @model_validator(mode="after")
    def _materials_are_shares(self) -> Article:
        if sum(self.materials.values()) > 100.5:
            raise ValueError("materials: percentages add up to more than 100")
        return self


class Event(BaseModel):
    """One thing that a customer did (design §3, §7). A search carries ``query``, every other type ``article_id``.

    ``timestamp`` is in Unix seconds, UTC. Purchases of one customer with one ``order_id``, or else with one timestamp,
    form an order. ``position`` is the 1-based place at which the shop showed the article.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: Identifier
    type: EventType
    customer_id: Identifier
    article_id: Identifier | None = None
    query: ShortText | None = None
    timestamp: Timestamp
    order_id: Identifier | None = None
    position: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _names_what_was_acted_on(self) -> Event:
        if self.type is EventType.SEARCH:
            if self.query is None:
                raise ValueError("query: a search needs one")
            if self.article_id is not None:
                raise ValueError("article_id: a search has none")
        else:
            if self.article_id is None:
                raise ValueError(f"article_id: a {self.type.value} needs one")
            if self.query is not None:
                raise ValueError(f"query: a {self.type.value} has none")
        return self


def describe_validation_error(error: Any) -> tuple[str | None, str]:
    """(field, message) of the first fault in a pydantic ValidationError, in words for a user."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    message = first["msg"].removeprefix("Value error, ")
    head, _, rest = message.partition(": ")
    if field is None and rest and head.replace("_", "").isalpha():
        return head, rest
    return field, message
