"""Retrieval with mixup against a plain statement of it, through any changes of the index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.generation import IdEmbeddings, rank_bonus
from service.engine.filters import EVERYTHING, Filters
from service.engine.ids import IdSpace
from service.engine.index import ArticleIndex
from service.engine.kept_lists import SPARE, KeptLists
from service.engine.mixup import Intent, Mixup

from . import shops
from .shops import Entry, Shop, article

TRAINED = [f"a{number}" for number in range(0, 31, 2)]
entries = st.builds(Entry, shops.articles, shops.vectors, st.booleans(), shops.vectors)
tables = st.builds(
    lambda vectors, cold: IdEmbeddings({name: row for row, name in enumerate(TRAINED)}, np.stack(vectors), cold),
    st.lists(shops.vectors, min_size=len(TRAINED), max_size=len(TRAINED)),
    shops.vectors,
)


def build(live: list[Entry], table: IdEmbeddings, cells_from: int = 4_096) -> tuple[ArticleIndex, Shop, IdSpace]:
    space = IdSpace(table, cells_from)
    index, shop = ArticleIndex(cells_from, titles=True, place_of=space.place_of), Shop()
    for entry in live:
        put(index, shop, entry)
    return index, shop, space


def put(index: ArticleIndex, shop: Shop, entry: Entry) -> None:
    index.upsert(entry.article, entry.dna, entry.in_stock, entry.title)
    shop.live[entry.article.article_id] = entry


def by_id(shop: Shop, table: IdEmbeddings, query: np.ndarray, wanted: Filters) -> list[tuple[str, float]]:
    ids = [entry.article.article_id for entry in shop.allowed(wanted)]
    scored = [(-float(vector @ query), name) for name, vector in zip(ids, table.of(ids), strict=True)]
    return [(name, -score) for score, name in sorted(scored)]


def by_hand(shop: Shop, table: IdEmbeddings, intent: Intent, wanted: Filters, k: int, n: int) -> list[str]:
    """§4.4 in a few lines: the first n by id, then the title list from there on."""
    titles = [name for name, _ in shop.best(intent.title, 10**6, wanted, "title")]
    head: list[str] = []
    if intent.article_id is not None and (intent.article_id in shop.live or table.knows(intent.article_id)):
        nearest = [name for name, _ in by_id(shop, table, table.of([intent.article_id])[0], wanted)]
        own = [intent.article_id] if intent.article_id in nearest else []
        head = list(dict.fromkeys([*own, *nearest]))[:n]
    return [*head, *(name for name in titles[min(n, len(head)) : k + n] if name not in head)][:k]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(entries, max_size=30),
    tables,
    st.none() | st.integers(0, 40).map(lambda number: f"a{number}"),
    shops.vectors,
    shops.filters,
    st.integers(1, 40),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([1, 8, 99]),
)
def test_mixup_is_what_the_paper_says(live, table, article_id, title, wanted, k, n, cells_from):
    index, shop, space = build(live, table, cells_from)
    intent = Intent(title, article_id)
    made = Mixup(space, n, k).make(index, intent, wanted)
    assert index.ids_of(made.rows) == by_hand(shop, table, intent, wanted, k, n)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(entries, max_size=30), tables, shops.vectors, shops.filters, st.integers(1, 9), st.sampled_from([1, 99])
)
def test_the_id_search_equals_brute_force_with_cold_articles_in_order_of_id(live, table, query, wanted, k, cells_from):
    index, shop, space = build(live, table, cells_from)
    found = space.search(index, query, k, wanted)
    assert list(zip(found.article_ids, found.scores.tolist(), strict=True)) == by_id(shop, table, query, wanted)[:k]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(entries, max_size=20),
    tables,
    shops.vectors,
    shops.filters,
    st.lists(entries | st.integers(0, 30), max_size=12),
)
def test_kept_lists_follow_the_index_through_every_change(live, table, title, wanted, later):
    index, shop, space = build(live, table)
    mixup, intent = Mixup(space, 2, 5), Intent(title, "a4")
    for change in later:
        mixup.make(index, intent, wanted)
        if isinstance(change, int):
            index.remove(f"a{change}")
            shop.live.pop(f"a{change}", None)
        else:
            put(index, shop, change)
        made = mixup.make(index, intent, wanted)
        assert index.ids_of(made.rows) == by_hand(shop, table, intent, wanted, 5, 2)


class Counted:
    """Searches titles, and counts how often."""

    def __init__(self) -> None:
        self.searches = 0
        self.lists = KeptLists(self.search, self.score, 3)

    def search(self, index, vector, k, filters):
        self.searches += 1
        return index.search(vector, k, filters, "title")

    def score(self, index, rows, vector):
        return index.scores(rows, vector, "title")

    def nearest(self, index: ArticleIndex, query: np.ndarray, k: int, filters: Filters = EVERYTHING) -> tuple[str, ...]:
        return tuple(index.ids_of(self.lists.nearest(index, query, k, filters)))


def spread(count: int) -> ArticleIndex:
    """Articles ``a0``, ``a1``, … whose titles lie ever farther from the first axis."""
    index = ArticleIndex(titles=True)
    titles = np.zeros((count, 128), np.float32)
    titles[:, 0] = np.arange(count, 0, -1)
    dna = np.zeros((count, 128), np.float32)
    index.upsert_many([article(number) for number in range(count)], dna, [True] * count, titles)
    return index


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"a{number}" for number in numbers)


def test_a_list_is_searched_for_once_until_it_runs_out():
    index, counted, query = spread(200), Counted(), np.eye(1, 128, dtype=np.float32)[0]

    def nearest(**filters) -> tuple[str, ...]:
        return counted.nearest(index, query, 3, Filters(**filters))

    assert nearest() == names(0, 1, 2)
    assert nearest(exclude=frozenset({"a1"})) == names(0, 2, 3)
    index.set_stock("a0", False)
    index.remove("a2")
    assert nearest() == names(1, 3, 4)
    index.set_stock("a0", True)
    assert nearest() == names(0, 1, 3)
    assert counted.searches == 1
    for number in range(SPARE + 3):
        index.set_stock(f"a{number}", False)
    assert nearest() == names(SPARE + 3, SPARE + 4, SPARE + 5)
    assert counted.searches == 2
    assert nearest(exclude=frozenset(names(*range(SPARE + 3, 140)))) == names(140, 141, 142)
    assert counted.searches == 3


def test_a_list_is_made_anew_where_too_much_changed_or_for_another_index():
    index, counted, query = spread(50), Counted(), np.eye(1, 128, dtype=np.float32)[0]
    assert counted.nearest(index, query, 2) == names(0, 1)
    for number in range(1_001):
        index.set_stock("a0", bool(number % 2))
    assert counted.nearest(index, query, 2) == names(1, 2)
    assert counted.searches == 2
    assert counted.nearest(spread(1), query, 2) == names(0)
    assert counted.searches == 3


def test_the_lists_that_are_kept_are_bounded():
    index, counted = spread(5), Counted()
    counted.lists = KeptLists(counted.search, counted.score, 1, most=2)
    axes = np.eye(3, 128, dtype=np.float32)
    for axis in (0, 1, 0, 2, 0, 1):
        counted.lists.nearest(index, axes[axis], 1, EVERYTHING)
    assert counted.searches == 4  # the second axis was the least lately used when the third came


def test_a_list_that_outgrows_its_room_forgets_its_end():
    index, counted, query = spread(300), Counted(), np.eye(1, 128, dtype=np.float32)[0]
    for number in range(150):
        index.set_stock(f"a{number}", False)
    assert counted.nearest(index, query, 3) == names(150, 151, 152)
    for number in range(150):
        index.set_stock(f"a{number}", True)
    assert counted.nearest(index, query, 3) == names(0, 1, 2)
    assert counted.searches == 1
    room = 3 + 2 * SPARE
    assert counted.nearest(index, query, 3, Filters(exclude=frozenset(names(*range(room - 3))))) == names(
        room - 3, room - 2, room - 1
    )
    assert counted.searches == 1
    assert counted.nearest(index, query, 3, Filters(exclude=frozenset(names(*range(room - 2))))) == names(
        room - 2, room - 1, room
    )
    assert counted.searches == 2


def test_lists_of_different_filters_are_different():
    index, counted, query = spread(5), Counted(), np.eye(1, 128, dtype=np.float32)[0]
    for wanted in (Filters(brand=frozenset({"x", "y"})), Filters(colour=frozenset({"x", "y"})), Filters(price_min=1.0)):
        for _ in range(2):
            assert counted.nearest(index, query, 2, wanted) == counted.search(index, query, 2, wanted).article_ids
    assert counted.searches == 3 + 6


def test_scans_of_many_rows_are_exact():
    """As many articles as are scanned in production, unit vectors, ids of which a third are cold."""
    rng = np.random.default_rng(0)
    count = 6_000

    def unit(rows: int) -> np.ndarray:
        vectors = rng.standard_normal((rows, 128)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    titles, articles = unit(count), [article(number) for number in range(count)]
    in_stock = (rng.random(count) < 0.7).tolist()
    trained = [f"a{number}" for number in range(0, count, 3)] + [f"a{number}" for number in range(1, count, 3)]
    table = IdEmbeddings({name: row for row, name in enumerate(trained)}, unit(len(trained)), unit(1)[0])
    space = IdSpace(table)
    index = ArticleIndex(titles=True, place_of=space.place_of)
    index.upsert_many(articles, titles, in_stock, titles)
    shop = Shop({a.article_id: Entry(a, t, s, t) for a, t, s in zip(articles, titles, in_stock, strict=True)})
    mixup = Mixup(space, 2)
    for number in range(0, 3_000, 307):
        intent = Intent(titles[number], f"a{number}")
        made = mixup.make(index, intent, EVERYTHING)
        assert index.ids_of(made.rows) == by_hand(shop, table, intent, EVERYTHING, 200, 2)


def test_the_bonus_is_1_for_the_first_and_nearly_0_for_the_last():
    bonus = rank_bonus(500)
    assert len(bonus) == 200
    assert bonus[0] == 1.0
    assert bonus[-1] == pytest.approx(np.log(201 / 200) / np.log(201))
    assert (np.diff(bonus) < 0).all()
    assert len(rank_bonus(0)) == 0
