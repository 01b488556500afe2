"""From a query string's values to the engine's filters."""

from __future__ import annotations

from service.engine.filters import EVERYTHING, Filters
from service.http.schemas import FilterQuery

_NAMES = frozenset(FilterQuery.model_fields)


def filters_of(query: FilterQuery) -> Filters:
    """What a request narrows its answer to."""
    if query.model_fields_set.isdisjoint(_NAMES):
        return EVERYTHING
    return Filters(
        category=frozenset(query.category),
        brand=frozenset(query.brand),
        colour=frozenset(query.colour),
        gender=frozenset(query.gender),
        price_min=query.price_min,
        price_max=query.price_max,
        exclude=frozenset(query.exclude),
    )
