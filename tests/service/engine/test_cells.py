from __future__ import annotations

import faiss
import numpy as np
import pytest

from service.engine.allowed import Allowed, AllowedRows
from service.engine.arrays import NO_ROWS
from service.engine.cells import Cells
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Sought
from service.engine.space import Space

from .shops import article

N = 20_000
K = 100


def vectors(seed: int, count: int = N, spread: float = 1.0, *, heaps: bool = True) -> np.ndarray:
    """Rows in 300 heaps, most of whose spread lies in 16 directions, as a model's embeddings are; or in no heaps."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    if not heaps:
        return rng.standard_normal((count, 128)).astype(np.float32)
    centres = shared.standard_normal((300, 16)) @ shared.standard_normal((16, 128))
    made = centres[rng.integers(300, size=count)] + rng.standard_normal((count, 128))
    return (made * spread).astype(np.float32)


def best(data: np.ndarray, query: np.ndarray, mask: np.ndarray, k: int) -> list[int]:
    rows = np.flatnonzero(mask)
    scores = data[rows].astype(np.float64) @ query.astype(np.float64)
    return rows[np.argsort(-scores, kind="stable")[:k]].tolist()


def queries(count: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 128)).astype(np.float32)


def mixtures(data: np.ndarray) -> np.ndarray:
    """16 sums of 200 rows with weights of both signs, as a style is one of what was bought."""
    rng = np.random.default_rng(17)
    weights = rng.standard_normal((16, 200)).astype(np.float32)
    return np.einsum("qm,qmd->qd", weights, data[rng.integers(len(data), size=weights.shape)])


def rows_met() -> int:
    """Inner products that FAISS has computed in cells so far."""
    return int(faiss.cvar.indexIVF_stats.ndis)


@pytest.mark.parametrize("heaps", [True, False])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.25])
def test_at_least_99_of_the_100_best_are_found_however_many_rows_are_allowed(share, spread, heaps):
    data = vectors(0, spread=spread, heaps=heaps)
    mask = np.random.default_rng(1).random(N) < share
    space, allowed = Space(data, "mixtures", N), Allowed.of(mask)
    found = 0
    for query in queries(40):
        candidates = space.candidates(query, K, allowed)
        assert mask[candidates.rows].all()
        exact = data[candidates.rows].astype(np.float64) @ query.astype(np.float64)
        np.testing.assert_allclose(candidates.scores, exact, rtol=1e-6, atol=1e-6 * spread)
        found += len(set(best(data, query, mask, K)).intersection(candidates.rows.tolist()))
    assert found >= 0.99 * 40 * K


def test_a_filter_that_goes_with_the_vectors_is_searched_to_where_its_articles_are():
    """What is allowed lies in a few cells, and those may be the last ones that the query would visit."""
    data = vectors(2)
    centre = data[0] / np.linalg.norm(data[0])
    mask = data @ centre > np.quantile(data @ centre, 0.7)
    space, allowed = Space(data, "mixtures", N), Allowed.of(mask)
    found = [
        len(set(best(data, query, mask, K)).intersection(space.candidates(query, K, allowed).rows.tolist()))
        for query in [-centre, centre, *queries(10)]
    ]
    assert min(found) >= 99


def test_what_titles_are_asked_for_is_found_without_meeting_nearly_everything():
    data = vectors(13)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    space, everything = Space(data, "variations", N), np.ones(N, bool)
    rng, found, before = np.random.default_rng(14), 0, rows_met()
    for row in rng.integers(N, size=40):
        query = (data[row] + rng.standard_normal(128) * 0.03).astype(np.float32)
        rows = space.candidates(query, K, Allowed.of(everything)).rows
        found += len(set(best(data, query, everything, K)).intersection(rows.tolist()))
    assert found >= 0.99 * 40 * K
    assert rows_met() - before < 0.5 * 40 * N


@pytest.mark.parametrize("many", [K, 3 * K])
def test_what_is_excluded_takes_nobodys_place(many):
    data, query = vectors(3), queries(1)[0]
    index = ArticleIndex(N)
    index.upsert_many([article(row) for row in range(N)], data, [True] * N)
    ranked = [f"a{row}" for row in best(data, query, np.ones(N, bool), many + K)]
    found = index.search(query, K, Filters(exclude=frozenset(ranked[:many]))).article_ids
    assert len(found) == K
    assert not set(ranked[:many]).intersection(found)
    assert len(set(ranked[many:]).intersection(found)) >= 99


def test_cells_follow_what_is_written_again_and_what_is_new():
    data = vectors(4)
    cells = Cells(data[: N // 2])
    cells.write(np.arange(N // 2, N), data[N // 2 :])
    moved = np.random.default_rng(6).permutation(N)[:3_000]
    data[moved] = vectors(7, len(moved))
    cells.write(moved, data[moved])
    everything = Allowed.of(np.ones(N, bool))
    for query in queries(5):
        rows = cells.nearest(query, 2 * K, everything)
        assert len(set(rows.tolist())) == len(rows) == 2 * K
        assert set(best(data, query, everything.mask, K)) <= set(rows.tolist())


def test_all_that_is_allowed_is_found_where_more_is_asked_for():
    data = vectors(8)
    mask = np.zeros(N, bool)
    mask[[5, 700, 19_999]] = True
    rows = Cells(data).nearest(queries(1)[0], 10, Allowed.of(mask))
    assert sorted(rows.tolist()) == [5, 700, 19_999]
    assert Cells(data).nearest(queries(1)[0], 10, Allowed.of(np.zeros(N, bool))).tolist() == NO_ROWS.tolist()


def test_counts_of_a_filter_that_is_asked_for_again_follow_its_rows():
    data, filters = vectors(9), Filters(price_min=1.0)
    cells, query = Cells(data), queries(1)[0]
    mask = np.zeros(N, bool)
    mask[: N // 4] = True
    cells.nearest(query, K, Allowed.of(mask)._replace(filters=filters))
    mask[:] = ~mask
    rows = cells.nearest(query, K, Allowed.of(mask)._replace(filters=filters, changes=N))
    assert len(set(best(data, query, mask, K)).intersection(rows.tolist())) >= 0.95 * K


def test_what_turned_over_while_its_size_stayed_is_searched_where_it_is():
    """What is allowed first lies where the query looks first, and afterwards where it looks last."""
    data = vectors(15)
    query = data[:1_000].mean(axis=0)
    by_score = np.argsort(-(data @ query))
    rows, first, last = np.arange(N), by_score[: N // 4], by_score[-N // 4 :]
    kept, cells = AllowedRows(lambda _, rows: np.ones(N, bool)[rows], N), Cells(data, "variations")
    kept.write(rows, np.isin(rows, first))
    cells.nearest(query, 60, kept.of(EVERYTHING))
    kept.set_stock(rows, np.isin(rows, last))
    found = cells.nearest(query, 60, kept.of(EVERYTHING))
    assert len(set(last[:20].tolist()).intersection(found.tolist())) >= 19


def test_only_what_lies_in_heaps_is_found_without_meeting_nearly_everything():
    met = []
    for heaps in (True, False):
        data = vectors(12, heaps=heaps)
        cells, before = Cells(data), rows_met()
        cells.nearest_many(mixtures(data), K, Allowed.of(np.ones(N, bool)))
        met.append((rows_met() - before) / 16)
    assert met[0] < 0.5 * N
    assert met[1] > 0.8 * N


@pytest.mark.parametrize("asked", ["mixtures", "variations"])
def test_many_queries_find_what_each_finds_by_itself(asked):
    data = vectors(18)
    mask = np.random.default_rng(19).random(N) < 0.3
    cells, allowed = Cells(data, asked), Allowed.of(mask)
    many = np.concatenate([mixtures(data), queries(3), data[:3]])
    for query, rows in zip(many, cells.nearest_many(many, K, allowed), strict=True):
        assert sorted(rows) == sorted(cells.nearest(query, K, allowed))


def test_who_wants_much_makes_nobody_elses_search_longer():
    data = vectors(20)
    index = ArticleIndex(N)
    index.upsert_many([article(row) for row in range(N)], data, [True] * N)
    few, many = [Sought(query, 5) for query in mixtures(data)], Sought(mixtures(data)[0], 400)
    index.candidates_many(few)
    met = [rows_met()]
    for sought in (few, [many], [*few, many]):
        index.candidates_many(sought)
        met.append(rows_met())
    alone, wide, together = np.diff(met)
    assert together == alone + wide


def test_cells_are_worn_once_there_are_twice_as_many_rows():
    cells = Cells(vectors(10, 5_000))
    assert not cells.worn(9_999)
    assert cells.worn(10_000)


def test_new_cells_hold_what_was_written_while_they_were_made():
    data = vectors(16)
    space, rows = Space(np.zeros((N, 128), np.float32), "mixtures", cells_from=4_096), np.arange(N)
    space.write(rows[:5_000], data[:5_000])
    assert space.worn
    space.settle()
    assert not space.worn
    space.write(rows[5_000:12_000], data[5_000:12_000])
    assert space.worn
    make = space.refit()
    data[:2_000] = vectors(17, 2_000)
    space.write(rows[:2_000], data[:2_000])
    cells = make()
    space.write(rows[12_000:], data[12_000:])
    found = [0, 0]
    for number, query in enumerate(2 * list(queries(5))):  # while they are made, and afterwards
        if number == 5:
            space.adopt(cells)
            assert not space.worn
        rows_found = space.candidates(query, K, Allowed.of(np.ones(N, bool))).rows.tolist()
        found[number // 5] += len(set(best(data, query, np.ones(N, bool), K)).intersection(rows_found))
    assert min(found) >= 0.99 * 5 * K


def test_cells_that_could_not_be_made_leave_the_search_as_it_was():
    data = vectors(18, 6_000)
    space, rows = Space(data.copy(), "mixtures", cells_from=4_096), np.arange(6_000)
    space.write(rows, data)
    space.refit()
    query, everything = queries(1)[0], Allowed.of(np.ones(6_000, bool))
    space.adopt(None)
    assert space.worn
    assert set(best(data, query, everything.mask, K)) <= set(space.candidates(query, K, everything).rows.tolist())


def test_what_a_float16_cannot_hold_is_found_all_the_same():
    data = vectors(11, 5_000)
    data[77] = 1e8
    space = Space(data, "mixtures", len(data))
    found = space.candidates(np.ones(128, np.float32), 5, Allowed.of(np.ones(len(data), bool)))
    assert found.rows[np.argmax(found.scores)] == 77


def test_what_sells_is_found_by_looking_at_fewer_rows_where_styles_weigh_it_most(monkeypatch):
    """Popularity varies little beside other components, and is weighed forty times as much, as by a style LSTM."""
    data, rng = vectors(0, heaps=False), np.random.default_rng(3)
    usual = np.sqrt(np.mean(np.square(data)))
    data[:, 127] = 0.9 * usual * rng.random(N) * (rng.random(N) < 0.1)  # most did not sell
    asked = mixtures(data)
    asked[:, 127] = 40 * np.sqrt(np.mean(np.square(asked[:, :127]), axis=1))
    everything, met = Allowed.of(np.ones(N, bool)), []
    for most in (1.0, 24.0):
        monkeypatch.setattr("service.engine.cells._MOST_STRETCHED", most)
        cells, before = Cells(data), rows_met()
        found = cells.nearest_many(asked, K, everything)
        met.append(rows_met() - before)
        shares = [
            np.isin(best(data, query, everything.mask, K), rows).mean()
            for query, rows in zip(asked, found, strict=True)
        ]
        assert np.mean(shares) >= 0.99
    assert met[1] < 0.7 * met[0]
