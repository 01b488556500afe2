"""What training sees where each customer's last order is held out: nothing of it, nor of what led to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from searching_shops import Result, Step, write_searching_shop
from small_runs import DAY, START, write_shop

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from offline.config import Config
from offline.context import known_purchases, make_split
from offline.hold_out import HeldOut, Protocol, training_data

TITLES = {name: f"{name} thing" for name in "abcdef"}


def held_out(data: DataSet, protocol: Protocol = "last_order") -> DataSet:
    return training_data(data, protocol)


def last_orders(data: DataSet, protocol: Protocol = "last_order") -> dict[str, set[str]]:
    held = HeldOut.of(data, protocol)
    assert held is not None
    names = [held.purchases.customer_ids[index] for index in held.customer]
    found: dict[str, set[str]] = {name: set() for name in names}
    for row in held.rows:
        found[held.purchases.customer_ids[held.purchases.customer[row]]].add(
            data.article_ids[held.purchases.article[row]]
        )
    return found


def known(data: DataSet) -> list[tuple[str, str]]:
    purchases = data.purchases()
    return [
        (purchases.customer_ids[customer], data.article_ids[article])
        for customer, article in zip(purchases.customer, purchases.article, strict=True)
    ]


def test_a_last_order_has_all_articles_of_its_time(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "b", 2), ("ann", "c", 2), ("bob", "a", 3), ("cid", "d", 4), ("cid", "d", 5)]
    data = write_shop(tmp_path / "shop", list("abcd"), rows)
    assert last_orders(data) == {"ann": {"b", "c"}, "cid": {"d"}}
    assert known(held_out(data)) == [("ann", "a"), ("bob", "a"), ("cid", "d")]


def test_who_ordered_once_stays_whole_and_is_not_asked_for(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop", list("ab"), [("ann", "a", 1), ("ann", "b", 1)])
    assert last_orders(data) == {}
    assert known(held_out(data)) == [("ann", "a"), ("ann", "b")]


def test_an_order_that_went_back_was_none_and_a_later_return_is_not_known(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "b", 2), ("ann", "c", 3)]
    back = write_shop(tmp_path / "back", list("abc"), rows, returns=[("ann", "c", 4)])
    assert last_orders(back) == {"ann": {"b"}}
    assert known(held_out(back)) == [("ann", "a")]
    later = write_shop(tmp_path / "later", list("abc"), rows, returns=[("ann", "b", 4)])
    assert last_orders(later) == {"ann": {"c"}}
    assert known(held_out(later)) == [("ann", "a")]  # b, and that it went back, came after the last that was kept


def test_a_last_purchase_is_one_article_and_the_rest_of_its_order_is_known(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "c", 2), ("ann", "b", 2), ("bob", "a", 3), ("cid", "d", 4), ("cid", "d", 5)]
    data = write_shop(tmp_path / "shop", list("abcd"), rows)
    assert last_orders(data, "last_purchase") == {"ann": {"b"}, "cid": {"d"}}  # events are numbered in this order
    assert known(held_out(data, "last_purchase")) == [("ann", "a"), ("ann", "c"), ("bob", "a"), ("cid", "d")]
    assert seen(held_out(data, "last_purchase")) == known(held_out(data, "last_purchase"))


def test_what_is_left_can_lose_its_end_once_more_and_nothing_comes_back(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "b", 2), ("ann", "c", 3), ("bob", "a", 3), ("cid", "d", 4), ("cid", "b", 5)]
    once = held_out(write_shop(tmp_path / "shop", list("abcd"), rows))
    assert last_orders(once) == {"ann": {"b"}}
    twice = held_out(once)
    assert known(twice) == seen(twice) == [("ann", "a"), ("bob", "a"), ("cid", "d")]
    assert len({data.fingerprint for data in (once, twice)}) == 2
    purchase = held_out(held_out(DataSet.open(tmp_path / "shop"), "last_purchase"), "last_purchase")
    assert known(purchase) == known(twice)


def test_the_end_of_what_is_left_is_what_training_is_validated_by(tmp_path: Path) -> None:
    rows = [("ann", "a", 1), ("ann", "b", 2.5), ("ann", "c", 2.5), ("ann", "d", 9), ("bob", "a", 3), ("bob", "c", 8)]
    rows += [("cid", "d", 4), ("cid", "b", 5.5), ("cid", "a", 7), ("cid", "c", 6.5)]
    stock = {**dict.fromkeys("abc", (0, None)), "d": (20, None)}  # stock plays no part
    data = held_out(write_shop(tmp_path / "shop", list("abcd"), rows, stock=stock))
    config = Config.model_validate({"split": {"hold_out": "last_order"}})
    of_all = known_purchases(data, make_split(data, config), config)
    assert known(held_out(data)) == [("ann", "a"), ("bob", "a"), ("cid", "d"), ("cid", "b")]
    assert len(of_all.training) == 4
    assert len(of_all.all) == 4 + 3  # what is kept for evaluation is in neither
    window = of_all.window
    assert window.customers == ["ann", "cid"]
    assert window.times.tolist() == [START + 2.5 * DAY, START + 6.5 * DAY]
    assert of_all.sales_until.tolist() == [START + 2 * DAY, START + 6 * DAY]
    assert window.candidates.tolist() == [0, 1, 2, 3]
    assert sorted(zip(window.row.tolist(), window.target.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]


def test_where_nobody_has_ordered_three_times_there_is_none_to_validate_by(tmp_path: Path) -> None:
    data = held_out(write_shop(tmp_path / "shop", list("ab"), [("ann", "a", 1), ("ann", "b", 2)]))
    config = Config.model_validate({"split": {"hold_out": "last_order"}})
    with pytest.raises(TrainingError, match="bought a third time"):
        known_purchases(data, make_split(data, config), config)


def test_by_time_nothing_is_left_out_here(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop", ["a"], [("ann", "a", 1), ("ann", "a", 2)])
    assert HeldOut.of(data, "by_time") is None
    assert training_data(data, "by_time") is data


STEPS: Sequence[Step] = [
    ("search", "ann", "red", 1),
    ("purchase", "ann", "a", 2),
    ("search", "ann", "blue", 24),
    ("click", "ann", "b", 24.5),
    ("purchase", "ann", "b", 25),
    ("click", "ann", "c", 30),
    ("search", "bob", "blue", 26),
    ("purchase", "bob", "c", 27),
]
RESULTS: Sequence[Result] = [("red", "a", 1, 1), ("blue", "b", 1, 24), ("blue", "c", 1, 26), ("blue", "d", 1, None)]


def seen(data: DataSet) -> list[tuple[str, Any]]:
    rows = [row for batch in data.events() for row in batch.to_pylist()]
    return [(row["customer_id"], row["article_id"] or row["query"]) for row in rows]


def test_what_led_to_the_last_order_and_what_followed_is_gone_with_it(tmp_path: Path) -> None:
    data = held_out(write_searching_shop(tmp_path / "shop", TITLES, STEPS, RESULTS))
    assert seen(data) == [("ann", "red"), ("ann", "a"), ("bob", "blue"), ("bob", "c")]
    shown = [(row["query"], row["article_id"]) for batch in data.search_results() for row in batch.to_pylist()]
    assert shown == [("red", "a"), ("blue", "c"), ("blue", "d")]


def test_training_sees_the_same_whatever_was_ordered_last(tmp_path: Path) -> None:
    other = [("search", "ann", "green", 24.6), ("click", "ann", "e", 24.7), ("purchase", "ann", "f", 25.5)]
    other_steps: Sequence[Step] = [*STEPS[:2], *other, *STEPS[6:]]
    other_results: Sequence[Result] = [RESULTS[0], ("green", "e", 1, 24.6), *RESULTS[2:]]
    one = held_out(write_searching_shop(tmp_path / "one", TITLES, STEPS, RESULTS))
    two = held_out(write_searching_shop(tmp_path / "two", TITLES, other_steps, other_results))
    assert seen(one) == seen(two)
    assert known(one) == known(two)
    assert [batch.to_pylist() for batch in one.search_results()] == [
        batch.to_pylist() for batch in two.search_results()
    ]


def test_the_same_orders_held_out_have_the_same_fingerprint_and_not_that_of_all(tmp_path: Path) -> None:
    data = write_searching_shop(tmp_path / "shop", TITLES, STEPS)
    assert held_out(data).fingerprint == held_out(DataSet.open(data.folder)).fingerprint
    assert held_out(data).fingerprint != data.fingerprint


@pytest.mark.parametrize(("hold_out", "test_days"), [("by_time", 7), ("last_order", 0), ("last_purchase", 0)])
def test_where_orders_are_held_out_no_days_are(tmp_path: Path, hold_out: str, test_days: int) -> None:
    data = write_shop(tmp_path / "shop", ["a"], [("ann", "a", 1), ("ann", "a", 60.5)])
    split = make_split(data, Config.model_validate({"split": {"hold_out": hold_out}}))
    assert split.hold_out == hold_out
    assert split.cutoff == START + (61 - test_days) * DAY
