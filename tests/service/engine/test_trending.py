from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.engine.trending import DAY, TrendSnapshot, TrendWindow, WindowTotals, trend_window

TODAY = 20_000


def test_at_midnight_it_is_the_seven_whole_days_before():
    window = trend_window(TODAY * DAY, newest_day=TODAY + 5, now=(TODAY + 9) * DAY)
    assert window == TrendWindow(tuple((day, 1.0) for day in range(TODAY - 7, TODAY)))


def test_a_running_day_counts_whole_and_the_oldest_in_part():
    now = TODAY * DAY + DAY // 4
    window = trend_window(now, newest_day=TODAY, now=now)
    assert window.days[0] == (TODAY - 7, 0.75)
    assert window.days[-1] == (TODAY, 1.0)


def test_a_day_that_is_over_counts_by_what_lies_before_at():
    window = trend_window(TODAY * DAY + DAY // 4, newest_day=TODAY + 30, now=(TODAY + 30) * DAY)
    assert window.days[-1] == (TODAY, 0.25)


def test_a_shop_whose_data_ended_long_ago_keeps_its_last_week():
    now = (TODAY + 1000) * DAY + 5
    assert trend_window(now, TODAY, now) == TrendWindow(tuple((day, 1.0) for day in range(TODAY - 6, TODAY + 1)))


def test_a_shop_that_never_sold_has_no_trend():
    assert trend_window(TODAY * DAY, None, TODAY * DAY).days == ()


@given(st.integers(20 * DAY, 30 * DAY), st.integers(0, 40), st.integers(0, 20 * DAY))
def test_the_window_is_seven_days_long_and_never_looks_ahead(at, newest_day, later):
    window = trend_window(at, newest_day, at + later)
    running = at // DAY == (at + later) // DAY
    length = sum(weight for _, weight in window.days)
    assert 7 <= round(length, 9) <= (8 if running else 7)
    assert all(day * DAY < at and day <= newest_day for day, _ in window.days)
    assert [day for day, _ in window.days] == sorted({day for day, _ in window.days})


def test_returns_take_sales_out_and_what_nets_to_nothing_does_not_trend():
    window = TrendWindow(((1, 0.5), (2, 1.0)))
    snapshot = WindowTotals(window, {1: {"a": 2, "b": 4}, 2: {"a": -1, "b": 1, "c": 3}, 3: {"d": 9}}).snapshot()
    assert snapshot.sales == {"b": 3.0, "c": 3.0}
    assert snapshot.article_ids == ("b", "c")


def test_scores_are_those_of_training():
    snapshot = TrendSnapshot({"x": 1.0, "y": 7.0})
    assert snapshot.article_ids == ("y", "x")
    np.testing.assert_allclose(snapshot.scores, np.log([8.0, 2.0]), rtol=1e-6)


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 2), st.integers(-2, 3)), max_size=30))
def test_totals_that_follow_what_changed_are_those_made_anew(changes):
    window = TrendWindow(((0, 0.25), (1, 1.0), (2, 1.0)))
    days: dict[int, dict[str, int]] = {0: {"d": 2}, 1: {"b": 1}}
    totals = WindowTotals(window, days)
    for article_id, day, count in changes:
        days.setdefault(day, {})[article_id] = count
        totals.update({article_id}, days)
    sales = {
        name: total
        for name in "abcdefg"
        if (total := sum(weight * days.get(day, {}).get(name, 0) for day, weight in window.days)) > 0
    }
    snapshot = totals.snapshot()
    assert snapshot.sales == sales
    assert snapshot.article_ids == TrendSnapshot(sales).article_ids
    assert snapshot.article_ids == tuple(sorted(sales, key=lambda name: (-sales[name], name)))
