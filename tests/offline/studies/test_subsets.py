from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from searching_shops import at, write_searching_shop
from tiny_shops import tiny_shop

from model_store.dataset import DataSet
from offline.studies.subsets import nested_customers, only_articles, only_customers, queries_about

SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=20, customers=101, pictures=True)


@pytest.fixture
def searched(tmp_path: Path) -> DataSet:
    """Boots are asked for by "boots" and "warm", hats by "hat"; "any" shows as many of both."""
    titles = {"b1": "brown boots", "b2": "black boots", "h1": "hat"}
    steps = [
        ("search", "ann", "Boots", 1.0),
        ("click", "ann", "b1", 1.1),
        ("purchase", "ann", "b1", 1.2),
        ("search", "bob", "hat", 2.0),
        ("purchase", "bob", "h1", 2.1),
        ("search", "bob", "never shown", 3.0),
        ("return", "ann", "b1", 4.0),
        ("search", "cid", "any", 5.0),
    ]
    results = [("boots", "b1", 1, 0.5), ("boots", "h1", 2, 0.5), ("boots", "b2", 3, 0.5), ("warm", "b2", 1, None)]
    results += [("hat", "h1", 1, 0.5), ("any", "b1", 1, 0.5), ("any", "h1", 2, 0.5)]
    return write_searching_shop(tmp_path / "searched", titles, steps, results)


def events(data: DataSet) -> list[tuple[str, str, str]]:
    return [
        (row["type"], row["customer_id"], row["article_id"] or row["query"])
        for batch in data.events()
        for row in batch.to_pylist()
    ]


def results(data: DataSet) -> list[tuple[str, str]]:
    return [(row["query"], row["article_id"]) for batch in data.search_results() for row in batch.to_pylist()]


def test_shares_are_nested_and_as_large_as_they_say(shop: DataSet) -> None:
    shares = nested_customers(shop, shop.last_event + 1, SHARES, seed=5)
    assert [len(share) for share in shares] == [2, 6, 21, 51, 101]
    assert all(smaller < larger for smaller, larger in pairwise(shares))


def test_a_seed_draws_the_same_customers_again_and_another_one_others(shop: DataSet) -> None:
    [first], [again], [other] = (nested_customers(shop, shop.last_event, [0.2], seed) for seed in (1, 1, 2))
    assert first == again != other


def test_nobody_is_drawn_who_comes_after_training(shop: DataSet) -> None:
    early = at(24 * 3)
    [everyone] = nested_customers(shop, early, [1.0], seed=0)
    assert everyone == set(shop.purchases(known_at=early).customer_ids)


def test_a_share_holds_all_of_its_customers_and_nothing_of_others(shop: DataSet, tmp_path: Path) -> None:
    [chosen] = nested_customers(shop, shop.last_event, [0.2], seed=0)
    part = only_customers(shop, chosen, tmp_path / "part", "a fifth")
    assert events(part) == [event for event in events(shop) if event[1] in chosen]
    assert part.article_ids == shop.article_ids
    assert part.image(next(part.articles())) == shop.image(next(shop.articles()))
    whole = shop.availability
    np.testing.assert_array_equal(part.availability.start, whole.start)


def test_of_result_lists_a_share_has_those_of_its_own_queries(searched: DataSet, tmp_path: Path) -> None:
    part = only_customers(searched, {"ann"}, tmp_path / "part", "ann")
    assert {query for query, _ in results(part)} == {"boots"}  # asked for as "Boots"


def test_a_query_is_about_what_it_shows_most(searched: DataSet) -> None:
    assert queries_about(searched, np.array([True, True, False])) == {"boots", "warm"}
    assert queries_about(searched, np.array([False, False, True])) == {"hat"}


def test_a_group_of_articles_is_a_shop_that_knows_of_no_other(searched: DataSet, tmp_path: Path) -> None:
    part = only_articles(searched, np.array([True, True, False]), tmp_path / "part", "boots")
    assert part.article_ids == ["b1", "b2"]
    assert events(part) == [
        ("search", "ann", "Boots"),
        ("click", "ann", "b1"),
        ("purchase", "ann", "b1"),
        ("return", "ann", "b1"),
    ]
    assert results(part) == [("boots", "b1"), ("boots", "b2"), ("warm", "b2")]


def test_a_part_is_written_once(shop: DataSet, tmp_path: Path) -> None:
    part = only_articles(shop, np.arange(20) < 10, tmp_path / "part", "half")
    changed = (part.folder / "events.parquet").stat().st_mtime_ns
    assert only_articles(shop, np.arange(20) < 10, tmp_path / "part", "half").fingerprint == part.fingerprint
    assert (part.folder / "events.parquet").stat().st_mtime_ns == changed
    assert part.image(next(part.articles())) is not None
    assert set(part.availability.article.tolist()) == set(range(10))
