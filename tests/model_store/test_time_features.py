from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.records import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from model_store.time_features import DAY, YEAR, TimeSpec, encode_history, encode_step, encode_steps, encode_time

NAMES = ("trend", "season", "weekday", "gap")
SPECS = [
    TimeSpec(components=components, reference=1_500_000_000, horizon=1_600_000_000)
    for size in (1, 2, 4)
    for components in itertools.combinations(NAMES, size)
]
TIMES = st.integers(EARLIEST_TIMESTAMP, LATEST_TIMESTAMP) | st.integers(1_400_000_000, 1_700_000_000)


def random_dna(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size, 128)).astype(np.float32)


def test_each_component_is_what_its_name_says() -> None:
    spec = TimeSpec(components=NAMES, reference=0, horizon=round(2 * YEAR))
    first, half_year, beyond = encode_time(spec, np.array([0, round(YEAR / 2), round(5 * YEAR)]))
    np.testing.assert_allclose(first, [0, 0, 1, 0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(half_year[:5], [0.5, 0, -1, 0, 1], atol=1e-5)
    assert beyond[0] == pytest.approx(2.0)
    week = encode_time(spec, np.array([3, 3 + round(7 * DAY)]))[:, 5:]
    np.testing.assert_allclose(week[0], week[1], atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(spec.components))
def test_sizes_are_as_promised(spec: TimeSpec) -> None:
    assert encode_time(spec, np.zeros((2, 3), np.int64)).shape == (2, 3, spec.width)
    assert encode_step(spec, None, 0, 0).shape == (1, 1, spec.step_size)
    assert encode_history(spec, random_dna(0, 4), np.arange(4), 9).shape == (5, spec.step_size)


def test_a_history_starts_from_zero_and_each_step_looks_one_back() -> None:
    spec = TimeSpec(reference=1_500_000_000, horizon=1_600_000_000)
    dna, times, read = random_dna(1, 3), np.array([1_500_000_000, 1_510_000_000, 1_510_086_400]), 1_520_000_000
    rows = encode_history(spec, dna, times, read)
    np.testing.assert_array_equal(rows[0, : 128 + spec.width], 0)
    assert rows[0, -1] == 0
    np.testing.assert_array_equal(rows[1:, :128], dna)
    now = rows[:, 128 + spec.width : -1]
    np.testing.assert_array_equal(rows[1:, 128 : 128 + spec.width], now[:-1])
    np.testing.assert_array_equal(now, encode_time(spec, np.append(times, read)))
    assert rows[2, -1] == pytest.approx(np.log(2) / 5)


def test_a_time_before_the_previous_purchase_counts_as_no_gap() -> None:
    spec = TimeSpec(components=("gap",), reference=0, horizon=1)
    assert encode_step(spec, random_dna(0, 1)[0], 2_000_000, 1_000_000)[0, 0, -1] == 0


@given(st.sampled_from(SPECS), TIMES, TIMES, st.booleans())
def test_one_step_equals_the_array_of_steps(spec: TimeSpec, previous: int, now: int, first: bool) -> None:
    dna = random_dna(previous % 1000, 1)
    array = encode_steps(spec, dna, np.array([previous]), np.array([now]), np.array([first]))
    one = encode_step(spec, None if first else dna[0], previous, now)
    assert one.dtype == array.dtype == np.float32
    np.testing.assert_allclose(one[0], array, rtol=2e-7, atol=2e-7)
