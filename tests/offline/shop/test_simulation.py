"""The sample shop's planted structure, found again by oracles that know what was planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.errors import InvalidConfig
from offline.shop.catalogue import STYLE_COUNT
from offline.shop.simulation import CLICK, DAY, PURCHASE, RETURN, SEARCH, DayEvents, Shop, ShopConfig

END = 1_795_305_600  # 2026-11-22
SMALL = ShopConfig(end=END, articles=600, customers=1_500, days=240)


@dataclass(frozen=True)
class Seen:
    """A simulated shop, with what an oracle wants to know about the window of the last 7 days."""

    shop: Shop
    events: DayEvents
    lifetime: NDArray[np.float64]
    """(K, S) average taste before the window, weighted by nothing but presence"""
    sales: NDArray[np.int64]
    """(N) in the 7 days before the window"""
    sold: NDArray[np.bool_]
    """(N) whether ever sold before the window"""
    tastes: dict[int, NDArray[np.float64]]
    """by day of the window: (K, S)"""


def simulate(config: ShopConfig) -> Seen:
    shop = Shop(config)
    window = config.days - 7
    lifetime = np.zeros((config.customers, STYLE_COUNT))
    sales, sold = np.zeros(config.articles, dtype=np.int64), np.zeros(config.articles, dtype=bool)
    tastes, days = {}, []
    for day, events in shop.days():
        days.append(events)
        bought = events.article[events.kind == PURCHASE]
        if day < window:
            lifetime += shop.customers.taste() * (shop.customers.joined <= day)[:, None]
            sold[bought] = True
            np.add.at(sales, bought, int(day >= window - 7))
        else:
            tastes[day] = shop.customers.taste()
    return Seen(shop, DayEvents.merged(days), lifetime, sales, sold, tastes)


Score = Callable[[int, int], NDArray[np.float64]]


def auc(seen: Seen, score: Score, *, new_only: bool = False) -> float:
    """Mean share of the articles in stock that ``score(customer, day)`` puts below what was bought, in the window."""
    config = seen.shop.config
    day = (seen.events.timestamp - config.start) // DAY
    shares = []
    for row in np.flatnonzero((seen.events.kind == PURCHASE) & (day >= config.days - 7)):
        article = seen.events.article[row]
        if new_only and seen.sold[article]:
            continue
        values = score(int(seen.events.customer[row]), int(day[row]))
        others = values[seen.shop.catalogue.in_stock(int(day[row]))]
        below, equal = (others < values[article]).sum(), (others == values[article]).sum() - 1
        shares.append((below + equal / 2) / (len(others) - 1))
    return float(np.mean(shares))


def by_style(seen: Seen, taste: Callable[[int, int], NDArray[np.float64]]) -> Score:
    catalogue, customers = seen.shop.catalogue, seen.shop.customers

    def score(customer: int, day: int) -> NDArray[np.float64]:
        own = np.where(catalogue.gender == customers.gender[customer], 0.9, 0.1)
        return taste(customer, day)[catalogue.style] * own

    return score


def oracles(seen: Seen) -> dict[str, Score]:
    return {
        "now": by_style(seen, lambda customer, day: seen.tastes[day][customer]),
        "lifetime": by_style(seen, lambda customer, _: seen.lifetime[customer]),
        "popularity": lambda *_: seen.sales.astype(np.float64),
    }


@pytest.fixture(scope="module")
def planted() -> Seen:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def shuffled() -> Seen:
    return simulate(ShopConfig(end=END, articles=600, customers=1_500, days=240, shuffled=True))


def test_taste_now_beats_taste_on_average_beats_popularity(planted: Seen) -> None:
    figure = {name: auc(planted, score) for name, score in oracles(planted).items()}
    assert figure["now"] > 0.9
    assert figure["now"] > figure["lifetime"] + 0.06
    assert figure["lifetime"] > figure["popularity"] + 0.08
    assert figure["popularity"] > 0.55


def test_new_articles_follow_taste_too(planted: Seen) -> None:
    figure = {name: auc(planted, score, new_only=True) for name, score in oracles(planted).items()}
    assert figure["now"] > 0.88
    assert figure["now"] > figure["lifetime"] + 0.04 > 0.7


def test_shuffled_leaves_nothing_to_find(shuffled: Seen) -> None:
    for score in oracles(shuffled).values():
        assert auc(shuffled, score) == pytest.approx(0.5, abs=0.025)


def related(seen: Seen, kind: int) -> float:
    """How often a click or search, within the hour before a purchase of that customer, is of its style and gender."""
    catalogue, events = seen.shop.catalogue, seen.events
    hits = []
    buying = np.flatnonzero(events.kind == PURCHASE)
    for customer in range(150):
        mine = np.flatnonzero((events.customer == customer) & (events.kind == kind))
        for row in buying[events.customer[buying] == customer]:
            before = mine[(events.timestamp[mine] < events.timestamp[row])]
            recent = before[events.timestamp[before] >= events.timestamp[row] - 1_800]
            clicked, bought = events.article[recent], events.article[row]
            hits += (catalogue.style[clicked] == catalogue.style[bought]).tolist()
    return float(np.mean(hits))


def test_clicks_foretell_the_purchase(planted: Seen, shuffled: Seen) -> None:
    assert related(planted, CLICK) > 0.6
    assert related(shuffled, CLICK) == pytest.approx(1 / STYLE_COUNT, abs=0.04)


def test_searches_ask_for_what_is_then_bought(planted: Seen, shuffled: Seen) -> None:
    assert asked_for(planted) > 0.5
    assert asked_for(shuffled) < 0.15


def asked_for(seen: Seen) -> float:
    """How often a purchase with a search in the half-hour before is of the category searched for."""
    from offline.shop.queries import TRAITS

    events = seen.events
    hits = []
    searches = np.flatnonzero(events.kind == SEARCH)
    for row in np.flatnonzero(events.kind == PURCHASE)[:1_500]:
        near = searches[(events.customer[searches] == events.customer[row])]
        gap = events.timestamp[row] - events.timestamp[near]
        near = near[(gap > 0) & (gap < 1_800)]
        hits += (events.query[near] // TRAITS == seen.shop.catalogue.category[events.article[row]]).tolist()
    return float(np.mean(hits))


@pytest.mark.parametrize("name", ["planted", "shuffled"])
def test_everything_that_is_bought_clicked_or_shown_is_in_stock(name: str, request: pytest.FixtureRequest) -> None:
    seen: Seen = request.getfixturevalue(name)
    day = (seen.events.timestamp - seen.shop.config.start) // DAY
    for today in range(seen.shop.config.days):
        in_stock = seen.shop.catalogue.in_stock(today)
        touched = (day == today) & np.isin(seen.events.kind, (PURCHASE, CLICK))
        assert in_stock[seen.events.article[touched]].all()


def test_one_purchase_in_twelve_is_returned(planted: Seen) -> None:
    events = planted.events
    assert (events.kind == RETURN).sum() / (events.kind == PURCHASE).sum() == pytest.approx(0.08, abs=0.01)
    bought = {row[:3]: row[3] for row in _rows(events, PURCHASE)}
    for *pair, moment in _rows(events, RETURN):
        assert 3 * DAY <= moment - bought[tuple(pair)] <= 20 * DAY


def _rows(events: DayEvents, kind: int) -> list[tuple[int, ...]]:
    rows = events.kind == kind
    columns = (events.customer, events.order, events.article, events.timestamp)
    return list(zip(*(column[rows].tolist() for column in columns), strict=True))


def test_orders_hold_several_articles_mostly_of_one_style(planted: Seen) -> None:
    events, style = planted.events, planted.shop.catalogue.style
    bought = events.kind == PURCHASE
    order = np.argsort(events.order[bought], kind="stable")
    number, styles = events.order[bought][order], style[events.article[bought][order]]
    together = number[1:] == number[:-1]
    assert 0.2 < together.mean() < 0.4
    assert (styles[1:] == styles[:-1])[together].mean() > 0.75


def test_an_article_is_bought_once_by_a_customer(planted: Seen) -> None:
    pairs = [row[0] * 10_000 + row[2] for row in _rows(planted.events, PURCHASE)]
    assert len(set(pairs)) == len(pairs)


def test_articles_come_and_go_every_week(planted: Seen) -> None:
    catalogue, days = planted.shop.catalogue, planted.shop.config.days
    assert np.histogram(catalogue.first_day, np.arange(0, days + 1, 10))[0].min() > 0
    assert ((catalogue.first_day >= days - 7) & (catalogue.first_day < days)).sum() > 3
    assert 0.2 < catalogue.in_stock(days - 1).mean() < 0.5
    assert (catalogue.gap_end > catalogue.gap_start).any()


def test_events_are_in_time_order_and_end_with_the_shop(planted: Seen) -> None:
    assert (np.diff(planted.events.timestamp) >= 0).all()
    assert planted.shop.config.start <= planted.events.timestamp[0]
    assert END - DAY < planted.events.timestamp[-1] < END


def test_another_seed_is_another_shop() -> None:
    first = Shop(ShopConfig(end=END, articles=200, customers=100, days=30))
    second = Shop(ShopConfig(end=END, articles=200, customers=100, days=30, seed=8))
    assert (first.catalogue.price != second.catalogue.price).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"articles": 199}, "articles: 199 is out of range; expected 200 to 999,999"),
        ({"customers": 99}, "customers: 99 is out of range; expected 100 to 9,999,999"),
        ({"days": 29}, "days: 29 is out of range; expected 30 to 3,650"),
        ({"seed": -1}, "seed: -1 is out of range; expected 0 to 9,223,372,036,854,775,807"),
        ({"end": END + 1}, "end: expected a day between 1982 and 9999"),
        ({"end": 0}, "end: expected a day between 1982 and 9999"),
    ],
)
def test_a_size_out_of_range_is_named(values: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        ShopConfig(**{"end": END, **values})
    assert str(raised.value) == message
