"""What narrows an answer before it is ranked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

FACETS = ("category", "brand", "colour", "gender")
"""Article fields that can be filtered by value."""


@dataclass(frozen=True)
class Filters:
    """Which articles may appear, besides being in stock.

    Several values of one facet are alternatives, different facets must all hold; an empty set allows any value, a
    missing one included. Values are compared without regard to case. ``price_min`` and ``price_max`` are inclusive;
    where either is given, articles without a price are left out. ``exclude`` names article ids, letter by letter.
    """

    category: frozenset[str] = frozenset()
    brand: frozenset[str] = frozenset()
    colour: frozenset[str] = frozenset()
    gender: frozenset[str] = frozenset()
    price_min: float | None = None
    price_max: float | None = None
    exclude: frozenset[str] = frozenset()

    @property
    def narrows(self) -> bool:
        """Whether anything but ``exclude`` is asked for."""
        return bool(
            self.category
            or self.brand
            or self.colour
            or self.gender
            or self.price_min is not None
            or self.price_max is not None
        )

    @property
    def wide(self) -> Filters:
        """The same but for ``exclude``."""
        return replace(self, exclude=frozenset()) if self.narrows else EVERYTHING

    def without(self, article_ids: Iterable[str]) -> Filters:
        """The same, and ``article_ids`` excluded, too."""
        exclude = self.exclude.union(article_ids)
        return replace(self, exclude=exclude) if self.narrows else Filters(exclude=exclude)


EVERYTHING = Filters()
