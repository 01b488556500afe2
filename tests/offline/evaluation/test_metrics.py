from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.evaluation import bootstrap as module
from offline.evaluation.bootstrap import Draws, bootstrap, figures_each
from offline.evaluation.bootstrap import figures as figures_of
from offline.evaluation.metrics import Coverage, Figures, Scorecard, estimate, resamples
from offline.evaluation.ranks import Places


def at_ranks(*ranks: int, candidates: int = 1_000) -> Places:
    """One purchase per customer, without ties, at 1-based ranks."""
    above = np.array(ranks) - 1
    return Places(np.arange(len(ranks)), above, np.ones_like(above), 1 - above / (candidates - 1))


def figures(places: Places, counts: list[float] | None = None) -> Figures:
    customers = int(places.customer.max()) + 1
    return figures_of(Scorecard(places), np.ones(customers) if counts is None else np.array(counts, dtype=float))


def test_hand_computed_figures() -> None:
    found = figures(at_ranks(1, 4, 11, 101, 1_000))
    assert found.auc == pytest.approx(1 - (0 + 3 + 10 + 100 + 999) / 999 / 5)
    assert found.recall_10 == pytest.approx(2 / 5)
    assert found.recall_100 == pytest.approx(3 / 5)
    assert found.ndcg_10 == pytest.approx((1 + 1 / np.log2(5)) / 5)
    assert found.mrr == pytest.approx((1 + 1 / 4 + 1 / 11 + 1 / 101 + 1 / 1_000) / 5)
    assert (found.cover_10, found.cover_50, found.cover_90) == (1, 11, 1_000)


def test_perfect_ranks_give_one() -> None:
    found = figures(at_ranks(1, 1, 1))
    assert (found.auc, found.recall_10, found.mrr, found.cover_90) == (1, 1, 1, 1)


def test_ties_are_taken_in_expectation() -> None:
    one_of_twenty = Places(np.array([0]), np.array([0]), np.array([20]), np.array([0.5]))
    found = figures(one_of_twenty)
    assert found.recall_10 == pytest.approx(0.5)
    assert found.ndcg_10 == pytest.approx(sum(1 / np.log2(1 + rank) for rank in range(1, 11)) / 20)
    assert found.mrr == pytest.approx(sum(1 / rank for rank in range(1, 21)) / 20)
    assert (found.cover_10, found.cover_50, found.cover_90) == (2, 10, 18)


def test_a_customer_drawn_twice_counts_twice() -> None:
    assert figures(at_ranks(1, 1_000), [3, 1]) == pytest.approx(figures(at_ranks(1, 1, 1, 1_000)))
    assert figures(at_ranks(1, 1_000), [0, 1]).auc == pytest.approx(0)


def test_no_purchases_give_no_figures() -> None:
    nothing = Places(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0))
    assert all(math.isnan(value) for value in figures_of(Scorecard(nothing), np.ones(4)))
    assert all(math.isnan(value) for value in figures(at_ranks(5), [0]))


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=30).filter(
        lambda rows: any(weight for _, _, weight in rows)
    )
)
def test_coverage_is_the_expected_number_found(rows: list[tuple[int, int, int]]) -> None:
    above, tied, weights = (np.array(column) for column in zip(*rows, strict=True))
    coverage = Coverage(above, tied)
    curve = coverage.curve(weights.astype(float))
    expected = [(weights * np.clip((j - above) / tied, 0, 1)).sum() for j in coverage.positions]
    np.testing.assert_allclose(curve, expected, atol=1e-9)

    def found(j: float) -> float:
        return float((weights * np.clip((j - above) / tied, 0, 1)).sum())

    shares = (0.1, 0.5, 0.9, 1.0)
    for share, needed in zip(shares, coverage.needed(weights.astype(float), shares), strict=True):
        assert found(needed) >= share * weights.sum() - 1e-6
        assert needed == 0 or found(needed - 1) < share * weights.sum() + 1e-6


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=60),
    st.floats(1e-4, 4),
)
def test_a_stretch_of_the_curve_is_enough_whatever_it_begins_with(
    rows: list[tuple[int, int, int]], spread: float
) -> None:
    """Against the whole curve of every sample, with weights of purchases instead of customers."""
    above, tied, customer = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.array(list(resamples(6, 40, 1))).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SPREAD", spread)
        patch.setattr(module, "_NUMBERS_AT_ONCE", 40)
        found = figures_each(Scorecard(Places(customer, above, tied, np.zeros(len(rows)))), Draws(counts))
    for sample, drawn in zip(found, counts.T, strict=True):
        weights = drawn[customer]
        if weights.any():
            assert sample[-3:].tolist() == Coverage(above, tied).needed(weights)
        else:
            assert np.isnan(sample).all()


def test_random_ranks_give_one_half_within_the_interval_and_nothing_more() -> None:
    rng = np.random.default_rng(3)
    card = Scorecard(at_ranks(*rng.integers(1, 1_001, 2_000)))
    values, sampled = bootstrap([card], 2_000, 200, 0, lambda samples: None)
    auc = estimate(values[0], sampled[:, 0])[0]
    assert auc.low < 0.5 < auc.high
    assert auc.high - auc.low < 0.04


def test_the_interval_of_a_mean_is_that_of_the_textbook() -> None:
    rng = np.random.default_rng(4)
    card = Scorecard(at_ranks(*rng.integers(1, 1_001, 1_000)))
    values, sampled = bootstrap([card], 1_000, 1_000, 0, lambda samples: None)
    auc = estimate(values[0], sampled[:, 0])[0]
    half_width = 1.96 * math.sqrt(1 / 12 / 1_000)
    assert auc.low == pytest.approx(auc.value - half_width, abs=0.004)
    assert auc.high == pytest.approx(auc.value + half_width, abs=0.004)


def test_customers_are_resampled_and_not_purchases() -> None:
    one_customer = Places(np.zeros(50, np.int64), np.arange(50), np.ones(50, np.int64), np.linspace(0, 1, 50))
    values, sampled = bootstrap([Scorecard(one_customer)], 1, 20, 0, lambda samples: None)
    assert (sampled == values).all()


def test_models_are_compared_on_the_same_resamples() -> None:
    ranks = np.random.default_rng(5).integers(2, 1_000, 300)
    cards = [Scorecard(at_ranks(*(ranks - 1))), Scorecard(at_ranks(*ranks))]
    _, sampled = bootstrap(cards, 300, 100, 0, lambda samples: None)
    np.testing.assert_allclose(sampled[:, 0, 0] - sampled[:, 1, 0], 1 / 999, atol=1e-12)


def test_the_seed_decides() -> None:
    first, again, other = (list(resamples(50, 3, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))
    assert all(counts.sum() == 50 for counts in first)


def test_resamples_without_purchases_do_not_spoil_the_interval() -> None:
    [figure] = estimate(np.array([0.5]), np.array([[0.4], [math.nan], [0.6]]))
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.5, 0.405, 0.595))
