from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from searching_shops import Result, Step, at, write_searching_shop

from model_store.dataset import DataSet
from model_store.generation import load_memory, plain_text, write_memory
from model_store.records import Event, EventType
from offline.config import QueryMemoryConfig
from offline.query_memory import build_memory, compare_query_encoders, memory_recall
from offline.sequences import Example

IDS = "dabc"  # not in order, as a shop's table need not be
TITLES = {name: f"thing {name}" for name in IDS}
CONFIG = QueryMemoryConfig()
VISITS: list[Step] = [("search", "x", "coat", 0.0)]


def encode(texts: Sequence[str]) -> np.ndarray:
    """A direction of its own for each first letter."""
    keys = np.zeros((len(texts), 128), np.float32)
    keys[np.arange(len(texts)), [ord(plain_text(text)[0]) % 128 for text in texts]] = 1
    return keys


def lists(data: DataSet, config: QueryMemoryConfig = CONFIG, known_at: float = 1_000) -> dict[str, str]:
    """Each query's articles, as one word."""
    memory = build_memory(data, encode, config, known_at=at(known_at))
    np.testing.assert_array_equal(memory.keys, encode(memory.queries))
    assert list(memory.queries) == sorted(memory.queries)
    return {query: "".join(ids) for query, ids in zip(memory.queries, memory.article_ids, strict=True)}


def shop(folder: Path, results: Sequence[Result], steps: Sequence[Step] = VISITS) -> DataSet:
    return write_searching_shop(folder / "shop", TITLES, steps, results)


def test_a_querys_latest_list_comes_first_then_older_ones(tmp_path: Path) -> None:
    results: list[Result] = [
        *[("coat", "b", 1, 5.0), ("coat", "a", 2, 5.0)],
        *[("coat", "c", 1, 9.0), ("coat", "a", 7, 9.0)],
        *[("coat", "d", 1, None)],
        *[("hat", "d", 3, 1.0)],
    ]
    assert lists(shop(tmp_path, results)) == {"coat": "cabd", "hat": "d"}


def test_without_timestamps_the_best_position_counts_and_ties_stand_in_order_of_id(tmp_path: Path) -> None:
    results: list[Result] = [("coat", "c", 9, None), ("coat", "d", 2, None), ("coat", "b", 2, None)]
    results += [("coat", "c", 1, None), ("coat", "a", 2, None)]
    assert lists(shop(tmp_path, results)) == {"coat": "cabd"}


def test_spellings_that_read_alike_are_one_query(tmp_path: Path) -> None:
    results: list[Result] = [("Coat", "a", 2, 1.0), (" coat  ", "b", 1, 1.0), ("coat", "a", 3, 1.0)]
    assert lists(shop(tmp_path, results)) == {"coat": "ba"}


def test_only_what_was_shown_by_then_counts(tmp_path: Path) -> None:
    data = shop(tmp_path, [("coat", "a", 1, 1.0), ("coat", "b", 1, 2.0), ("hat", "c", 1, 3.0), ("shoe", "d", 1, None)])
    assert lists(data, known_at=2.0) == {"coat": "a", "shoe": "d"}


def test_so_many_articles_of_so_many_queries_are_kept(tmp_path: Path) -> None:
    results: list[Result] = [("coat", name, place, 1.0) for place, name in enumerate("abcd", 1)]
    results += [(query, "a", 1, 1.0) for query in ("shoe", "hat", "belt", "hat")]
    config = CONFIG.model_copy(update={"positions": 3, "max_queries": 3})
    assert lists(shop(tmp_path, results), config) == {"coat": "abc", "hat": "a", "belt": "a"}


def memory_by_hand(results: Sequence[Result], positions: int, known_at: float) -> dict[str, str]:
    """Group, then sort: every rule in one line each."""
    best: dict[str, dict[str, tuple[float, int]]] = {}
    for query, article, position, hours in results:
        if hours is None or hours < known_at:
            place = (-(hours if hours is not None else -1), position)
            of_query = best.setdefault(plain_text(query), {})
            of_query[article] = min(of_query.get(article, place), place)
    return {
        query: "".join(sorted(places, key=lambda name: (*places[name], name))[:positions])
        for query, places in best.items()
    }


ROW = st.tuples(
    st.sampled_from(["coat", "Coat", "hat", "shoe"]),
    st.sampled_from(list(IDS)),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 6).map(float)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(ROW, min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 7), st.integers(0, 7))
def test_any_log_read_in_batches_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, results: list[Result], positions: int, batch: int, known_at: int
) -> None:
    data = shop(tmp_path_factory.mktemp("log"), results)
    whole = data.search_results
    data.search_results = lambda: whole(batch)  # type: ignore[method-assign,misc]
    config = CONFIG.model_copy(update={"positions": positions})
    assert lists(data, config, known_at) == memory_by_hand(results, positions, known_at)


BOUGHT = [
    step
    for hour, (query, article) in enumerate([("coat", "b"), ("coat", "a"), ("coat", "b"), ("coat", "d"), ("hat", "c")])
    for step in [
        ("search", "x", query, hour + 0.1),
        ("click", "x", article, hour + 0.2),
        ("purchase", "x", article, hour + 0.3),
    ]
]


def test_without_search_results_what_was_bought_from_a_query_stands_in(tmp_path: Path) -> None:
    data = shop(tmp_path, [], BOUGHT)
    assert lists(data) == {"coat": "bad", "hat": "c"}
    assert lists(data, known_at=2.0) == {"coat": "ab"}
    assert lists(data, CONFIG.model_copy(update={"positions": 1, "max_queries": 1})) == {"coat": "b"}


def test_without_searches_the_memory_is_empty_and_can_be_kept(tmp_path: Path) -> None:
    memory = build_memory(shop(tmp_path, [], [("purchase", "x", "a", 1.0)]), encode, CONFIG, known_at=at(9))
    write_memory(tmp_path, memory)
    kept = load_memory(tmp_path)
    assert (list(kept.queries), kept.keys.shape) == ([], (0, 128))
    assert kept.candidates(encode(["coat"])[0], 3, 5) == []


# --- how much it finds -------------------------------------------------------------------------------------------


def example(query: str | None, target: str, hours: float = 5.0) -> Example:
    events = (
        [Event(event_id="1", type=EventType.SEARCH, customer_id="x", query="shoe", timestamp=at(1))] if query else []
    )
    events += (
        [Event(event_id="2", type=EventType.SEARCH, customer_id="x", query=query, timestamp=at(2))] if query else []
    )
    events += [Event(event_id="3", type=EventType.CLICK, customer_id="x", article_id="a", timestamp=at(3))]
    return Example("x", at(hours), tuple(events), IDS.index(target))


def test_recall_is_the_share_of_searches_whose_article_is_a_candidate(tmp_path: Path) -> None:
    results: list[Result] = [("coat", name, place, 1.0) for place, name in enumerate("abcd", 1)]
    stock = {"a": (0.0, 4.0), "b": (0.0, None), "c": (0.0, None), "d": (0.0, None)}
    data = write_searching_shop(tmp_path / "shop", TITLES, VISITS, [*results, ("shoe", "d", 1, 1.0)], stock)
    config = QueryMemoryConfig(nearest_queries=1, top_articles=2)
    memory = build_memory(data, encode, config, known_at=at(3))

    def recall(*examples: Example) -> float:
        return memory_recall(data, memory, encode, config, examples)

    assert recall(example("coat", "b")) == recall(example("coat", "c")) == 1  # a is sold out by then
    assert recall(example("coat", "a")) == recall(example("coat", "d")) == 0
    assert recall(example("coat", "a", 3.5)) == 1
    assert recall(example("coat", "c", 3.5)) == 0
    assert recall(example("coat", "b"), example("coat", "d"), example(None, "b")) == 0.5  # who did not search: left out
    assert recall() == recall(example(None, "b")) == 0


def test_encoders_are_compared_by_what_their_memories_find(tmp_path: Path) -> None:
    """A query that was never shown: one encoder takes it for what it means, the other for something else."""
    data = shop(tmp_path, [("coat", "a", 1, 1.0), ("hath", "b", 1, 1.0)])

    def by_last_letter(texts: Sequence[str]) -> np.ndarray:
        return encode([text[-1] for text in texts])

    config = QueryMemoryConfig(nearest_queries=1)
    found = compare_query_encoders(
        data,
        {"first": encode, "last": by_last_letter},
        config,
        [example("coat with h", "a"), example("cape with t", "a")],
        known_at=at(3),
    )
    assert found["first"] == 1
    assert found["last"] == 0.5
