from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import DAY, START, write_shop

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, InvalidData
from offline.evaluation.task import KNOWN, NEW, RECENT, Task, Window
from offline.evaluation.window import choose_windows, make_task

OPENS, CLOSES = START + 50 * DAY, START + 60 * DAY
STOCK = {
    "old": (0, None),
    "recent": (0, None),
    "fresh": (0, None),
    "late": (55, None),
    "gone": (0, 40),
    "after": (61, None),
}
PURCHASES = [
    ("ann", "old", 1),
    ("bob", "recent", 47),
    ("bob", "recent", 48),
    ("bob", "gone", 30),
    # the window
    ("ann", "fresh", 52.5),
    ("ann", "old", 51),
    ("ann", "fresh", 58),
    ("cid", "late", 56),
    ("cid", "recent", 57),
    ("dan", "gone", 53),
    ("bob", "recent", 60),  # at the very end: outside
]


@pytest.fixture
def shop(tmp_path: Path) -> DataSet:
    return write_shop(tmp_path / "shop", list(STOCK), PURCHASES, stock=STOCK)


def names(data: DataSet, task: Task) -> list[str]:
    return [data.article_ids[index] for index in task.candidates]


def bought(data: DataSet, task: Task, customer: str) -> set[str]:
    index = task.customer_ids.index(customer)
    low, high = task.targets.offsets[index : index + 2]
    return {names(data, task)[place] for place in task.targets.candidate[low:high]}


def test_candidates_were_in_stock_at_some_moment_and_come_by_tier(shop: DataSet) -> None:
    task = make_task(shop, Window(OPENS, CLOSES))
    assert names(shop, task) == ["recent", "old", "fresh", "late"]
    assert task.targets.tier_ends.tolist() == [1, 2, 4]
    assert (task.new_candidates, task.new_candidates_bought) == (2, 2)
    assert task.entering.tolist() == [False, False, False, True]


def test_customers_are_ranked_for_at_their_first_purchase_of_the_window(shop: DataSet) -> None:
    task = make_task(shop, Window(OPENS, CLOSES))
    assert task.customer_ids == ["ann", "cid"]
    assert task.moment.tolist() == [START + 51 * DAY, START + 56 * DAY]
    assert bought(shop, task, "ann") == {"old", "fresh"}
    assert bought(shop, task, "cid") == {"late", "recent"}
    assert sorted(task.targets.tier.tolist()) == sorted([KNOWN, NEW, RECENT, NEW])


def test_a_customers_first_order_is_told_from_later_ones(shop: DataSet) -> None:
    task = make_task(shop, Window(OPENS, CLOSES))
    first = {
        (task.customer_ids[k], names(shop, task)[place])
        for k, place, chosen in zip(task.targets.customer, task.targets.candidate, task.first_order, strict=True)
        if chosen
    }
    assert first == {("ann", "old"), ("cid", "late")}


def test_repeats_count_once_and_what_was_never_in_stock_is_left_out(shop: DataSet) -> None:
    task = make_task(shop, Window(OPENS, CLOSES))
    assert (len(task.targets.candidate), task.repeated, task.out_of_stock) == (4, 1, 1)


def test_history_and_sales_end_where_the_window_starts(shop: DataSet) -> None:
    task = make_task(shop, Window(OPENS, CLOSES))
    assert task.history.timestamp.max() < OPENS
    assert task.history_sizes.tolist() == [1, 0]
    assert task.recent.before(OPENS)[task.candidates].tolist() == [2, 0, 0, 0]
    assert task.average_sales[7] == pytest.approx(2 / 3)  # old, recent and fresh were in stock in that week


def test_nothing_but_the_targets_depends_on_what_the_window_sold(tmp_path: Path, shop: DataSet) -> None:
    before = [row for row in PURCHASES if row[2] < 50]
    other = write_shop(tmp_path / "other", list(STOCK), [*before, ("eve", "fresh", 52)], stock=STOCK)
    one, two = (make_task(data, Window(OPENS, CLOSES)) for data in (shop, other))
    for field in ("candidates", "entering"):
        assert getattr(one, field).tolist() == getattr(two, field).tolist()
    assert one.recent.before(OPENS).tolist() == two.recent.before(OPENS).tolist()
    assert one.targets.tier_ends.tolist() == two.targets.tier_ends.tolist()
    assert one.average_sales == two.average_sales


def test_returns_known_when_the_window_opens_take_their_purchase_out(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "b", 2), ("ann", "c", 52), ("ann", "a", 53)]
    data = write_shop(tmp_path / "shop", ["a", "b", "c"], rows, returns=[("ann", "a", 10), ("ann", "b", 55)])
    task = make_task(data, Window(OPENS, CLOSES))
    assert [data.article_ids[index] for index in task.history.article] == ["b"]
    assert bought(data, task, "ann") == {"a", "c"}


def test_first_time_purchases_leave_out_what_the_customer_had_before(shop: DataSet) -> None:
    task = make_task(shop, Window(OPENS, CLOSES))
    ann = task.customer_ids.index("ann")
    shown = {names(shop, task)[place] for place in task.first_time.hidden_from(ann)}
    low, high = task.first_time.offsets[ann : ann + 2]
    assert shown == {"old"}
    assert [names(shop, task)[place] for place in task.first_time.candidate[low:high]] == ["fresh"]
    assert task.first_time.hidden_from(task.customer_ids.index("cid")).tolist() == []


def test_stock_that_tells_sales_is_noticed(tmp_path: Path) -> None:
    stock = {**STOCK, "idle": (0, None)}  # known, and not bought in the window
    betrayed = write_shop(tmp_path / "betrayed", list(stock), [*PURCHASES, ("eve", "idle", 2)], stock=stock)
    assert make_task(betrayed, Window(OPENS, CLOSES)).stock_tells_sales
    stock |= {"shelf": (0, None), "rack": (0, None)}  # never sold at all
    honest = write_shop(tmp_path / "honest", list(stock), [*PURCHASES, ("eve", "idle", 2)], stock=stock)
    assert not make_task(honest, Window(OPENS, CLOSES)).stock_tells_sales


def test_a_shop_in_which_everything_sells_tells_nothing(shop: DataSet) -> None:
    assert not make_task(shop, Window(OPENS, CLOSES)).stock_tells_sales


def test_a_window_in_which_nothing_in_stock_was_bought_is_refused(shop: DataSet) -> None:
    with pytest.raises(InvalidData, match="nobody bought an article in stock between 2024-02-03"):
        make_task(shop, Window(START + 80 * DAY, START + 90 * DAY))


def test_the_window_runs_from_the_cutoff_to_the_end_unless_told_otherwise(shop: DataSet) -> None:
    assert choose_windows(shop, OPENS) == [Window(OPENS, START + 60 * DAY + 1)]
    assert choose_windows(shop, OPENS, until=CLOSES, days=3) == [Window(CLOSES - 3 * DAY, CLOSES)]


def test_several_windows_lie_end_to_end_and_are_weeks_unless_told_otherwise(shop: DataSet) -> None:
    end = START + 60 * DAY + 1
    first, second = choose_windows(shop, OPENS - 60 * DAY, count=2)
    assert (first, second) == (Window(end - 14 * DAY, end - 7 * DAY), Window(end - 7 * DAY, end))
    assert choose_windows(shop, OPENS - 60 * DAY, until=CLOSES, days=2, count=3)[0].start == CLOSES - 6 * DAY


@pytest.mark.parametrize(
    ("cutoff", "until", "days", "count", "message"),
    [
        (
            OPENS,
            None,
            11,
            1,
            "the window would start on 2024-01-03 00:00, before the run.s cut-off of 2024-01-04",
        ),
        (OPENS, None, 6, 2, "the first window would start on 2024-01-02 00:00.*: choose fewer days or windows"),
        (CLOSES + 1, None, None, 1, "nothing to evaluate on between"),
        (OPENS, OPENS, None, 1, "nothing to evaluate on between"),
    ],
)
def test_a_window_that_cannot_be_is_refused(shop, cutoff, until, days, count, message) -> None:
    with pytest.raises(InvalidConfig, match=message):
        choose_windows(shop, cutoff, until, days, count)
