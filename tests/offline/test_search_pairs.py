from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching_shops import HOUR, Step, at, write_searching_shop

from model_store.dataset import DataSet
from model_store.generation import plain_text
from offline.search_pairs import QueryNumbers, find_pairs

TITLES = {"a": "red coat", "b": "blue coat", "c": "green hat"}
SEARCH, CLICK, BUY = ("search", "x", "coat", 1.0), ("click", "x", "a", 1.5), ("purchase", "x", "a", 2.0)
OTHER_CLICK = ("click", "y", "c", 0.5)


def pairs_of(folder: Path, steps: Sequence[Step], until: float = 1_000) -> list[tuple[str, str, float]]:
    """(query, article, hours) of every pair."""
    data = write_searching_shop(folder / "shop", TITLES, steps)
    pairs = find_pairs(data, at(until))
    hours = (pairs.time - at(0)) / HOUR
    articles = [data.article_ids[row] for row in pairs.article]
    return list(zip([pairs.queries[number] for number in pairs.query], articles, hours.tolist(), strict=True))


def test_a_purchase_comes_from_the_search_before_it_where_its_article_was_clicked(tmp_path: Path) -> None:
    assert pairs_of(tmp_path, [SEARCH, CLICK, BUY]) == [("coat", "a", 2.0)]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([CLICK, BUY], id="no search"),
        pytest.param([SEARCH, BUY, OTHER_CLICK], id="no click on it"),
        pytest.param([SEARCH, ("click", "x", "b", 1.5), BUY], id="a click on something else"),
        pytest.param([("click", "x", "a", 0.5), SEARCH, BUY], id="the click before the search"),
        pytest.param([SEARCH, ("click", "x", "a", 2.5), BUY], id="the click after the purchase"),
        pytest.param([SEARCH, ("click", "y", "a", 1.5), BUY], id="somebody else's click"),
        pytest.param([("search", "y", "coat", 1.0), CLICK, BUY], id="somebody else's search"),
        pytest.param([("search", "x", "coat", 2.5), CLICK, BUY], id="the search after the purchase"),
        pytest.param([SEARCH, CLICK, BUY, ("return", "x", "a", 9.0)], id="it was returned"),
        pytest.param([SEARCH, ("click", "x", "a", 26.0), ("purchase", "x", "a", 26.1)], id="over a day later"),
    ],
)
def test_a_purchase_comes_from_no_search(tmp_path: Path, steps: list[Step]) -> None:
    assert pairs_of(tmp_path, steps) == []


def test_it_comes_from_the_latest_search_alone(tmp_path: Path) -> None:
    steps = [SEARCH, ("search", "x", "hat", 1.2), CLICK, BUY]
    assert pairs_of(tmp_path, steps) == [("hat", "a", 2.0)]


def test_moments_that_are_equal_belong_together(tmp_path: Path) -> None:
    steps = [("search", "x", "coat", 2.0), ("click", "x", "a", 2.0), BUY]
    assert pairs_of(tmp_path, steps) == [("coat", "a", 2.0)]


def test_without_any_click_in_the_data_the_search_decides(tmp_path: Path) -> None:
    assert pairs_of(tmp_path, [SEARCH, BUY, ("purchase", "x", "b", 2.0)]) == [("coat", "a", 2.0), ("coat", "b", 2.0)]


def test_several_purchases_come_from_one_search_and_customers_are_kept_apart(tmp_path: Path) -> None:
    steps = [
        *[SEARCH, CLICK, ("click", "x", "b", 1.6), BUY, ("purchase", "x", "b", 3.0)],
        *[("search", "y", "hat", 1.0), ("click", "y", "c", 1.1), ("purchase", "y", "c", 1.2)],
    ]
    assert pairs_of(tmp_path, steps) == [("coat", "a", 2.0), ("coat", "b", 3.0), ("hat", "c", 1.2)]


def test_spellings_that_read_alike_are_one_query(tmp_path: Path) -> None:
    steps = [
        *[SEARCH, CLICK, BUY],
        *[("search", "y", "  COAT ", 1.0), ("click", "y", "b", 1.1), ("purchase", "y", "b", 1.2)],
    ]
    assert {query for query, *_ in pairs_of(tmp_path, steps)} == {"coat"}


def test_nothing_at_or_after_the_end_is_read(tmp_path: Path) -> None:
    steps = [SEARCH, CLICK, BUY, ("search", "x", "late", 5.0), ("return", "x", "a", 6.0)]
    data = write_searching_shop(tmp_path / "shop", TITLES, steps)
    assert len(find_pairs(data, at(2.0))) == 0
    known = find_pairs(data, at(5.0))
    assert (len(known), known.queries) == (1, ["coat"])
    assert len(find_pairs(data, at(7.0))) == 0


def test_a_window_takes_its_own_pairs(tmp_path: Path) -> None:
    steps = [SEARCH, CLICK, ("click", "x", "b", 1.6), BUY, ("purchase", "x", "b", 3.0)]
    pairs = find_pairs(write_searching_shop(tmp_path / "shop", TITLES, steps), at(10))
    assert pairs.between(at(2), at(3)).article.tolist() == [0]
    assert pairs.between(at(3), at(4)).article.tolist() == [1]


def test_a_log_without_searches_has_no_pairs(tmp_path: Path) -> None:
    assert pairs_of(tmp_path, [BUY]) == []


@given(st.lists(st.one_of(st.none(), st.sampled_from(["coat", " Coat", "{}", "hat", "\u200b"])), max_size=20))
def test_numbers_are_equal_where_plain_texts_are(column: list[str | None]) -> None:
    numbers = QueryNumbers()
    half = len(column) // 2
    found = [numbers.of(pa.array(part, pa.string())) for part in (column[:half], column[half:])]
    texts = [*numbers.texts, None]
    for number, text in zip(np.concatenate(found), column, strict=True):
        assert texts[number] == ((plain_text(text) or None) if text else None)


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    steps = [
        (kind, f"c{customer}", what, customer / 2 + hours)
        for customer in range(8)
        for kind, what, hours in [("search", "coat", 0.1), ("click", "a", 0.2), ("purchase", "a", 0.3)]
    ]
    shuffled = [steps[place] for place in np.random.default_rng(0).permutation(len(steps))]
    found = pairs_of(tmp_path / "one", steps)
    assert len(found) == 8
    assert pairs_of(tmp_path / "other", shuffled) == found


def test_pairs_are_the_same_however_the_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [SEARCH, CLICK, BUY, ("search", "y", "hat", 1.0), ("click", "y", "c", 1.1), ("purchase", "y", "c", 1.2)]
    data = write_searching_shop(tmp_path / "shop", TITLES, steps)
    whole, events = find_pairs(data, at(9)), DataSet.events
    monkeypatch.setattr(DataSet, "events", lambda self: events(self, 1))
    row_by_row = find_pairs(data, at(9))
    assert row_by_row.queries == whole.queries
    np.testing.assert_array_equal(row_by_row.query, whole.query)
