"""The rankings that count, against counting by hand over dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import DAY, START, write_shop

from model_store.dataset import DataSet
from offline.evaluation.counting import co_purchase, markov, own_history
from offline.evaluation.ranks import Ranking
from offline.evaluation.task import Task, Window
from offline.evaluation.window import make_task

ARTICLES = list("abcdef")
Row = tuple[str, str, float]
Histories = dict[str, list[list[str]]]
"""Articles of each order of each customer, in order of time."""


def task_of(data: DataSet) -> Task:
    return make_task(data, Window(START + 50 * DAY, START + 60 * DAY))


def histories_of(rows: list[Row]) -> Histories:
    by_day: dict[str, dict[float, list[str]]] = defaultdict(lambda: defaultdict(list))
    for customer, article, day in sorted(rows, key=lambda row: row[2]):
        if day < 50:
            by_day[customer][day].append(article)
    return {customer: list(days.values()) for customer, days in by_day.items()}


def by_own_history(histories: Histories, customer: str) -> dict[str, float]:
    flat = [article for order in histories.get(customer, []) for article in sorted(order)]
    return {article: place for place, article in enumerate(flat, 1)}


def by_co_purchase(histories: Histories, customer: str) -> dict[str, float]:
    sets = {who: {article for order in orders for article in order} for who, orders in histories.items()}
    count = Counter(article for bought in sets.values() for article in bought)
    scores: dict[str, float] = defaultdict(float)
    for mine in sets.get(customer, set()):
        for other in ARTICLES:
            both = sum(mine in bought and other in bought for bought in sets.values())
            if other != mine and both:
                scores[other] += both / sqrt(count[mine] * count[other])
    return scores


def by_markov(histories: Histories, customer: str) -> dict[str, float]:
    pairs = Counter(
        (one, two)
        for orders in histories.values()
        for before, after in pairwise(orders)
        for one in set(before)
        for two in set(after)
    )
    latest = set(histories[customer][-1]) if customer in histories else set()
    scores: dict[str, float] = defaultdict(float)
    for one in latest:
        total = sum(count for (first, _), count in pairs.items() if first == one)
        for two in ARTICLES:
            scores[two] += pairs[one, two] / max(total, 1) / len(latest)
    return scores


rows = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "cid"]), st.sampled_from(ARTICLES), st.integers(1, 6).map(float)),
    max_size=25,
    unique=True,
)


@pytest.mark.parametrize(
    ("make", "by_hand"), [(own_history, by_own_history), (co_purchase, by_co_purchase), (markov, by_markov)]
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=rows)
def test_scores_are_those_of_counting_by_hand(
    make: Callable[[Task, int], Ranking],
    by_hand: Callable[[Histories, str], dict[str, float]],
    tmp_path_factory: pytest.TempPathFactory,
    before: list[Row],
) -> None:
    targets: list[Row] = [("ann", "a", 51), ("bob", "b", 52), ("new", "c", 53)]
    ordered = sorted(before, key=lambda row: (row[2], row[1]))  # ids of events, which order a day, go by row
    data = write_shop(tmp_path_factory.mktemp("data") / "shop", ARTICLES, [*ordered, *targets])
    task = task_of(data)
    scores = make(task, len(ARTICLES)).scores(slice(0, 3))
    names = [data.article_ids[row] for row in task.candidates]
    for customer, row in zip(task.customer_ids, scores, strict=True):
        expected = by_hand(histories_of(before), customer)
        np.testing.assert_allclose(row, [expected.get(name, 0.0) for name in names], rtol=1e-5)


def test_nobody_bought_anything_before(tmp_path: Path) -> None:
    task = task_of(write_shop(tmp_path / "shop", ["a", "b"], [("ann", "a", 51)]))
    for make in (own_history, co_purchase, markov):
        assert not make(task, 2).scores(slice(0, 1)).any()
