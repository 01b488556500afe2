"""The sample shop's articles: which style each belongs to, what betrays it, how popular it is and when it is there.

N articles, S = 12 styles, C categories. Arrays are indexed by article unless said otherwise; days count from the first
simulated one, so articles that were there before it begin on negative days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.shop.vocabulary import CATEGORIES, COLOURS, GENDERS, PATTERNS, STYLES

STYLE_COUNT, CATEGORY_COUNT = len(STYLES), len(CATEGORIES)
COLOUR_NAMES = tuple(COLOURS)
BRANDS = tuple(brand for style in STYLES for brand in style.brands)
WORDS = tuple(word for style in STYLES for word in style.words)
WORDS_PER_ARTICLE = 3

_BRAND_TOLD, _COLOUR_TOLD, _PATTERN_TOLD, _WORD_TOLD = 0.75, 0.75, 0.7, 0.85
"""How often each trait is one of the article's own style, rather than any."""
_EVERGREEN = 0.1
_MEAN_DAYS_IN_STOCK, _SHORTEST_STAY = 110, 20
_POPULARITY_SPREAD = 0.55

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """All articles of a shop, as arrays (N) of indices into the vocabulary."""

    style: Ints
    gender: Ints
    category: Ints
    brand: Ints
    colour: Ints
    pattern: Ints
    words: Ints
    """(N, 3) indices into WORDS, distinct within an article"""
    price: Floats
    popularity: Floats
    """weight within its style and gender, before season, trend and novelty"""
    first_day: Ints
    """first day in stock"""
    last_day: Ints
    """first day no longer in stock; beyond the end of the shop's days where it stays"""
    gap_start: Ints
    """a time in between, [gap_start, gap_end), at which it was sold out; empty where there was none"""
    gap_end: Ints

    def __len__(self) -> int:
        return len(self.style)

    def in_stock(self, day: int) -> NDArray[np.bool_]:
        """Which articles are in stock on ``day``: bool (N)."""
        there = (self.first_day <= day) & (day < self.last_day)
        return there & ~((self.gap_start <= day) & (day < self.gap_end))


def draw_catalogue(articles: int, days: int, rng: np.random.Generator) -> Catalogue:
    """Draw N articles for a shop of ``days`` days."""
    style = rng.permutation(np.arange(articles) % STYLE_COUNT)
    gender = (rng.random(articles) < 0.4).astype(np.int64)
    category = _draw_categories(style, gender, rng)
    first_day, last_day = _draw_stay(articles, days, rng)
    gap_start, gap_end = _draw_gaps(first_day, last_day, rng)
    return Catalogue(
        style=style,
        gender=gender,
        category=category,
        brand=_draw_trait(style, [style.brands for style in STYLES], BRANDS, _BRAND_TOLD, rng),
        colour=_draw_trait(style, [style.colours for style in STYLES], COLOUR_NAMES, _COLOUR_TOLD, rng),
        pattern=_draw_trait(style, [style.patterns for style in STYLES], PATTERNS, _PATTERN_TOLD, rng),
        words=_draw_words(style, rng),
        price=_draw_prices(style, category, rng),
        popularity=np.exp(rng.normal(0.0, _POPULARITY_SPREAD, articles)),
        first_day=first_day,
        last_day=last_day,
        gap_start=gap_start,
        gap_end=gap_end,
    )


def _draw_categories(style: Ints, gender: Ints, rng: np.random.Generator) -> Ints:
    """Each style has its own mix of categories; a gender's articles come from the gender's categories."""
    mix = rng.dirichlet(np.full(CATEGORY_COUNT, 3.0), STYLE_COUNT)  # (S, C)
    allowed = np.asarray([[g in category.genders for category in CATEGORIES] for g in range(len(GENDERS))])  # (2, C)
    weight = mix[:, None, :] * allowed[None]  # (S, 2, C)
    cumulative = np.cumsum(weight / weight.sum(axis=-1, keepdims=True), axis=-1)
    # Rounding may leave the last sum just below 1, hence the clip.
    index = (rng.random(len(style))[:, None] >= cumulative[style, gender]).sum(axis=1)
    category: Ints = np.minimum(index, CATEGORY_COUNT - 1)
    return category


def _draw_trait(style: Ints, own: list[Any], names: tuple[str, ...], told: float, rng: np.random.Generator) -> Ints:
    """Index into ``names``: with probability ``told`` one of the style's ``own``, else any."""
    table = np.asarray([[names.index(name) for name in choices] for choices in own])  # (S, choices)
    typical = table[style, rng.integers(0, table.shape[1], len(style))]
    return np.where(rng.random(len(style)) < told, typical, rng.integers(0, len(names), len(style)))


def _draw_words(style: Ints, rng: np.random.Generator) -> Ints:
    per_style = len(STYLES[0].words)
    shape = (len(style), WORDS_PER_ARTICLE)
    which = np.argsort(rng.random((len(style), per_style)), axis=1)[:, :WORDS_PER_ARTICLE]  # distinct
    whose = np.where(rng.random(shape) < _WORD_TOLD, style[:, None], rng.integers(0, STYLE_COUNT, shape))
    return whose * per_style + which


def _draw_prices(style: Ints, category: Ints, rng: np.random.Generator) -> Floats:
    level = np.asarray([style.price for style in STYLES])[style] * np.asarray([c.price for c in CATEGORIES])[category]
    price: Floats = np.round(level * np.exp(rng.normal(0.0, 0.2, len(style))) + 0.5) - 0.01
    return price


def _draw_stay(articles: int, days: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """(first day, day after the last), so that equally many articles arrive on every day, the last ones included."""
    stay = _SHORTEST_STAY + rng.gamma(2.0, (_MEAN_DAYS_IN_STOCK - _SHORTEST_STAY) / 2.0, articles).astype(np.int64)
    first = rng.integers(-_MEAN_DAYS_IN_STOCK, days, articles)
    evergreen = rng.random(articles) < _EVERGREEN
    first = np.where(evergreen, -rng.integers(1, 400, articles), first)
    return first, np.where(evergreen, days + 1, first + stay)


def _draw_gaps(first: Ints, last: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Three articles in ten sell out for one to three weeks somewhere in the middle of their stay."""
    middle = first + ((last - first) * rng.uniform(0.3, 0.7, len(first))).astype(np.int64)
    length = rng.integers(7, 22, len(first))
    has_gap = (rng.random(len(first)) < 0.3) & (middle + length < last)
    return np.where(has_gap, middle, 0), np.where(has_gap, middle + length, 0)


# --- as records --------------------------------------------------------------------------------------------------


def article_id(index: int) -> str:
    """The id of article ``index``."""
    return f"a{index:06d}"


def image_name(index: int) -> str:
    """Path of an article's picture in the data set's folder, a thousand to a sub-folder."""
    return f"images/{index // 1000:03d}/{article_id(index)}.jpg"


def article_columns(
    catalogue: Catalogue, start: int, stop: int, first_moment: int, *, images: bool, rng: np.random.Generator
) -> dict[str, Any]:
    """Columns of the articles table for the rows start … stop - 1. ``first_moment``: Unix seconds of day 0."""
    rows = range(start, stop)
    materials = [_materials(int(catalogue.category[row]), rng) for row in rows]
    names = [_Names(catalogue, row) for row in rows]
    return {
        "article_id": [article_id(row) for row in rows],
        "title": [name.title for name in names],
        "category": [name.category.capitalize() for name in names],
        "brand": [name.brand for name in names],
        "colour": [name.colour for name in names],
        "gender": [GENDERS[gender] for gender in catalogue.gender[start:stop]],
        "season": [CATEGORIES[category].season for category in catalogue.category[start:stop]],
        "occasion": [STYLES[style].occasion if told else None
                     for style, told in zip(catalogue.style[start:stop], rng.random(stop - start) < 0.5, strict=True)],
        "holiday": ["New Year" if word in ("sequinned", "metallic") else None for word in (n.words[0] for n in names)],
        "description": [name.description(material) for name, material in zip(names, materials, strict=True)],
        "price": catalogue.price[start:stop],
        "tags": [[*name.words, name.pattern] for name in names],
        "materials": materials,
        "image": [image_name(row) for row in rows] if images else [None] * len(rows),
        "created_at": first_moment + catalogue.first_day[start:stop] * 86_400,
    }  # fmt: skip


class _Names:
    """The words for one article."""

    def __init__(self, catalogue: Catalogue, row: int):
        self.category = CATEGORIES[catalogue.category[row]].name
        self.brand = BRANDS[catalogue.brand[row]]
        self.colour = COLOUR_NAMES[catalogue.colour[row]]
        self.pattern = PATTERNS[catalogue.pattern[row]]
        self.words = [WORDS[word] for word in catalogue.words[row]]

    @property
    def title(self) -> str:
        pattern = "" if self.pattern == "solid" else f"{self.pattern} "
        return f"{self.words[0]} {pattern}{self.category} in {self.colour}".capitalize()

    def description(self, materials: list[tuple[str, float]]) -> str:
        made_of = f" Made of {materials[0][0]}." if materials else ""
        return f"A {self.words[1]}, {self.words[2]} {self.category} by {self.brand}.{made_of}"


def _materials(category: int, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Fibres and percentages that add up to 100; unknown for one article in twelve."""
    fibres = CATEGORIES[category].fibres
    main, second, kind = rng.random(3)
    if kind < 1 / 12:
        return []
    first = int(main * len(fibres))
    share = float(5 * round(12 + 8 * second))
    if share >= 100 or len(fibres) == 1:
        return [(fibres[first], 100.0)]
    return [(fibres[first], share), (fibres[(first + 1) % len(fibres)], 100.0 - share)]
