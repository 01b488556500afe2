"""Known answers for the slices by age and by popularity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from small_runs import DAY, START, write_shop

from model_store.dataset import DataSet
from offline.evaluation.held_out import make_held_out_task
from offline.evaluation.slices import DECILES, NOT_TOLD, ages, deciles, popularity_deciles
from offline.evaluation.tables import AGE, HISTORY, POPULARITY, tables
from offline.evaluation.task import Task, Window
from offline.evaluation.window import make_task
from offline.hold_out import HeldOut

NAMES = ["week", "month", "season", "old", "unsold"]
BEFORE = [("bob", "week", 45.5), ("bob", "month", 30), ("bob", "season", -20), ("bob", "old", -60), ("bob", "old", 49)]


def task_of(data: DataSet) -> Task:
    return make_task(data, Window(START + 50 * DAY, START + 60 * DAY))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """ann buys everything on day 51, cid the same articles later."""
    rows = [("ann", name, 51) for name in NAMES] + [("cid", name, 57) for name in NAMES]
    return task_of(write_shop(tmp_path / "shop", NAMES, [*BEFORE, *rows]))


def chosen(task: Task, name: str) -> set[tuple[str, str]]:
    [table] = [table for table in tables(task, stock_tells_sales=False) if table.name == name]
    return {
        (task.customer_ids[who], NAMES[task.candidates[what]])
        for who, what in zip(task.targets.customer[table.chosen], task.targets.candidate[table.chosen], strict=True)
    }


def test_an_article_is_as_old_as_its_first_known_sale_when_it_is_ranked_for_the_customer(task: Task) -> None:
    assert chosen(task, "age_week") == {("ann", "week")}
    assert chosen(task, "age_4_weeks") == {("cid", "week"), ("ann", "month"), ("cid", "month")}
    assert chosen(task, "age_12_weeks") == {("ann", "season"), ("cid", "season")}
    assert chosen(task, "age_older") == {("ann", "old"), ("cid", "old")}
    assert chosen(task, "age_not_told") == {("ann", "unsold"), ("cid", "unsold")}


def test_where_it_is_told_when_an_article_was_created_that_counts(task: Task) -> None:
    created = np.array([START + day * DAY for day in (51, 55, -1_000, 44, 40)])
    told = replace(task, created_at=created)
    of = dict(zip(told.candidates[told.targets.candidate[:5]].tolist(), ages(told)[:5] / DAY, strict=True))
    days = dict(zip(told.candidates.tolist(), (51 - (created - START) / DAY).tolist(), strict=True))
    assert of == {article: max(day, 0) for article, day in days.items()}  # created after ann's moment: 0 days old


def test_a_sale_that_comes_after_the_moment_tells_no_age(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "b", 5), ("bob", "b", 7), ("bob", "b", 8)]
    data = write_shop(tmp_path / "shop", ["a", "b"], rows)
    held = HeldOut.of(data, "last_order")
    assert held is not None
    task = make_held_out_task(data, held, held.left_out_of(data).purchases())
    assert task.customer_ids == ["ann", "bob"]
    assert ages(task).tolist() == [NOT_TOLD, DAY]  # b's first sale that training knows was on day 7
    assert popularity_deciles(task).tolist() == [0, 6]  # on day 5 it had never sold; on day 8 it ties with a


def test_deciles_count_what_sold_before_and_not_in_the_window(tmp_path: Path) -> None:
    names = [f"a{index}" for index in range(12)]
    sold = [(f"c{number}", names[index], 40) for index in range(10) for number in range(10 - index)]
    window = [("ann", names[9], 51), ("ann", names[0], 52), ("ann", names[10], 53)]
    flood = [(f"d{number}", names[10], 52) for number in range(30)]
    task = task_of(write_shop(tmp_path / "shop", names, [*sold, *window, *flood]))
    ann = task.customer_ids.index("ann")
    found = {
        names[task.candidates[what]]: decile
        for who, what, decile in zip(
            task.targets.customer, task.targets.candidate, popularity_deciles(task).tolist(), strict=True
        )
        if who == ann
    }
    assert found == {"a0": 1, "a9": 10, "a10": 0}


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_deciles_agree_with_mean_ranks(sales: list[int]) -> None:
    found = deciles(np.array(sales, float))
    sold = np.array([count for count in sales if count])
    expected = np.ceil((rankdata(-sold) - 0.5) / max(len(sold), 1) * DECILES + 1e-9)
    np.testing.assert_array_equal(found[np.array(sales) > 0], np.minimum(expected, DECILES))
    assert not found[np.array(sales) == 0].any()


@pytest.mark.parametrize("name", [HISTORY, AGE, POPULARITY])
def test_the_groups_of_a_slice_hold_each_purchase_once(task: Task, name: str) -> None:
    groups = [one for one in tables(task, stock_tells_sales=False) if one.slice == name and one.name != "history_some"]
    assert np.sum([one.chosen for one in groups], axis=0).tolist() == [1] * len(task.targets.candidate)
    assert len({one.label for one in groups}) == len(groups)
