"""Parameters of the page's own calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from model_store.records import Identifier, ShortText
from service.http.schemas import MAX_RECOMMENDATIONS, QueryTime, SearchText


class _Query(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PeopleQuery(_Query):
    """Whom to look for."""

    q: ShortText | None = None
    n: int = Field(20, ge=1, le=MAX_RECOMMENDATIONS)


class CardsQuery(_Query):
    """Which articles to show."""

    id: Annotated[tuple[Identifier, ...], Field(max_length=MAX_RECOMMENDATIONS)] = ()


class PathQuery(_Query):
    """When the style is read."""

    at: QueryTime | None = None


class OperationsQuery(_Query):
    """Since which answer's ``mark`` recent recommendations count, as it stands there."""

    since: Annotated[tuple[Annotated[int, Field(ge=0, le=2**53)], ...], Field(max_length=100)] = ()


class GenerationQuery(_Query):
    """What the customer searches for right now, where anything."""

    query: SearchText | None = None
