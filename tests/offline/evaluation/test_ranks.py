from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from model_store.errors import TrainingError
from offline.evaluation import ranks as module
from offline.evaluation.first_ten import FirstTenWatcher, Yardsticks
from offline.evaluation.ranks import TIERS, Places, Targets, rank

EVERY = range(TIERS)


@dataclass(frozen=True)
class Given:
    """A ranking whose scores (K, N) were worked out beforehand."""

    table: np.ndarray
    name: str = "given"
    parameters: int | None = None

    def scores(self, customers: slice) -> np.ndarray:
        return self.table[customers]


def places(scores: list[list[float]], bought: list[list[int]], tier_ends: list[int], tiers=EVERY, only=None) -> Places:
    targets = Targets.among_all(
        np.concatenate([[0], np.cumsum([len(own) for own in bought])]),
        np.array([article for own in bought for article in own], dtype=np.int64),
        np.array(tier_ends),
    )
    [counted] = rank(Given(np.array(scores, dtype=np.float32)), [targets], lambda customers: None)
    chosen = np.isin(targets.tier, list(tiers)) if only is None else np.array(only)
    return counted.places(tiers, chosen)


def test_positions_are_counted_from_the_best() -> None:
    found = places([[0.1, 0.9, 0.5, 0.7]], [[0, 1]], [4, 4, 4])
    assert found.above.tolist() == [3, 0]
    assert found.tied.tolist() == [1, 1]
    assert found.auc.tolist() == [0.0, 1.0]


def test_equal_scores_count_half() -> None:
    found = places([[0.5, 0.5, 0.5, 0.1]], [[0]], [4, 4, 4])
    assert (found.above.tolist(), found.tied.tolist()) == ([0], [3])
    assert found.auc.tolist() == pytest.approx([(1 + 2 / 2) / 3])


def test_other_purchases_of_the_customer_are_not_held_against_one() -> None:
    found = places([[3, 2, 1, 0]], [[0, 1]], [4, 4, 4])
    assert found.above.tolist() == [0, 1]
    assert found.auc.tolist() == [1.0, 1.0]


def test_only_the_tables_tiers_are_ranked() -> None:
    scores, bought, tier_ends = [[5, 1, 6, 2, 7, 3]], [[1, 3, 5]], [2, 4, 6]
    known = places(scores, bought, tier_ends, tiers=(0, 1))
    assert known.above.tolist() == [3, 2]
    assert known.auc.tolist() == [0.0, 0.0]
    new_only = places(scores, bought, tier_ends, tiers=(2,))
    assert new_only.above.tolist() == [1]
    new_among_all = places(scores, bought, tier_ends, only=[False, False, True])
    assert new_among_all.above.tolist() == [3]


def test_who_buys_everything_could_not_be_told_apart() -> None:
    assert places([[1, 2]], [[0, 1]], [2, 2, 2]).auc.tolist() == [0.5, 0.5]


def test_scores_that_are_not_finite_are_refused_by_the_models_name() -> None:
    with pytest.raises(TrainingError, match="given: scores are not finite"):
        places([[1.0, float("nan")]], [[0]], [2, 2, 2])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(3, 40), st.sampled_from([2, 5, 1_000]))
def test_auc_agrees_with_scikit_learn_per_customer(seed: int, customers: int, candidates: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (customers, candidates)).astype(np.float32)
    bought = [sorted(rng.choice(candidates, rng.integers(1, candidates), replace=False).tolist()) for _ in scores]
    tier_ends = [*sorted(rng.integers(0, candidates + 1, 2).tolist()), candidates]
    found = places(scores.tolist(), bought, tier_ends)
    for customer, (row, own) in enumerate(zip(scores, bought, strict=True)):
        expected = roc_auc_score(np.isin(np.arange(candidates), own), row)
        assert found.auc[found.customer == customer].mean() == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_every_set_of_tiers_agrees_with_sorting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (4, 12)).astype(np.float32)
    bought = [sorted(rng.choice(12, 3, replace=False).tolist()) for _ in scores]
    tier_ends = [3, 7, 12]
    for tiers in ((0,), (1,), (2,), (0, 1), (0, 1, 2)):
        found = places(scores.tolist(), bought, tier_ends, tiers=tiers)
        inside = [article for tier in tiers for article in range([0, *tier_ends][tier], tier_ends[tier])]
        expected = [
            (int((row[inside] > row[article]).sum()), int((row[inside] == row[article]).sum()))
            for row, own in zip(scores, bought, strict=True)
            for article in own
            if article in inside
        ]
        assert list(zip(found.above.tolist(), found.tied.tolist(), strict=True)) == expected


def test_customers_in_chunks_give_what_they_give_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(9, 20)).tolist()
    bought = [[int(rng.integers(20))] for _ in scores]
    together = places(scores, bought, [5, 9, 20])
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 45)  # two customers at a time
    apart = places(scores, bought, [5, 9, 20])
    assert together.above.tolist() == apart.above.tolist()
    assert together.auc.tolist() == apart.auc.tolist()


class Random:
    """Scores that are drawn when they are asked for."""

    name, parameters = "random", None

    def __init__(self, candidates: int):
        self._candidates = candidates

    def scores(self, customers: slice) -> np.ndarray:
        rng = np.random.default_rng(customers.start)
        return rng.random((customers.stop - customers.start, self._candidates), np.float32)


def test_memory_grows_with_customers_and_not_with_customers_times_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = 10_000
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 4 * candidates)

    def peak(customers: int) -> int:
        targets = Targets.among_all(
            np.arange(customers + 1), np.zeros(customers, np.int64), np.array([candidates] * TIERS)
        )
        rows: Any = SimpleNamespace(before=lambda moment, days: np.arange(float(candidates)))
        task: Any = SimpleNamespace(
            targets=targets,
            sales_until=np.zeros(customers, np.int64),
            recent=rows,
            candidates=np.arange(candidates),
        )
        yardsticks = Yardsticks(task, np.ones((candidates, 4), np.float32))
        tracemalloc.start()
        rank(Random(candidates), [targets, targets], lambda customers: None, [FirstTenWatcher(yardsticks)])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(8), peak(208)
    assert many - few < 200 * candidates  # a byte of each score would be as much
