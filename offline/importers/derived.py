"""Searches, clicks and result lists derived for real purchases that came without any, from the catalogue alone.

An order may be preceded, within half an hour, by a search and some clicks about one of its articles, told in the words
of that article's own record. All of it is made up by the rules below; every event id begins with ``derived-``.

- **Silence.** 15% of the orders have no such session; of the others 25% have no search, 15% no click.
- **Subject.** In 80% of the sessions an article of the order, drawn evenly; in 20% any article of the catalogue, so
  that the whole session is about something that was not bought.
- **Query.** Colour and type ("dark blue dress", 55%), appearance and type ("striped dress", 20%), or the type alone
  (25%, and wherever the record lacks the other word): a query fits from one to thousands of articles.
- **Clicks.** One to six: 30% on the subject itself, 15% on its product in any colour, 20% on its type in its colour,
  10% on the list shown for the query, 15% on its type in its section, 10% on anything in its section.
- **Result lists.** Of every query that the catalogue can give rise to, the first 24 of the articles that fit it, in
  one shuffled order of the catalogue. They know nothing of sales at any time, and stand for the whole time alike.

*What such data can show*: that the machinery works at the size, with the titles and the sparse histories of a real
shop; and how much a stated amount of intent is worth to one model more than to another. *What they cannot show*: what
customers search for, or how far a real log foretells a purchase. The words are the catalogue's own, so every query is
spelled and understood perfectly; the lists ignore what sells, so the candidates of a query help less than a real
shop's; and the strength of the intent is what the constants here say. Figures that rest on them must say "derived".
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model_store import tables
from model_store.records import Article, EventType

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOMENT = 20 * 3_600
"""Second of the day at which an order is stamped, so that its session lies before it and on the same day."""

LIST_LENGTH = 24
"""Articles of a result list."""

_SILENT, _SEARCHES, _CLICKS, _ABOUT_ANOTHER = 0.15, 0.75, 0.85, 0.2
_FORMS = np.cumsum([0.55, 0.2])  # colour and type, appearance and type, else the type alone
_MORE_CLICKS = np.cumsum([0.4, 0.25, 0.15, 0.1, 0.06])  # one click, two, … else six
_KINDS = np.cumsum([0.3, 0.15, 0.2, 0.1, 0.15])  # the subject, then as numbered below
_TYPE_ALONE = 2
_PRODUCT, _LIKE, _SHOWN, _SHELF, _SECTION = 1, 2, 3, 4, 5
_MOST_CLICKS = 6
_SHORTEST, _LONGEST = 120, 1_800  # seconds from the beginning of a session to its order
_BATCH = 1 << 14  # orders

_SAID = {
    "all over pattern": "patterned", "argyle": "argyle", "chambray": "chambray", "check": "checked",
    "colour blocking": "colour block", "denim": "denim", "dot": "dotted", "embroidery": "embroidered",
    "front print": "printed", "glittering/metallic": "glittering", "jacquard": "jacquard", "lace": "lace",
    "melange": "melange", "mesh": "mesh", "metallic": "metallic", "placement print": "printed", "sequin": "sequin",
    "stripe": "striped", "transparent": "transparent",
}  # fmt: skip
"""How an appearance is said in a query; the others are not ("Solid", "Treatment", …)."""


@dataclass(frozen=True)
class Sales:
    """S purchases: ``customer`` (index into ``customer_ids``), ``article`` (row) and ``day`` (00:00, Unix seconds).

    int32, int32 and int64, each (S). An order is what one customer bought on one day.
    """

    customer_ids: Sequence[str]
    customer: NDArray[np.int32]
    article: NDArray[np.int32]
    day: Ints


class DerivedSearches:
    """Derives for one catalogue, in the order of its rows; the same seed and sales give the same rows.

    Orders are taken day by day, and each has random numbers of its own: what sells later changes nothing before it
    (where customers are numbered as they come, day by day, as in H&M's file).
    """

    def __init__(self, articles: Sequence[Article], seed: int):
        self._seed, self._size = seed, len(articles)
        texts, self._forms = _queries(articles)
        # Both end in None, so that the number -1 names nothing.
        self._ids = np.asarray([*(article.article_id for article in articles), None], object)
        self._texts = np.asarray([*texts, None], object)
        place = np.random.default_rng((seed, 0)).permutation(len(articles))
        self._lists = _Lists(self._forms, len(texts), place)
        sections = [_tagged(article, "section") for article in articles]
        self._likes = {
            _PRODUCT: _Groups(article.article_id[:7] for article in articles),
            _LIKE: _Groups((article.category, article.colour) for article in articles),
            _SHELF: _Groups(zip((article.category for article in articles), sections, strict=True)),
            _SECTION: _Groups(sections),
        }

    def write_lists(self, stage: Path, time: int) -> None:
        """Write the table of search results, as shown from ``time`` (Unix seconds) on."""
        lists = self._lists
        with tables.TableWriter(stage, tables.SEARCH_RESULTS) as writer:
            for start in range(0, len(lists.article), tables.BATCH):
                rows = slice(start, start + tables.BATCH)
                query, article = lists.query[rows], lists.article[rows]
                writer.write(
                    {
                        "query": self._texts[query],
                        "article_id": self._ids[article],
                        "position": lists.position[rows],
                        "timestamp": np.full(len(query), time),
                    }
                )

    def write_events(self, writer: tables.TableWriter, sales: Sales) -> None:
        """Append the searches and clicks before every order of ``sales`` to an events table."""
        rows = np.lexsort((sales.customer, sales.day))
        bought, customer, day = sales.article[rows].astype(np.int64), sales.customer[rows], sales.day[rows]
        starts = np.flatnonzero((np.diff(customer, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0))
        sizes = np.diff(starts, append=len(rows))
        customer_ids = np.asarray(sales.customer_ids, object)
        rng = np.random.default_rng((self._seed, 1))
        with tqdm(total=len(starts), desc="derived searches", unit=" orders", leave=False) as bar:
            for first in range(0, len(starts), _BATCH):
                start, size = starts[first : first + _BATCH], sizes[first : first + _BATCH]
                draws = _Draws.of(rng, len(start))
                wanted = bought[start + (draws.wanted * size).astype(np.int64)]
                session = self._session(wanted, day[start] + MOMENT, draws)
                writer.write(self._columns(session, customer_ids[customer[start]], first))
                bar.update(len(start))

    def _session(self, wanted: Ints, moment: Ints, draws: _Draws) -> _Sessions:
        """One session for each order, of which the article ``wanted`` was bought at ``moment``, both (n)."""
        subject = np.where(draws.is_about < _ABOUT_ANOTHER, (draws.another * self._size).astype(np.int64), wanted)
        speaks = draws.silent >= _SILENT
        query = self._query(subject, draws)
        query = np.where(speaks & (draws.searches < _SEARCHES), query, -1)
        count = np.where(speaks & (draws.clicks < _CLICKS), 1 + np.searchsorted(_MORE_CLICKS, draws.count), 0)
        clicks, position = self._clicks(subject, query, draws)
        clicks = np.where(np.arange(_MOST_CLICKS) < count[:, None], clicks, -1)
        span = _SHORTEST + (draws.begin * (_LONGEST - _SHORTEST)).astype(np.int64)
        after = 1 + (np.sort(draws.when, axis=1) * (span[:, None] - 2)).astype(np.int64)  # of 1 … span - 2 seconds
        return _Sessions(query, clicks, position, moment - span, (moment - span)[:, None] + after)

    def _query(self, subject: Ints, draws: _Draws) -> Ints:
        """Number of what is typed for each subject (n), -1 where its record has no word for it."""
        typed = self._forms[subject, np.searchsorted(_FORMS, draws.form, side="right")]
        return np.where(typed >= 0, typed, self._forms[subject, _TYPE_ALONE])

    def _clicks(self, subject: Ints, query: Ints, draws: _Draws) -> tuple[Ints, Ints]:
        """(article, position in the list of the query, 0 where it has none), each (n, 6)."""
        kind = np.searchsorted(_KINDS, draws.kind, side="right")
        shown = self._lists.draw(query, draws.which)
        kind = np.where((kind == _SHOWN) & (shown < 0), _SHELF, kind)
        article = np.where(kind == _SHOWN, shown, subject[:, None])
        for number, groups in self._likes.items():
            article = np.where(kind == number, groups.draw(subject, draws.which), article)
        return article, self._lists.position_of(query, article)

    def _columns(self, session: _Sessions, customer_ids: NDArray[np.object_], first: int) -> dict[str, object]:
        """The events table's columns, order by order; ``first`` is the number of the first order."""
        orders = len(customer_ids)
        article = np.concatenate([np.full((orders, 1), -1), session.clicks], axis=1)
        query = np.full_like(article, -1)
        query[:, 0] = session.query
        position = np.concatenate([np.zeros((orders, 1), np.int64), session.position], axis=1)
        order, slot = np.nonzero((article >= 0) | (query >= 0))
        article, query, position = article[order, slot], query[order, slot], position[order, slot]
        kinds = np.where(slot == 0, EventType.SEARCH.value, EventType.CLICK.value)
        return {
            "event_id": [
                f"derived-{first + one}-{two}" for one, two in zip(order.tolist(), slot.tolist(), strict=True)
            ],
            "customer_id": customer_ids[order],
            "type": kinds.astype(object),
            "article_id": self._ids[article],
            "query": self._texts[query],
            "timestamp": np.concatenate([session.begin[:, None], session.moments], axis=1)[order, slot],
            "position": [place or None for place in position.tolist()],
        }


# --- draws -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draws:
    """Even random numbers in [0, 1) for n orders: (n), and for each of their clicks: (n, 6)."""

    wanted: Floats
    silent: Floats
    is_about: Floats
    another: Floats
    form: Floats
    searches: Floats
    clicks: Floats
    count: Floats
    begin: Floats
    kind: Floats
    which: Floats
    when: Floats

    @classmethod
    def of(cls, rng: np.random.Generator, orders: int) -> _Draws:
        """As many for each order, one order after the other, so that they are the same however orders are batched."""
        single, per_click = 9, 3
        drawn = rng.random((orders, single + per_click * _MOST_CLICKS))
        return cls(*drawn[:, :single].T, *(drawn[:, single:].reshape(orders, per_click, _MOST_CLICKS).swapaxes(0, 1)))


@dataclass(frozen=True)
class _Sessions:
    """n sessions: ``query`` (n) and ``clicks`` (n, 6), -1 for none, and the clicks' ``position`` (n, 6), 0 for none.

    ``begin`` (n) is the moment of the search, ``moments`` (n, 6) are those of the clicks, in Unix seconds.
    """

    query: Ints
    clicks: Ints
    position: Ints
    begin: Ints
    moments: Ints


# --- the catalogue -----------------------------------------------------------------------------------------------


def _queries(articles: Sequence[Article]) -> tuple[list[str], Ints]:
    """(texts, which of them each article is looked for with: int64 (N, 3), -1 where it lacks a word)."""
    numbers: dict[str, int] = {}
    forms = np.full((len(articles), 3), -1, np.int64)
    for row, article in enumerate(articles):
        kind = _word(article.category)
        if kind is None:
            continue
        words = (_word(article.colour), _SAID.get((_tagged(article, "appearance") or "").casefold()), "")
        for form, word in enumerate(words):
            if word is not None:
                forms[row, form] = numbers.setdefault(f"{word} {kind}".strip(), len(numbers))
    return list(numbers), forms


def _word(name: str | None) -> str | None:
    """How a colour or a type is said: "Other Pink" is pink, "Leggings/Tights" are leggings, "Unknown" is nothing."""
    word = (name or "").casefold().partition("/")[0].removeprefix("other ").strip()
    return None if word in ("", "other", "unknown", "undefined") else word


def _tagged(article: Article, name: str) -> str | None:
    return next((tag.partition(": ")[2] for tag in article.tags if tag.startswith(f"{name}: ")), None)


class _Groups:
    """Articles that have something in common; ``keys`` gives each one's, in order of rows."""

    def __init__(self, keys: Iterable[Hashable]):
        numbers: dict[Hashable, int] = {}
        self._group = np.asarray([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
        self._members = np.argsort(self._group, kind="stable")
        self._size = np.bincount(self._group, minlength=len(numbers))
        self._start = np.cumsum(self._size) - self._size

    def draw(self, article: Ints, chance: Floats) -> Ints:
        """For each of n articles, members of its group by ``chance`` (n, m): int64 (n, m)."""
        group = self._group[article][:, None]
        drawn: Ints = self._members[self._start[group] + (chance * self._size[group]).astype(np.int64)]
        return drawn


class _Lists:
    """The result list of every query: ``query``, ``article`` and 1-based ``position``, each (rows), list by list."""

    def __init__(self, forms: Ints, queries: int, place: NDArray[np.integer]):
        fits = np.stack([forms.ravel(), np.repeat(np.arange(len(forms)), forms.shape[1])], axis=1)
        query, article = np.unique(fits[fits[:, 0] >= 0], axis=0).T
        order = np.lexsort((place[article], query))
        query, article = query[order], article[order]
        position = 1 + np.arange(len(query)) - np.searchsorted(query, query)
        kept = position <= LIST_LENGTH
        self.query, self.article, self.position = query[kept], article[kept], position[kept]
        self._size = np.bincount(self.query, minlength=queries)
        self._start = np.cumsum(self._size) - self._size
        self._articles = len(forms)
        keys = self.query * self._articles + self.article
        self._by_key = np.argsort(keys)
        self._keys = keys[self._by_key]

    def draw(self, query: Ints, chance: Floats) -> Ints:
        """Articles of the lists of n queries by ``chance`` (n, m), the upper ones more often: int64 (n, m), else -1.

        The chance of a position falls as its reciprocal.
        """
        if not len(self.article):
            return np.full(chance.shape, -1, np.int64)
        size = self._size[query][:, None]
        position = np.minimum(((size + 1) ** chance).astype(np.int64), np.maximum(size, 1))
        return np.where(query[:, None] >= 0, self.article[self._start[query][:, None] + position - 1], -1)

    def position_of(self, query: Ints, article: Ints) -> Ints:
        """Where articles (n, m) stand in the lists of n queries: int64 (n, m), 0 where they do not."""
        if not len(self.article):
            return np.zeros_like(article)
        wanted = query[:, None] * self._articles + article
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found = (self._keys[at] == wanted) & (query[:, None] >= 0)
        return np.where(found, self.position[self._by_key[at]], 0)
