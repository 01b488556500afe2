"""How much articles sell: counts of the last days, decayed sales, and the half-life that ranks best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_shops import purchases_of

from model_store.dataset import Availability
from model_store.popularity import popularity_component
from offline.hold_out import HeldOut
from offline.popularity import Popularity, PopularityHistory, RecentSales, best_seller_bonus, fit_half_life
from offline.validation import held_out_window, make_window

DAY = 86_400
ARTICLES = 12

PURCHASES = purchases_of(
    [
        (0, 1, 5 * DAY, 0),
        (0, 2, 21 * DAY, 1),
        (0, 3, 25 * DAY, 2),
        (1, 4, 22 * DAY, 3),
        (1, 11, 23 * DAY, 4),
        (2, 5, 6 * DAY, 5),
        (3, 6, 30 * DAY, 6),
    ]
)
UNDATED = np.full(ARTICLES, -1)


def test_recent_sales_are_those_of_the_7_days_before() -> None:
    sales = RecentSales(PURCHASES, ARTICLES)
    assert np.flatnonzero(sales.before(28 * DAY)).tolist() == [2, 3, 4, 11]
    assert np.flatnonzero(sales.before(25 * DAY)).tolist() == [2, 4, 11]  # 3 sold at that very moment
    assert np.flatnonzero(sales.before(13 * DAY)).tolist() == [5]  # 1 sold 8 days before
    assert np.flatnonzero(sales.before(13 * DAY, days=8)).tolist() == [1, 5]


def test_what_is_too_new_to_have_sold_counts_as_average() -> None:
    created_at = UNDATED.copy()
    created_at[[0, 1]] = [21 * DAY, 21 * DAY - 1]
    candidates = np.arange(8)
    sales = RecentSales(PURCHASES, ARTICLES)
    plain, counted = sales.before(28 * DAY)[candidates], sales.trend(28 * DAY, candidates, created_at[candidates])
    assert plain[0] == plain[1] == 0
    assert counted[0] == plain.sum() / 8
    np.testing.assert_array_equal(counted[1:], plain[1:])


def test_decayed_sales_halve_in_every_half_life() -> None:
    sales = RecentSales(PURCHASES, ARTICLES)
    decayed = sales.decayed(25 * DAY, 4.0)
    assert decayed[2] == pytest.approx(0.5)  # 4 days ago
    assert decayed[1] == pytest.approx(0.5**5)  # 20 days ago
    assert decayed[3] == decayed[6] == 0.0  # at that very moment, and later
    assert sales.decayed(25 * DAY, 4.0, since=21 * DAY)[1] == 0.0


sold = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 200 * DAY)), max_size=30)


@given(sold, st.integers(0, 220 * DAY), st.sampled_from([3.0, 28.0]))
def test_decayed_sales_agree_with_a_sum_by_hand_and_their_history_with_both(rows, moment, half_life) -> None:
    purchases = purchases_of([(0, article, time, 0) for article, time in sorted(rows, key=lambda row: row[1])], 1)
    sales = RecentSales(purchases, 5)
    expected = np.zeros(5)
    for article, time in rows:
        if time < moment:
            expected[article] += 0.5 ** ((moment - time) / DAY / half_life)
    np.testing.assert_allclose(sales.decayed(moment, half_life), expected, atol=1e-7)
    history = PopularityHistory(Popularity(sales, Availability.always(5), half_life), 200 * DAY)
    reading = max(sales.first, min(sales.first + (moment - sales.first) // (7 * DAY) * 7 * DAY, 200 * DAY))
    reading = sales.first + (reading - sales.first) // (7 * DAY) * 7 * DAY
    of_then = popularity_component(sales.decayed(reading, half_life))
    np.testing.assert_allclose(history.of(np.arange(5), np.int64(moment)), of_then, atol=1e-5)


def test_what_enters_the_inventory_gets_the_mean_of_what_is_in_stock() -> None:
    """0 sells, 1 does not, 2 is gone, 3 enters at the moment, 4 entered a day ago, 5 sold before it entered."""
    start = np.array([0, 0, 0, 20, 19, 20]) * DAY
    end = np.array([99, 99, 20, 99, 99, 99]) * DAY
    stock = Availability(np.arange(6, dtype=np.int32), start, end, 6)
    sales = RecentSales(purchases_of([(0, 5, 5 * DAY, 0), (0, 2, 10 * DAY, 1), (0, 0, 13 * DAY, 2)]), 6)
    popularity = Popularity(sales, stock, 7.0)
    component = popularity.at(20 * DAY)
    by_hand = popularity_component(np.array([0.5, 0.0, 0.5 ** (10 / 7), 0.0, 0.0, 0.5 ** (15 / 7)]))
    mean = (by_hand[0] + by_hand[1] + by_hand[4]) / 3
    np.testing.assert_allclose(component, [by_hand[0], 0.0, by_hand[2], mean, 0.0, by_hand[5]], rtol=1e-6)
    assert popularity.newcomer(component, 20 * DAY) == pytest.approx(mean)
    assert Popularity(RecentSales(purchases_of([], 0), 6), stock, 7.0).at(0).tolist() == [0.0] * 6


@pytest.mark.parametrize(("fades", "expected"), [(True, {3.0}), (False, {56.0, 112.0})])
def test_the_half_life_is_that_by_which_later_sales_rank_best(fades: bool, expected: set[float]) -> None:
    """What sells now sold for three days before, and other things till then; or else it sold now and then all year."""
    rng = np.random.default_rng(0)
    now, then, rows = np.arange(5), np.arange(5, 20), []
    for day in range(300, 400):
        recent = day >= 397
        if fades:
            sells = [*rng.choice(now if recent else then, 4)]
        else:  # chance sells a little of everything, what lasts sells once in ten days
            sells = [*rng.choice(np.arange(5, 100), 3), *([rng.choice(now)] if day % 2 else [])]
        rows += [(0, int(article), day * DAY, day) for article in sells]
    rows += [(1, int(article), 400 * DAY, 400) for article in now]
    purchases = purchases_of(rows, customers=2)
    window = make_window(purchases, Availability.always(100), 400 * DAY, 401 * DAY, name="validation")
    fitted = fit_half_life(window, RecentSales(purchases, 100), np.full(len(window.customers), 400 * DAY))
    assert fitted.days in expected
    assert fitted.days == max(fitted.tried, key=lambda entry: entry[1])[0]


def test_the_half_life_is_fitted_to_what_was_sold_when_each_customer_was_asked() -> None:
    """What sold in the last days before is bought next, whenever that is; what sold before that was another thing."""
    rows = [(0, article, (10 + 20 * article + day) * DAY, day) for article in range(9) for day in range(20)]
    rows = [*sorted(rows, key=lambda row: row[2]), *((1 + who, who, (29 + 20 * who) * DAY, 99) for who in range(9))]
    purchases, customers = purchases_of(rows), np.arange(1, 10)
    ends = 180 + np.arange(9)
    window = held_out_window(HeldOut("last_order", purchases, customers, ends, np.full(9, DAY)), 9)
    sales = RecentSales(purchases.before(29 * DAY + 20 * 9 * DAY), 9)
    (first, best), *_ = fit_half_life(window, sales, window.times).tried
    assert (first, best) == (3.0, 1.0)  # always the first: what the last three days sold is bought
    assert fit_half_life(window, sales, np.full(9, 400 * DAY)).tried[0][1] < 0.6


def test_the_ten_best_sellers_gain_and_what_never_sold_does_not() -> None:
    component = np.array([0.2, 0.0, 0.5, 0.2, *np.linspace(0.6, 0.9, 9)], np.float32)
    bonus = best_seller_bonus(component)
    worth = [np.log(11 / rank) / np.log(11) for rank in range(1, 11)]
    np.testing.assert_allclose(bonus[[12, 11, 10, 9, 8, 7, 6, 5, 4, 2]], worth, rtol=1e-5)
    assert not bonus[[0, 1, 3]].any()
    few = best_seller_bonus(np.array([0.0, 0.3, 0.3, 0.0], np.float32))
    np.testing.assert_allclose(few, [0.0, worth[0], worth[1], 0.0], rtol=1e-5)  # equal ones in the order given
