from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.scan import QuantisedScan

N = 600


def vectors(seed: int, *, spread: float = 1.0, far: int = 0, dead: int = 0) -> np.ndarray:
    """N rows, of components of very different sizes; ``far`` rows are a thousand times as long, ``dead`` parts 0."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((N, 128)) * rng.lognormal(0, 1.5, 128) * spread
    made[:far] *= 1_000
    made[:, :dead] = 0
    return made.astype(np.float32)


def bits(mask: np.ndarray) -> np.ndarray:
    return np.packbits(mask, bitorder="little")


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 1_000),
    st.sampled_from([1e-15, 1.0, 1e5]),
    st.integers(0, 5),
    st.sampled_from([0, 3, 127, 128]),
    st.integers(1, N),
    st.sampled_from([None, 0.5, 0.02]),
)
def test_what_is_not_proposed_never_scores_above_the_bound(seed, spread, far, dead, k, share):
    data = vectors(seed, spread=spread, far=far, dead=dead)
    scan = QuantisedScan(data[: N // 2].copy(), N // 2)
    scan.grow(N)
    scan.write(np.arange(N // 2, N), data[N // 2 :])  # what it was not fitted to
    rng = np.random.default_rng(seed + 1)
    query = rng.standard_normal(128).astype(np.float32)
    mask = np.ones(N, bool) if share is None else rng.random(N) < share
    rows, bound = scan.propose(query, k, N, None if share is None else bits(mask))
    assert len(set(rows.tolist())) == len(rows) >= min(k, mask.sum())
    assert mask[rows].all()
    rest = np.setdiff1d(np.flatnonzero(mask), rows)
    exact = data.astype(np.float64) @ query.astype(np.float64)
    if bound == -np.inf:
        assert len(rest) == 0
    else:
        assert (exact[rest] <= bound).all()


def test_the_bound_is_close_enough_to_prove_answers():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((20_000, 128)).astype(np.float32)
    scan = QuantisedScan(data, len(data))
    for _ in range(20):
        query = rng.standard_normal(128).astype(np.float32)
        exact = np.sort(data @ query)
        assert scan.propose(query, 332, len(data), None).bound < exact[-100]


def test_rows_that_do_not_fit_are_proposed_always_and_wear_the_copy():
    data = vectors(0)
    scan = QuantisedScan(data, N)
    far = data[:300] * -100
    scan.write(np.arange(300), far)
    assert set(scan.propose(data[0], 1, N, None).rows) >= set(range(300))
    assert set(scan.propose(data[0], 1, N, bits(np.arange(N) >= 299)).rows) & set(range(300)) == {299}
    assert scan.worn(N)
    assert not QuantisedScan(data, N).worn(N)
    assert QuantisedScan(data, N).worn(2 * N)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_rows_beyond_the_size_are_never_proposed(size):
    scan = QuantisedScan(vectors(0, far=3), N)
    assert scan.propose(np.ones(128, np.float32), 50, size, None).rows.max() < size


def test_moved_rows_are_found_in_their_new_place():
    data = vectors(0)
    scan = QuantisedScan(data, N)
    best = int(np.argmax(data @ data[5]))
    scan.move(np.array([best, 9]), np.array([9, best]))
    assert 9 in scan.propose(data[5], 20, N, None).rows
