"""The sample shop day by day: who comes, what they look for, what they buy and bring back.

All work of a day is done on arrays over that day's visits (V) and events (E); only the day that was asked for is in
memory. The same configuration gives the same events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from model_store.errors import InvalidConfig
from model_store.records import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from offline.shop.catalogue import CATEGORY_COUNT, COLOUR_NAMES, Catalogue, Floats, Ints, draw_catalogue
from offline.shop.customers import Customers
from offline.shop.queries import QueryLists, draw_queries
from offline.shop.vocabulary import CATEGORIES, PATTERNS

DAY = 86_400  # seconds
PURCHASE, CLICK, SEARCH, RETURN = range(4)
"""Codes of event types, indices into ``EVENT_TYPES``."""
EVENT_TYPES = ("purchase", "click", "search", "return")

_BROWSING_PER_ORDER = 0.5
_SEARCHES, _CLICKS = 0.65, 0.85
"""How many visits have a search, and how many have clicks."""
_SAME_STYLE = 0.85
"""How many further articles of an order are of the first one's style."""
_RETURNED = 0.08
_NOVELTY, _NOVELTY_DAYS = 3.5, 14
_SEASON_STRENGTH = 1.0
_TREND_STRENGTH, _TREND_DAYS = 1.2, 20.0


@dataclass(frozen=True)
class ShopConfig:
    """How large a shop, and which one. ``end``: Unix seconds, 00:00 UTC of the day after the last simulated one."""

    end: int
    articles: int = 2_000
    customers: int = 3_000
    days: int = 400
    seed: int = 7
    shuffled: bool = False
    images: bool = True

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("articles", self.articles, 200, 999_999),
            ("customers", self.customers, 100, 9_999_999),
            ("days", self.days, 30, 3_650),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not low <= value <= high:
                raise InvalidConfig(f"{name}: {value} is out of range; expected {low:,} to {high:,}")
        # Articles may have been there for over a year before the first day.
        if (
            self.end % DAY
            or not EARLIEST_TIMESTAMP <= self.end - (self.days + 800) * DAY <= self.end <= LATEST_TIMESTAMP
        ):
            raise InvalidConfig("end: expected a day between 1982 and 9999")

    @property
    def start(self) -> int:
        """Unix seconds of the first day's beginning."""
        return self.end - self.days * DAY

    def generator(self, purpose: int) -> np.random.Generator:
        """The random generator for one purpose, independent of the others."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, purpose]))


@dataclass(frozen=True)
class DayEvents:
    """What happened on one day, by time. E events; -1 (position: 0) where a field does not apply."""

    kind: Ints
    customer: Ints
    article: Ints
    query: Ints
    timestamp: Ints
    """Unix seconds"""
    order: Ints
    position: Ints

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def merged(cls, parts: list[DayEvents]) -> DayEvents:
        """All events of ``parts``, by time; at one time in the order given."""
        names = list(cls.__dataclass_fields__)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = np.argsort(columns["timestamp"], kind="stable")
        return cls(**{name: column[order] for name, column in columns.items()})


class Shop:
    """A shop in the course of its days. ``catalogue`` and ``customers`` are the planted truth, for tests to look at."""

    def __init__(self, config: ShopConfig):
        self.config = config
        self.catalogue = draw_catalogue(config.articles, config.days, config.generator(0))
        self.customers = Customers.draw(config.customers, config.days, config.generator(1))
        self.queries = QueryLists(self.catalogue)
        self._rng = config.generator(2)
        self._factors = _Factors(self.catalogue, config, config.generator(3))
        self._bought = _Memory(config)
        self._returns: dict[int, list[DayEvents]] = defaultdict(list)
        self._orders = 0

    def days(self) -> Iterator[tuple[int, DayEvents]]:
        """(day, its events) for every day; while a day is being looked at, ``customers`` are as they were on it."""
        for day in range(self.config.days):
            if day % 7 == 0:
                self._show_results(day)
            yield day, self._live(day)
            self.customers.live_a_day(self._rng)

    def shelf(self, day: int) -> Shelf:
        """What is in stock on ``day``, with how much each article attracts."""
        there = self._by_group[self.catalogue.in_stock(day)[self._by_group]]
        weight = np.ones(len(there)) if self.config.shuffled else self._factors.weight(day, there)
        return Shelf(self.catalogue, there, weight, shuffled=self.config.shuffled)

    @property
    def _by_group(self) -> Ints:
        return self._factors.by_group

    def _show_results(self, day: int) -> None:
        shelf = self.shelf(day)
        self.queries.show(day, shelf.articles, shelf.weight)

    def _live(self, day: int) -> DayEvents:
        shelf = self.shelf(day)
        weekend = 1.3 if (self.config.start // DAY + day + 3) % 7 >= 5 else 0.9
        buyers = self.customers.draw_visitors(day, weekend, self._rng)
        browsers = self.customers.draw_visitors(day, weekend * _BROWSING_PER_ORDER, self._rng)
        purchases, wanted = self._buy(day, shelf, buyers)
        looked_for = self._choose(shelf, browsers, *self._mood(browsers))
        browsing = _Visits(browsers, looked_for, self._moments(day, len(browsers)))
        self._take_back(purchases)
        parts = [
            *self._sessions(shelf, wanted),
            *self._sessions(shelf, browsing),
            purchases,
            *self._returns.pop(day, []),
        ]
        return DayEvents.merged(parts)

    def _mood(self, who: Ints) -> tuple[Ints, Ints]:
        """(style, gender), each (V): what each of ``who`` has come for."""
        return self.customers.draw_styles(who, self._rng), self.customers.draw_genders(who, self._rng)

    def _choose(self, shelf: Shelf, who: Ints, style: Ints, gender: Ints) -> Ints:
        """An article for each of ``who``, in two tries one that the customer does not have yet: (V)."""
        article = shelf.draw(style, gender, self._rng)
        for _ in range(2):
            owned = self._bought.has(who, article)
            article = np.where(owned, shelf.draw(style, gender, self._rng), article)
        return article

    def _moments(self, day: int, visits: int) -> Ints:
        """A second of the day for each visit, late enough for a session to have gone before it on the same day."""
        hour = 6.0 + 17.9 * self._rng.beta(2.2, 1.6, visits)
        return self.config.start + day * DAY + (hour * 3600).astype(np.int64)

    def _buy(self, day: int, shelf: Shelf, buyers: Ints) -> tuple[DayEvents, _Visits]:
        """Orders of the day: the purchases, and the visits in which each order's first article was wanted."""
        style, gender = self._mood(buyers)
        article = self._choose(shelf, buyers, style, gender)
        visits = _Visits(buyers, article, self._moments(day, len(buyers)))
        further = np.searchsorted([0.62, 0.86, 0.96], self._rng.random(len(buyers)), side="right")
        visit = np.repeat(np.arange(len(buyers)), further)
        same = self._rng.random(len(visit)) < _SAME_STYLE
        style = np.where(same, style[visit], self.customers.draw_styles(buyers[visit], self._rng))
        beside = self._choose(shelf, buyers[visit], style, gender[visit])
        whose = np.concatenate([np.arange(len(buyers)), visit])
        bought = np.concatenate([article, beside])
        kept = self._first_time(buyers[whose], bought, whose)
        whose, bought = whose[kept], bought[kept]
        purchases = _events(PURCHASE, buyers[whose], visits.moment[whose], article=bought, order=self._orders + whose)
        self._orders += len(buyers)
        return purchases, visits

    def _first_time(self, customer: Ints, article: Ints, visit: Ints) -> NDArray[np.bool_]:
        """Which purchases are not the second of an article: in an order never, and in a lifetime where taste rules."""
        pair = visit * len(self.catalogue) + article
        kept = np.zeros(len(pair), dtype=bool)
        kept[np.unique(pair, return_index=True)[1]] = True
        if not self.config.shuffled:
            kept &= ~self._bought.has(customer, article)
            self._bought.add(customer[kept], article[kept])
        return kept

    def _take_back(self, purchases: DayEvents) -> None:
        """Schedule the returns of some of the day's purchases, three to twenty days on."""
        chosen = np.flatnonzero(self._rng.random(len(purchases)) < _RETURNED)
        after = self._rng.integers(3, 21, len(chosen))
        moment = purchases.timestamp[chosen] + after * DAY
        events = _events(RETURN, purchases.customer[chosen], moment, article=purchases.article[chosen],
                         order=purchases.order[chosen])  # fmt: skip
        day = (moment - self.config.start) // DAY
        for due in np.unique(day):
            self._returns[int(due)].append(_only(events, day == due))

    def _sessions(self, shelf: Shelf, visits: _Visits) -> list[DayEvents]:
        """Searches and clicks that lead up to what each visit is for."""
        wanted = shelf.anything(len(visits), self._rng) if self.config.shuffled else visits.article
        query = draw_queries(self.catalogue, wanted, self._rng)
        query = np.where(self._rng.random(len(visits)) < _SEARCHES, query, -1)
        begin = visits.moment - self._rng.integers(120, 1800, len(visits))
        searching = np.flatnonzero(query >= 0)
        self.queries.note(query[searching])
        searches = _events(SEARCH, visits.customer[searching], begin[searching], query=query[searching])
        return [searches, self._clicks(shelf, visits, wanted, query, begin)]

    def _clicks(self, shelf: Shelf, visits: _Visits, wanted: Ints, query: Ints, begin: Ints) -> DayEvents:
        """Clicks: on the article wanted, on the results shown, on its like, and on others of its style."""
        rng = self._rng
        count = np.where(rng.random(len(visits)) < _CLICKS, 1 + np.minimum(rng.poisson(1.2, len(visits)), 6), 0)
        visit = np.repeat(np.arange(len(visits)), count)
        chance = rng.random(len(visit))
        article = np.where(chance < 0.4, wanted[visit], shelf.draw_like(wanted[visit], rng, category=True))
        article = np.where(chance > 0.85, shelf.draw_like(wanted[visit], rng, category=False), article)
        shown = self.queries.draw_shown(query[visit], rng)
        in_stock = shelf.holds(shown)
        if self.config.shuffled:
            article = shelf.anything(len(visit), rng)
        else:
            article = np.where((chance > 0.65) & (chance < 0.85) & in_stock, shown, article)
        span = (visits.moment - begin)[visit]
        moment = begin[visit] + 1 + (rng.random(len(visit)) * (span - 2)).astype(np.int64)
        position = self.queries.position(query[visit], article)
        return _events(CLICK, visits.customer[visit], moment, article=article, position=position)


@dataclass(frozen=True)
class _Visits:
    """V visits: who, what for, and the second at which they end."""

    customer: Ints
    article: Ints
    moment: Ints

    def __len__(self) -> int:
        return len(self.customer)


def _events(
    kind: int,
    customer: Ints,
    timestamp: Ints,
    *,
    article: Ints | None = None,
    query: Ints | None = None,
    order: Ints | None = None,
    position: Ints | None = None,
) -> DayEvents:
    none = np.full(len(customer), -1, dtype=np.int64)
    return DayEvents(
        kind=np.full(len(customer), kind, dtype=np.int64),
        customer=customer,
        article=none if article is None else article,
        query=none if query is None else query,
        timestamp=timestamp,
        order=none if order is None else order,
        position=np.zeros(len(customer), dtype=np.int64) if position is None else position,
    )


def _only(events: DayEvents, rows: NDArray[np.bool_]) -> DayEvents:
    return DayEvents(**{name: getattr(events, name)[rows] for name in DayEvents.__dataclass_fields__})


def group_of(style: Ints, gender: Ints, category: Ints | int) -> Ints:
    """Number of the group (style, gender, category); a style's and gender's groups are consecutive."""
    return (style * 2 + gender) * CATEGORY_COUNT + category


class Shelf:
    """What is in stock on one day, sorted by group, so that a draw from a group is one search in cumulative weights."""

    def __init__(self, catalogue: Catalogue, articles: Ints, weight: Floats, *, shuffled: bool):
        self.articles, self.weight = articles, weight
        self._catalogue, self._shuffled = catalogue, shuffled
        self._cumulative = np.concatenate([[0.0], np.cumsum(weight)])
        group = group_of(catalogue.style[articles], catalogue.gender[articles], catalogue.category[articles])
        self._bounds = np.searchsorted(group, np.arange(int(group.max(initial=0)) + CATEGORY_COUNT * 2 + 2))
        self._there = np.zeros(len(catalogue), dtype=bool)
        self._there[articles] = True

    def draw(self, style: Ints, gender: Ints, rng: np.random.Generator) -> Ints:
        """One article each of a style and gender, by weight: (len(style))."""
        first = group_of(style, gender, 0)
        return self._draw(self._bound(first), self._bound(first + CATEGORY_COUNT), rng)

    def draw_like(self, article: Ints, rng: np.random.Generator, *, category: bool) -> Ints:
        """One article each of the same style and gender, and of the same category where asked: (len(article))."""
        style, gender = self._catalogue.style[article], self._catalogue.gender[article]
        if not category:
            return self.draw(style, gender, rng)
        group = group_of(style, gender, self._catalogue.category[article])
        return self._draw(self._bound(group), self._bound(group + 1), rng)

    def anything(self, count: int, rng: np.random.Generator) -> Ints:
        """Articles drawn uniformly: (count)."""
        chosen: Ints = self.articles[rng.integers(0, len(self.articles), count)]
        return chosen

    def holds(self, article: Ints) -> NDArray[np.bool_]:
        """Which articles are in stock; -1 is not: bool (len(article))."""
        there: NDArray[np.bool_] = (article >= 0) & self._there[article]
        return there

    def _bound(self, group: Ints) -> Ints:
        bounds: Ints = self._bounds[np.minimum(group, len(self._bounds) - 1)]
        return bounds

    def _draw(self, low: Ints, high: Ints, rng: np.random.Generator) -> Ints:
        if self._shuffled:
            return self.anything(len(low), rng)
        empty = low >= high
        low, high = np.where(empty, 0, low), np.where(empty, len(self.articles), high)
        start, end = self._cumulative[low], self._cumulative[high]
        place = np.searchsorted(self._cumulative, start + rng.random(len(low)) * (end - start), side="right") - 1
        drawn: Ints = self.articles[np.clip(place, low, high - 1)]
        return drawn


class _Factors:
    """How much each article attracts on each day: its own popularity × season × trends × novelty."""

    def __init__(self, catalogue: Catalogue, config: ShopConfig, rng: np.random.Generator):
        self._catalogue = catalogue
        self.by_group = np.argsort(group_of(catalogue.style, catalogue.gender, catalogue.category), kind="stable")
        day = np.arange(config.days)
        self._season = np.stack([_season(category.season, config.start, day) for category in CATEGORIES])  # (C, days)
        self._colour = _trends(len(COLOUR_NAMES), day, rng)  # (colours, days)
        self._pattern = _trends(len(PATTERNS), day, rng)  # (patterns, days)

    def weight(self, day: int, articles: Ints) -> Floats:
        """Weights of ``articles`` on ``day``, float64 (len(articles)), above 0."""
        catalogue = self._catalogue
        weight = catalogue.popularity[articles] * self._season[catalogue.category[articles], day]
        weight = weight * self._colour[catalogue.colour[articles], day]
        weight = weight * self._pattern[catalogue.pattern[articles], day]
        new = day - catalogue.first_day[articles] < _NOVELTY_DAYS
        attraction: Floats = np.where(new, weight * _NOVELTY, weight)
        return attraction


def _season(season: str | None, start: int, day: Ints) -> Floats:
    """exp(±cos) of the time of year, 1 without a season: float64 (days). Summer peaks in July, winter in January."""
    if season is None:
        return np.ones(len(day))
    january = datetime.fromtimestamp(start, UTC).timetuple().tm_yday - 15
    phase = np.cos(2.0 * np.pi * (day + january) / 365.2425)
    factor: Floats = np.exp(_SEASON_STRENGTH * (phase if season == "winter" else -phase))
    return factor


def _trends(names: int, day: Ints, rng: np.random.Generator) -> Floats:
    """Each name has its moments, about two a year, that rise and fade over weeks: float64 (names, days), at least 1."""
    length = len(day)
    factor = np.zeros((names, length))
    for name in range(names):
        for peak in rng.uniform(-30.0, length + 30.0, max(1, round(length / 180))):
            factor[name] += np.exp(-0.5 * ((day - peak) / _TREND_DAYS) ** 2)
    return np.exp(_TREND_STRENGTH * np.minimum(factor, 1.0))


class _Memory:
    """Who bought what, hashed into a table of bits: what was bought is always known, little else taken for it."""

    _MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, config: ShopConfig):
        expected = config.customers * config.days / 10
        self._shift = np.uint64(64 - max(20, int(np.ceil(np.log2(expected * 16)))))
        self._seen = np.zeros(1 << (64 - int(self._shift)), dtype=bool)

    def has(self, customer: Ints, article: Ints) -> NDArray[np.bool_]:
        """Whether each customer has bought each article: bool (len(customer))."""
        seen: NDArray[np.bool_] = self._seen[self._slots(customer, article)]
        return seen

    def add(self, customer: Ints, article: Ints) -> None:
        """Remember these purchases."""
        self._seen[self._slots(customer, article)] = True

    def _slots(self, customer: Ints, article: Ints) -> NDArray[np.uint64]:
        key = (customer.astype(np.uint64) << np.uint64(20)) | article.astype(np.uint64)
        slots: NDArray[np.uint64] = (key * self._MULTIPLIER) >> self._shift
        return slots
