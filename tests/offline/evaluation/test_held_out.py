"""The protocol by orders: what is asked for, among which candidates, with what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small_runs import DAY, START, make_run, write_shop
from tiny_shops import tiny_shop

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, InvalidData
from model_store.time_features import TimeSpec, encode_history
from offline.article_tables import load_networks
from offline.evaluation.backtest import Options, run_backtest
from offline.evaluation.held_out import make_held_out_task
from offline.evaluation.task import KNOWN, NEW, Task
from offline.export import export
from offline.hold_out import HeldOut, Protocol, training_data
from offline.progress import Silent
from offline.run import Run

END = START + 120 * DAY
ROWS = [
    ("ann", "a", 1),
    ("ann", "b", 10),
    ("ann", "c", 10),
    ("bob", "b", 8),
    ("bob", "a", 9),
    ("cid", "d", 5),
    ("dan", "b", 2),
    ("dan", "b", 12),
    ("dan", "b", 12),
]


@pytest.fixture
def shop(tmp_path: Path) -> DataSet:
    """Only a, b and d are in training: c was ordered last only, e never. The stock table plays no part."""
    return write_shop(tmp_path / "shop", list("abcde"), ROWS, stock={"a": (0, 1)})


def task_of(data: DataSet, protocol: Protocol = "last_order") -> Task:
    held = HeldOut.of(data, protocol)
    assert held is not None
    return make_held_out_task(data, held, held.left_out_of(data).purchases())


def names(data: DataSet, task: Task, customer: str, *, first_time: bool = False) -> set[str]:
    targets = task.first_time if first_time else task.targets
    low, high = targets.offsets[task.customer_ids.index(customer) :][:2]
    return {data.article_ids[task.candidates[place]] for place in targets.candidate[low:high]}


def test_each_last_order_is_looked_for_among_all_articles(shop: DataSet) -> None:
    task = task_of(shop)
    assert [shop.article_ids[index] for index in task.candidates] == ["a", "b", "d", "c", "e"]
    assert task.customer_ids == ["ann", "bob", "dan"]
    assert [names(shop, task, customer) for customer in task.customer_ids] == [{"b", "c"}, {"a"}, {"b"}]
    assert sorted(task.targets.tier.tolist()) == [KNOWN, KNOWN, KNOWN, NEW]
    assert task.repeated == 1
    assert not task.stock_tells_sales


def test_first_time_targets_leave_out_what_was_bought_before(shop: DataSet) -> None:
    task = task_of(shop)
    assert names(shop, task, "ann", first_time=True) == {"b", "c"}
    assert names(shop, task, "dan", first_time=True) == set()


def test_where_one_purchase_is_left_out_the_others_at_its_time_are_known(shop: DataSet) -> None:
    task = task_of(shop, "last_purchase")
    assert [names(shop, task, customer) for customer in ("ann", "bob", "dan")] == [{"c"}, {"a"}, {"b"}]
    assert task.history_sizes.tolist() == [2, 1, 2]
    assert names(shop, task, "dan", first_time=True) == set()
    assert task.protocol == "last_purchase"


def test_each_customer_is_asked_for_when_the_order_began_with_what_was_known_then(shop: DataSet) -> None:
    task = task_of(shop)
    assert task.moment.tolist() == [START + day * DAY for day in (10, 9, 12)]
    assert task.history_sizes.tolist() == [1, 1, 1]
    sales = [
        task.recent.before(moment)[task.candidates].tolist() for moment in task.moment.tolist()
    ]  # of a, b, d, c, e
    assert sales == [[0, 1, 1, 0, 0], [0, 2, 1, 0, 0], [0, 1, 1, 0, 0]]


def test_a_shop_in_which_nobody_came_back_has_nothing_to_rank(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop", ["a"], [("ann", "a", 1), ("bob", "a", 2)])
    with pytest.raises(InvalidData, match="no customer has bought more than once"):
        task_of(data)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=40, customers=60, planted=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: DataSet) -> Run:
    known = training_data(tiny, "last_order")
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", known, END, hold_out="last_order")


def orders_of(data: DataSet) -> dict[int, list[tuple[int, list[int]]]]:
    """Time and articles of each order, customer by customer, told apart by nothing but their time."""
    purchases, orders = data.purchases(), dict[int, list[tuple[int, list[int]]]]()
    for customer, article, time in zip(purchases.customer, purchases.article, purchases.timestamp, strict=True):
        of_customer = orders.setdefault(int(customer), [])
        if not of_customer or of_customer[-1][0] != time:
            of_customer.append((int(time), []))
        of_customer[-1][1].append(int(article))
    return orders


def test_figures_agree_with_an_independent_account(tiny: DataSet, run: Run) -> None:
    """Order by order through torch and scikit-learn, sharing nothing with the backtest but the data."""
    dna, spec = run.load_arrays("article_dna")["dna"], run.load_model("time_spec", TimeSpec)
    network, aucs, sold = load_networks(run)[2], [], list[float]()
    orders = {customer: all_of for customer, all_of in orders_of(tiny).items() if len(all_of) > 1}
    single = [all_of for all_of in orders_of(tiny).values() if len(all_of) == 1]
    known = [order for all_of in orders.values() for order in all_of[:-1]] + [order for [order] in single]
    for all_of in orders.values():
        time, articles = all_of[-1]
        earlier = [(article, when) for when, several in all_of[:-1] for article in several]
        bought = np.isin(np.arange(len(dna)), articles)
        steps = encode_history(spec, dna[[article for article, _ in earlier]], np.array([w for _, w in earlier]), time)
        with torch.no_grad():
            style = network(torch.from_numpy(steps)[None])[0][0, -1].numpy()
        aucs += [roc_auc_score(bought, dna @ style)] * int(bought.sum())
        week = [article for when, several in known if time - 7 * DAY <= when < time for article in several]
        sold += [roc_auc_score(bought, np.bincount(week, minlength=len(dna)))] * int(bought.sum())
    result = run_backtest(tiny, run, Options(samples=20), Silent())
    [every] = [table for table in result.tables if table.table.name == "all"]
    assert every.purchases == len(aucs)
    assert every.models["dynamic"]["auc"].value == pytest.approx(np.mean(aucs), abs=1e-6)
    assert every.models["popularity"]["auc"].value == pytest.approx(np.mean(sold), abs=1e-6)


def test_a_run_is_only_evaluated_on_what_was_held_out_of_it(tmp_path: Path, tiny: DataSet, run: Run) -> None:
    with pytest.raises(InvalidConfig, match="evaluated whenever it was"):
        run_backtest(tiny, run, Options(days=7), Silent())
    by_all = make_run(tmp_path / "run", tiny, END, hold_out="last_order")
    with pytest.raises(InvalidConfig, match="other content"):
        run_backtest(tiny, by_all, Options(), Silent())


def test_no_bundle_is_made_of_a_run_without_last_orders(tmp_path: Path, tiny: DataSet, run: Run) -> None:
    with pytest.raises(InvalidConfig, match="without the end of each history"):
        export(run, tiny, tmp_path / "store", "v1", created="2026-01-01T00:00:00Z", progress=Silent())
    assert not (tmp_path / "store").exists()
