"""Predicted against bought, on shops whose customers buy with known probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from small_runs import DAY, START, make_run, write_shop
from tiny_shops import tiny_shop

from offline.evaluation import calibration as module
from offline.evaluation.backtest import Options, Result, run_backtest
from offline.evaluation.calibration import (
    Calibration,
    Pairs,
    Span,
    StaticModel,
    calibrate,
    held_out_pairs,
    training_pairs,
    window_pairs,
)
from offline.evaluation.held_out import make_held_out_task
from offline.hold_out import HeldOut, training_data
from offline.progress import Silent


def model_of(rng: np.random.Generator, customers: int, articles: int) -> StaticModel:
    style, dna = rng.normal(size=(customers, 4)), rng.normal(size=(articles, 4))
    bias = rng.normal(-2.5, 0.5, customers)
    names = [f"c{number:04}" for number in range(customers)]
    return StaticModel(names, style.astype(np.float32), bias.astype(np.float32), dna.astype(np.float32))


def drawn(model: StaticModel, share: float, seed: int) -> Pairs:
    """Pairs bought with ``share`` of the probability that the model gives them."""
    z = model.log_odds(np.arange(len(model.style)), model.dna)
    bought = np.random.default_rng(seed).random(z.shape) < share * expit(z)
    everyone, every = (np.arange(size) for size in z.shape)
    return Pairs("drawn", "Drawn", everyone, every, np.stack(np.nonzero(bought)), np.zeros((2, 0), np.int64))


def dense(pairs: Pairs) -> np.ndarray:
    bought = np.zeros((len(pairs.customers), len(pairs.articles)), bool)
    bought[tuple(pairs.bought)] = True
    return bought


def test_tenths_are_those_of_scikit_learn() -> None:
    model = model_of(np.random.default_rng(0), 200, 150)
    pairs = drawn(model, 1.0, 1)
    found = calibrate(model, pairs, 20, 0)
    z = model.log_odds(pairs.customers, model.dna[pairs.articles]).ravel()
    observed, predicted = calibration_curve(dense(pairs).ravel(), expit(z), n_bins=10, strategy="quantile")
    np.testing.assert_allclose([tenth.predicted for tenth in found.tenths], predicted, rtol=1e-3)
    np.testing.assert_allclose([tenth.observed.value for tenth in found.tenths], observed, rtol=0.02, atol=1e-4)
    assert sum(tenth.pairs for tenth in found.tenths) == found.pairs == 200 * 150


def test_true_probabilities_lie_on_the_diagonal_and_half_of_them_half_below() -> None:
    model = model_of(np.random.default_rng(2), 600, 300)
    for share in (1.0, 0.5):
        found = calibrate(model, drawn(model, share, 3), 200, 0)
        assert found.ratio.low < share < found.ratio.high
        near = [
            abs(tenth.observed.value - share * tenth.predicted) < 0.1 * tenth.predicted for tenth in found.tenths[3:]
        ]
        assert all(near)


def test_probabilities_that_know_nothing_are_flat() -> None:
    model = model_of(np.random.default_rng(4), 400, 200)
    other = model_of(np.random.default_rng(5), 400, 200)
    pairs = drawn(other, 1.0, 6)
    found = calibrate(model, pairs, 200, 0)
    rate = dense(pairs).mean()
    assert all(0.6 * rate < tenth.observed.value < 1.5 * rate for tenth in found.tenths)
    assert found.tenths[-1].predicted > 3 * rate


def test_what_was_bought_before_is_left_out() -> None:
    model = model_of(np.random.default_rng(7), 30, 20)
    pairs = drawn(model, 1.0, 8)
    before = np.array([[0, 0, 3], [1, 2, 4]])
    bought = dense(pairs)
    bought[tuple(before)] = False
    left = Pairs("x", "X", pairs.customers, pairs.articles, np.stack(np.nonzero(bought)), before)
    found = calibrate(model, left, 10, 0)
    assert found.pairs == 30 * 20 - 3
    z = expit(model.log_odds(pairs.customers, model.dna[pairs.articles]).astype(float))
    z[tuple(before)] = 0
    assert found.ratio.value == pytest.approx(bought.sum() / z.sum(), rel=1e-5)


def test_blocks_and_a_limit_on_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(np.random.default_rng(9), 300, 100)
    pairs = drawn(model, 1.0, 10)
    whole = calibrate(model, pairs, 10, 0)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 250)
    parts = calibrate(model, pairs, 10, 0)
    assert [tenth.pairs for tenth in parts.tenths] == [tenth.pairs for tenth in whole.tenths]
    assert [tenth.predicted for tenth in parts.tenths] == pytest.approx([tenth.predicted for tenth in whole.tenths])
    monkeypatch.setattr(module, "_MOST_PAIRS", 12_000)
    some = calibrate(model, pairs, 10, 0)
    assert (some.customers, some.pairs) == (120, 12_000)
    assert some.ratio.value == pytest.approx(1, abs=0.15)


ROWS = [("ann", "a", 1), ("ann", "b", 2), ("bob", "b", 3), ("bob", "c", 4), ("ann", "a", 8), ("bob", "a", 9)]
ROWS += [("ann", "c", 9), ("new", "a", 9), ("bob", "d", 12)]


def names(pairs: Pairs, which: np.ndarray, model: StaticModel) -> set[tuple[str, str]]:
    return {(model.customer_ids[pairs.customers[who]], "abcd"[pairs.articles[what]]) for who, what in which.T}


def test_which_pairs_are_looked_at(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop", list("abcd"), ROWS, stock={**dict.fromkeys("abc", (0, None)), "d": (11, None)})
    model = StaticModel(["bob", "ann"], *(np.zeros(shape, np.float32) for shape in ((2, 4), 2, (4, 4))))
    opens, closes = START + 7 * DAY, START + 10 * DAY
    trained = training_pairs(data, opens, data.purchases(opens), model)
    assert trained.articles.tolist() == [0, 1, 2]  # d was not to be had
    assert names(trained, trained.bought, model) == {("ann", "a"), ("ann", "b"), ("bob", "b"), ("bob", "c")}
    assert not trained.left_out.size
    span = Span(opens, closes, data.purchases(opens), data.purchases(closes))
    window = window_pairs("validation", "V", data, span, model)
    assert names(window, window.bought, model) == {("bob", "a"), ("ann", "c")}  # ann bought a before, new is not known
    assert names(window, window.left_out, model) == names(trained, trained.bought, model)


def test_which_pairs_are_looked_at_where_orders_are_held_out(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop", list("abcd"), [*ROWS, ("new", "d", 13)])
    held = HeldOut.of(data, "last_order")
    assert held is not None
    task = make_held_out_task(data, held, held.left_out_of(data).purchases())
    model = StaticModel(["bob", "ann"], *(np.zeros(shape, np.float32) for shape in ((2, 4), 2, (4, 4))))
    pairs = held_out_pairs(task, model)
    assert names(pairs, pairs.bought, model) == {("bob", "d"), ("ann", "c")}
    known = {("ann", "a"), ("ann", "b"), ("bob", "b"), ("bob", "c"), ("bob", "a")}
    assert names(pairs, pairs.left_out, model) == known
    assert pairs.articles.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("hold_out", "expected"),
    [("by_time", {"training", "validation", "evaluated"}), ("last_order", {"training", "validation", "evaluated"})],
)
def test_a_backtest_compares_wherever_enough_was_bought(tmp_path: Path, hold_out, expected) -> None:
    data = tiny_shop(tmp_path / "tiny", articles=80, customers=200, planted=False)
    cutoff = START + (110 if hold_out == "by_time" else 200) * DAY  # by then, what is left is not in a window
    run = make_run(tmp_path / "run", training_data(data, hold_out), cutoff, hold_out=hold_out)
    result: Result = run_backtest(data, run, Options(samples=20), Silent())
    found: dict[str, Calibration] = {one.name: one for one in result.calibration}
    assert set(found) == expected
    assert all(one.bought >= 30 for one in found.values())
