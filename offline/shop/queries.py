"""What the sample shop's customers search for, and the lists of results that it shows them, renewed every week.

A query asks for a category, alone or with one trait: a colour, a pattern, a brand or a word. Its number is
``category * TRAITS + trait``; trait 0 is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline.shop.catalogue import BRANDS, CATEGORY_COUNT, COLOUR_NAMES, WORDS, Catalogue, Floats, Ints
from offline.shop.vocabulary import CATEGORIES, PATTERNS

RESULTS = 10
_COLOUR = 1
_PATTERN = _COLOUR + len(COLOUR_NAMES)
_BRAND = _PATTERN + len(PATTERNS)
_WORD = _BRAND + len(BRANDS)
TRAITS = _WORD + len(WORDS)
QUERIES = CATEGORY_COUNT * TRAITS


def query_texts() -> list[str]:
    """The text of every query, by number (QUERIES)."""
    traits = ["", *COLOUR_NAMES, *PATTERNS, *BRANDS, *WORDS]
    return [f"{trait} {category.name}".strip().casefold() for category in CATEGORIES for trait in traits]


def draw_queries(catalogue: Catalogue, wanted: Ints, rng: np.random.Generator) -> Ints:
    """A query for each article wanted: its category, and mostly one of its traits. Int (len(wanted))."""
    kind = rng.random(len(wanted))
    trait = np.select(
        [kind < 0.15, kind < 0.45, kind < 0.6, kind < 0.7],
        [
            np.zeros(len(wanted), dtype=np.int64),
            _COLOUR + catalogue.colour[wanted],
            _PATTERN + catalogue.pattern[wanted],
            _BRAND + catalogue.brand[wanted],
        ],
        _WORD + catalogue.words[wanted, 0],
    )
    return catalogue.category[wanted] * TRAITS + trait


class QueryLists:
    """The result lists of the current week: per query up to ten matching articles, the most attractive first."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        self._offsets = np.zeros(QUERIES + 1, dtype=np.int64)
        self._articles = np.zeros(0, dtype=np.int64)
        self._asked = np.zeros(QUERIES, dtype=bool)
        self._keys = np.zeros(0, dtype=np.int64)
        self._places = np.zeros(0, dtype=np.int64)
        self._shown_from = 0

    def show(self, day: int, articles: Ints, weight: Floats) -> None:
        """Make the week's lists out of the ``articles`` in stock, by ``weight``."""
        query, article = self._matches(articles)
        position = np.empty(len(self._catalogue), dtype=np.float64)
        position[articles] = weight
        order = np.lexsort((article, -position[article], query))
        query, article = query[order], article[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        query, article = query[rank < RESULTS], article[rank < RESULTS]
        self._articles = article
        self._offsets = np.searchsorted(query, np.arange(QUERIES + 1))
        key = query * len(self._catalogue) + article
        by_key = np.argsort(key)
        self._keys, self._places = key[by_key], (rank[rank < RESULTS] + 1)[by_key]
        self._asked[:] = False
        self._shown_from = day

    def _matches(self, articles: Ints) -> tuple[Ints, Ints]:
        """(query, article) pairs: which queries each article answers."""
        catalogue = self._catalogue
        traits = [
            np.zeros(len(articles), dtype=np.int64),
            _COLOUR + catalogue.colour[articles],
            _PATTERN + catalogue.pattern[articles],
            _BRAND + catalogue.brand[articles],
            *(_WORD + catalogue.words[articles]).T,
        ]
        query = np.concatenate([catalogue.category[articles] * TRAITS + trait for trait in traits])
        # An article may have one word twice, if from two styles' lists; it still answers a query once.
        pair = np.unique(query * len(catalogue) + np.tile(articles, len(traits)))
        return pair // len(catalogue), pair % len(catalogue)

    def note(self, queries: Ints) -> None:
        """Remember that these were asked this week."""
        self._asked[queries] = True

    def shown(self) -> tuple[int, Ints, Ints, Ints]:
        """(first day, query, article, position): the lists of this week's queries."""
        lengths = np.where(self._asked, np.diff(self._offsets), 0)
        query = np.repeat(np.arange(QUERIES), lengths)
        position = np.arange(len(query)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self._shown_from, query, self._articles[self._offsets[query] + position], position + 1

    def draw_shown(self, query: Ints, rng: np.random.Generator) -> Ints:
        """A result of each query, the upper ones more often; -1 where there is none: (len(query))."""
        length = np.where(query >= 0, np.diff(self._offsets)[query], 0)
        place = (rng.random(len(query)) ** 2 * length).astype(np.int64)
        found = length > 0
        result = np.full(len(query), -1, dtype=np.int64)
        result[found] = self._articles[self._offsets[query[found]] + place[found]]
        return result

    def position(self, query: Ints, article: Ints) -> Ints:
        """At which place of its query's list an article stood, from 1; 0 where it did not: (len(query))."""
        key = np.where(query >= 0, query * len(self._catalogue) + article, -1)
        at = np.minimum(np.searchsorted(self._keys, key), max(len(self._keys) - 1, 0))
        if not len(self._keys):
            return np.zeros(len(query), dtype=np.int64)
        found: NDArray[np.bool_] = self._keys[at] == key
        return np.where(found, self._places[at], 0)
