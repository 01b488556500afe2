"""What is shown first, against every order of what ties."""

from __future__ import annotations

from itertools import pairwise, permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances
from small_runs import DAY, START, write_shop

from offline.evaluation import first_ten as module
from offline.evaluation import ranks
from offline.evaluation.first_ten import FirstTen, FirstTenWatcher, Shown, Yardsticks, gini, measure_first_ten
from offline.evaluation.ranks import Targets, rank
from offline.evaluation.task import Task, Window
from offline.evaluation.window import make_task

CANDIDATES = 5


class Given:
    """A ranking whose scores (K, N) were worked out beforehand, and that tells how often it was asked."""

    name, parameters = "given", None

    def __init__(self, table: list[list[float]]):
        self._table, self.asked = np.array(table, np.float32), list[slice]()

    def scores(self, customers: slice) -> np.ndarray:
        self.asked.append(customers)
        return self._table[customers]


class Sales:
    """Sales of each candidate, whenever."""

    def __init__(self, counts: list[int]):
        self._counts = np.array(counts, float)

    def before(self, moment: int, days: int | None) -> np.ndarray:
        assert days is None
        return self._counts


def seen(scores: list[list[float]], dna: np.ndarray, sales: list[int]) -> FirstTen:
    customers, candidates = len(scores), len(scores[0])
    targets = Targets.among_all(np.arange(customers + 1), np.zeros(customers, np.int64), np.array([candidates] * 3))
    task: Any = SimpleNamespace(
        targets=targets,
        sales_until=np.zeros(customers, np.int64),
        recent=Sales(sales),
        candidates=np.arange(candidates),
    )
    watcher = FirstTenWatcher(Yardsticks(task, dna.astype(np.float32)))
    rank(Given(scores), [targets], lambda customers: None, [watcher])
    return watcher.found()


def orders(row: list[float]) -> list[list[int]]:
    """Every order of the candidates that their scores allow."""
    return [
        list(order)
        for order in permutations(range(len(row)))
        if all(row[one] >= row[two] for one, two in pairwise(order))
    ]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2), min_size=CANDIDATES, max_size=CANDIDATES), min_size=2, max_size=2))
def test_every_figure_is_its_mean_over_all_orders_of_what_ties(table: list[list[int]]) -> None:
    rng, places, sales = np.random.default_rng(0), 3, [4, 0, 2, 9, 1]
    dna, scores = rng.normal(size=(CANDIDATES, 8)), [[float(score) for score in row] for row in table]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TEN", places)
        found = seen(scores, dna, sales)
    distance = cosine_distances(dna.astype(np.float32))
    share = (np.array(sales) + 1) / (sum(sales) + CANDIDATES)
    tops = [[order[:places] for order in orders(row)] for row in scores]
    novelty = [np.mean([-np.log2(share[top]).mean() for top in several]) for several in tops]
    diversity = [np.mean([distance[np.ix_(top, top)].sum() / 6 for top in several]) for several in tops]
    np.testing.assert_allclose(found.novelty, novelty)
    np.testing.assert_allclose(found.diversity, diversity, atol=1e-6)
    both = list(product(*tops))
    absent = [np.mean([article not in one + two for one, two in both]) for article in range(CANDIDATES)]
    np.testing.assert_allclose(found.absent, absent, atol=1e-12)
    shown = [np.mean([(article in one) + (article in two) for one, two in both]) for article in range(CANDIDATES)]
    np.testing.assert_allclose(found.shown, shown)


def test_a_model_that_knows_nothing_shows_everything_alike() -> None:
    found = seen([[0.0] * 40] * 3, np.eye(40), [1] * 40)
    assert found.shown.tolist() == pytest.approx([3 * 10 / 40] * 40)
    assert found.absent.tolist() == pytest.approx([(3 / 4) ** 3] * 40)
    assert found.diversity.tolist() == pytest.approx([1.0] * 3)
    assert found.novelty.tolist() == pytest.approx([np.log2(40)] * 3)


def test_the_ten_are_taken_wherever_they_stand_and_shorter_where_there_are_fewer() -> None:
    scores = [[float(-abs(place - 30)) - place / 100 for place in range(60)]]
    assert np.flatnonzero(seen(scores, np.eye(60), [0] * 60).shown).tolist() == list(range(25, 35))
    few = seen([[1.0, 2.0, 3.0]], np.ones((3, 4)), [0, 0, 0])
    assert few.shown.tolist() == [1, 1, 1]
    assert few.diversity.tolist() == pytest.approx([0.0])
    assert np.isnan(seen([[1.0]], np.ones((1, 4)), [0]).diversity).all()


def test_a_part_at_a_time_gives_what_all_together_give(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    scores, dna, sales = rng.integers(0, 4, (9, 30)).tolist(), rng.normal(size=(30, 8)), rng.integers(0, 9, 30).tolist()
    together = seen(scores, dna, sales)
    monkeypatch.setattr(ranks, "_SCORES_AT_ONCE", 65)  # two customers at a time
    apart = seen(scores, dna, sales)
    for name in ("shown", "absent", "novelty", "diversity"):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name))


@settings(deadline=None, max_examples=60)
@given(st.integers(7, 40), st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_ten_are_found_by_groups_as_by_sorting(candidates: int, several: int, seed: int, same: float) -> None:
    """Many scores tie, few do, or nearly all of them at once; the last group is shorter than the others."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 1 + several, (4, candidates)).astype(float)
    scores[rng.random(scores.shape) < same] = rng.integers(0, 1 + several)
    dna, sales = rng.normal(size=(candidates, 8)), rng.integers(0, 9, candidates).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TEN", 3)
        at_once = seen(scores.tolist(), dna, sales)
        patch.setattr(module, "_GROUP", 2)
        by_groups = seen(scores.tolist(), dna, sales)
    for name in ("shown", "absent", "novelty", "diversity"):
        np.testing.assert_allclose(getattr(by_groups, name), getattr(at_once, name), atol=1e-12)


def test_customers_are_scored_once_for_everything() -> None:
    targets = Targets.among_all(np.arange(3), np.zeros(2, np.int64), np.array([4, 4, 4]))
    task: Any = SimpleNamespace(
        targets=targets, sales_until=np.zeros(2, np.int64), recent=Sales([0] * 4), candidates=np.arange(4)
    )
    ranking = Given([[1, 2, 3, 4], [4, 3, 2, 1]])
    watcher = FirstTenWatcher(Yardsticks(task, np.eye(4, dtype=np.float32)))
    rank(ranking, [targets, targets], lambda customers: None, [watcher])
    assert ranking.asked == [slice(0, 2)]


def test_sales_are_those_known_when_the_window_starts(tmp_path: Path) -> None:
    rows = [("bob", "a", 1), ("bob", "a", 2), ("bob", "b", 3), ("ann", "c", 51), ("cid", "c", 52)]
    task: Task = make_task(write_shop(tmp_path / "shop", list("abc"), rows), Window(START + 50 * DAY, START + 60 * DAY))
    watcher = FirstTenWatcher(Yardsticks(task, np.eye(3, dtype=np.float32)))
    watcher.see(slice(0, 2), np.zeros((2, 3), np.float32))
    assert watcher.found().novelty.tolist() == pytest.approx([-np.log2([3 / 6, 2 / 6, 1 / 6]).mean()] * 2)


def first_ten(shown: list[float], absent: list[float], each: list[float]) -> FirstTen:
    return FirstTen(*(np.array(values, float) for values in (shown, absent, each, each)))


def test_windows_are_pooled_article_by_article_and_customer_by_customer() -> None:
    one = Shown(np.array([7, 3]), np.array([0, 1]), {"m": first_ten([2, 0], [0, 1], [1, 2])})
    two = Shown(np.array([3, 9]), np.array([1]), {"m": first_ten([1, 0.5], [0, 0.5], [6])})
    found = measure_first_ten([one, two], 2, 400, 0)["m"]
    assert found.coverage == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.gini == pytest.approx(gini(np.array([2, 1, 0.5])))
    assert found.novelty.value == pytest.approx(3)
    assert (found.novelty.low, found.novelty.high) == (1, 4)  # customer 0 alone, customer 1 alone with both windows
    again = measure_first_ten([one, two], 2, 400, 0)["m"]
    assert again == found


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_gini_is_half_the_mean_difference_over_the_mean(values: list[float]) -> None:
    shown = np.array(values)
    expected = np.abs(shown[:, None] - shown[None]).mean() / (2 * shown.mean()) if shown.mean() else 0.0
    assert gini(shown) == pytest.approx(expected, abs=1e-9)
