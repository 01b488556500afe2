from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_store.generation import IdEmbeddings
from model_store.prompts import Generated
from offline.mixup import MixupRetrieval

NAMES = ["c", "a", "e", "b", "d"]


def unit(rows: list[list[float]]) -> np.ndarray:
    vectors = np.zeros((len(rows), 128), np.float32)
    vectors[:, : len(rows[0])] = rows
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def retrieval(n: int = 1, titles: np.ndarray | None = None) -> MixupRetrieval:
    """Titles spread from the first axis to the second, c nearest to the first; ids: d like c, all others cold."""
    spread = unit([[1, 0.1 * row] for row in range(5)]) if titles is None else titles
    known = IdEmbeddings({"c": 0, "d": 1}, unit([[0, 1], [0.1, 1]]), unit([[1, 0]])[0])
    return MixupRetrieval(NAMES, spread, known, lambda titles: unit([[1, 0]] * len(titles)), n)


def names(lists: list[np.ndarray]) -> list[list[str]]:
    return [[NAMES[row] for row in one] for one in lists]


def everything(_: int) -> np.ndarray:
    return np.arange(5)


def test_the_generated_article_comes_first_then_the_titles_from_the_second_on() -> None:
    assert names(retrieval().lists([Generated("d", "anything")], everything)) == [["d", "a", "e", "b"]]


def test_an_article_out_of_stock_gives_way_to_the_one_nearest_in_id_space() -> None:
    without_d = np.array([0, 1, 2, 3])
    assert names(retrieval().lists([Generated("d", "anything")], lambda _: without_d)) == [["c", "a", "e", "b"]]


def test_an_id_of_no_article_has_no_id_list() -> None:
    assert names(retrieval().lists([Generated("nothing", "anything")], everything)) == [["c", "a", "e", "b", "d"]]


def test_cold_articles_are_told_apart_by_their_id_and_the_generated_one_stands_first() -> None:
    assert names(retrieval(3).lists([Generated("e", "anything")], everything)) == [["e", "a", "b", "d"]]


def test_without_a_generation_there_is_no_list() -> None:
    found = retrieval().lists([None, Generated("a", "t")], everything, k=2)
    assert names(found) == [[], ["a", "e"]]


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5), st.sets(st.integers(0, 4)), st.integers(1, 7))
def test_title_lists_equal_a_full_sort(angles: list[int], allowed: set[int], k: int) -> None:
    rows = np.array(sorted(allowed), np.int64)
    titles = unit([[1, angle] for angle in angles])
    found = retrieval(0, titles).lists([Generated("nothing", "t")], lambda _: rows, k)
    expected = sorted(allowed, key=lambda row: (angles[row], NAMES[row]))[:k]
    assert found[0].tolist() == expected
