from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.records import Article
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex
from service.engine.similar import similar
from service.engine.space import InvalidVector

from . import shops
from .shops import Entry, Shop, article

changes = st.one_of(
    st.tuples(st.just("upsert"), shops.articles, st.tuples(shops.vectors, shops.vectors), st.booleans()),
    st.tuples(st.just("remove"), st.integers(0, 30), st.none(), st.none()),
    st.tuples(st.just("stock"), st.integers(0, 30), st.none(), st.booleans()),
)


def apply(index: ArticleIndex, shop: Shop, change) -> None:
    what, subject, vectors, in_stock = change
    if what == "upsert":
        dna, title = vectors
        index.upsert(subject, dna, in_stock, title)
        shop.live[subject.article_id] = Entry(subject, dna, in_stock, title)
        shop.removed.pop(subject.article_id, None)
        return
    article_id = f"a{subject}"
    entry = shop.live.get(article_id)
    if what == "remove":
        assert index.remove(article_id) is (entry is not None)
        if entry is not None:
            shop.removed[article_id] = shop.live.pop(article_id).dna
    else:
        assert index.set_stock(article_id, in_stock) is (entry is not None)
        if entry is not None:
            entry.in_stock = in_stock


@settings(deadline=None, max_examples=150)
@given(st.lists(changes, max_size=60), shops.vectors, st.integers(1, 40), shops.filters)
def test_what_is_alike_is_what_has_the_highest_cosine_after_any_changes(steps, query, k, wanted):
    index, shop = ArticleIndex(titles=True), Shop()
    for change in steps:
        apply(index, shop, change)
    lengths = {
        entry.article.article_id: np.linalg.norm(entry.dna) * np.linalg.norm(query) for entry in shop.live.values()
    }
    cosines = {
        entry.article.article_id: float(entry.dna @ query / (lengths[entry.article.article_id] or 1.0))
        for entry in shop.allowed(wanted)
    }
    found = similar(index, query, k, wanted)
    assert len(found.article_ids) == min(k, len(cosines))
    np.testing.assert_allclose(found.scores, [cosines[article_id] for article_id in found.article_ids], atol=1e-6)
    np.testing.assert_allclose(found.scores, sorted(cosines.values(), reverse=True)[:k], atol=1e-6)
    assert list(found.scores) == sorted(found.scores, reverse=True)


@settings(deadline=None, max_examples=150)
@given(st.lists(changes, max_size=60), shops.vectors, st.integers(1, 40), shops.filters, st.sampled_from([1, 8, 99]))
def test_search_equals_brute_force_after_any_changes(steps, query, k, wanted, cells_from):
    places = {f"a{number}": number for number in range(0, 31, 2)}
    index, shop = ArticleIndex(cells_from=cells_from, titles=True, place_of=places), Shop()
    for change in steps:
        apply(index, shop, change)
    for by in ("dna", "title"):
        found = index.search(query, k, wanted, by)
        assert list(zip(found.article_ids, found.scores.tolist(), strict=True)) == shop.best(query, k, wanted, by)
    rows = index.allowed_rows(wanted)
    assert sorted(index.ids_of(rows)) == sorted(entry.article.article_id for entry in shop.allowed(wanted))
    assert index.places_of(rows).tolist() == [places.get(article_id, -1) for article_id in index.ids_of(rows)]
    assert len(index) == len(shop.live)
    for article_id, entry in shop.live.items():
        assert (index.dna_of(article_id) == entry.dna).all()
        assert (index.title_vectors_of([article_id])[0] == entry.title).all()
        assert index.title_of(article_id) == entry.article.title
        assert orjson.loads(index.article_json(article_id))["price"] == entry.article.price
    for article_id, dna in shop.removed.items():
        assert (index.dna_of(article_id) == dna).all()
        assert not index.knows(article_id)


@pytest.mark.parametrize("spread", [1.0, 1e-20, 1e6])
def test_search_equals_brute_force_after_many_changes_in_cells(spread):
    """Changes enough for rows to be given to others, and for cells to be made anew."""
    rng = np.random.default_rng(1)
    index, shop = ArticleIndex(cells_from=64), Shop()

    def put(number: int, scale: float) -> None:
        dna = (rng.standard_normal(128) * spread * scale).astype(np.float32)
        entry = Entry(article(number, category=shops.CATEGORIES[number % 3]), dna.astype(np.float64), bool(number % 5))
        index.upsert(entry.article, dna, entry.in_stock)
        shop.live[entry.article.article_id] = entry

    for number in range(1_500):
        put(number, 1.0 if number % 70 else 30.0)
        if number % 3 == 0:
            put(int(rng.integers(0, number + 1)), 1.0)
        if number % 4 == 0:
            article_id = f"a{rng.integers(0, number + 1)}"
            if article_id in shop.live:
                index.set_stock(article_id, not shop.live[article_id].in_stock)
                shop.live[article_id].in_stock = not shop.live[article_id].in_stock
        if number % 9 == 0:
            article_id = f"a{rng.integers(0, number + 1)}"
            assert index.remove(article_id) is (shop.live.pop(article_id, None) is not None)
        if number % 50 == 49:
            query = rng.standard_normal(128).astype(np.float32)
            for wanted in (
                EVERYTHING,
                Filters(category=frozenset({"dress", "shirt"}), exclude=frozenset({"a1", "a3"})),
            ):
                expected = [article_id for article_id, _ in shop.best(query.astype(np.float64), 15, wanted)]
                assert list(index.search(query, 15, wanted).article_ids) == expected


def random_index(n: int, seed: int = 0, spread: float = 1.0) -> tuple[ArticleIndex, Shop]:
    rng = np.random.default_rng(seed)
    dna = (rng.standard_normal((n, 128)) * spread).astype(np.float32)
    in_stock = (rng.random(n) < 0.8).tolist()
    articles = [article(i, category=shops.CATEGORIES[i % 3], price=float(i + 1)) for i in range(n)]
    index = ArticleIndex(cells_from=2 * n)
    index.upsert_many(articles, dna, in_stock)
    entries = map(Entry, articles, dna.astype(np.float64), in_stock)
    return index, Shop({entry.article.article_id: entry for entry in entries})


@pytest.mark.parametrize(
    "wanted",
    [
        EVERYTHING,
        Filters(category=frozenset({"dress"})),
        Filters(price_max=3000.0),
        Filters(price_max=100.0),
        Filters(price_min=1500.0, price_max=1520.0),
        Filters(exclude=frozenset(f"a{i}" for i in range(0, 4000, 2))),
    ],
)
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e6])
def test_search_equals_brute_force_on_real_numbers(wanted, spread):
    index, shop = random_index(4000, spread=spread)
    for seed in range(5):
        query = np.random.default_rng(seed).standard_normal(128).astype(np.float32)
        found = index.search(query, 100, wanted)
        expected = shop.best(query.astype(np.float64), 100, wanted)
        assert list(found.article_ids) == [article_id for article_id, _ in expected]
        np.testing.assert_allclose(found.scores, [score for _, score in expected], rtol=1e-6, atol=1e-5 * spread)


def test_ties_stand_in_order_of_id_even_at_the_end_of_the_answer():
    index = ArticleIndex()
    index.upsert_many([article(i) for i in range(2000)], np.ones((2000, 128), np.float32), [True] * 2000)
    found = index.search(np.ones(128, np.float32), 5)
    assert found.article_ids == ("a0", "a1", "a10", "a100", "a1000")


def test_one_far_article_does_not_disturb_the_others():
    index, shop = random_index(3000)
    far = np.full(128, 1e8, np.float32)
    index.upsert(article(99_999), far, True)
    shop.live["a99999"] = Entry(article(99_999), far.astype(np.float64), True)
    query = np.random.default_rng(3).standard_normal(128).astype(np.float32)
    expected = [article_id for article_id, _ in shop.best(query.astype(np.float64), 50, EVERYTHING)]
    assert list(index.search(query, 50).article_ids) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_vectors_that_cannot_be_ranked_are_refused_by_name_and_change_nothing(bad):
    index = ArticleIndex()
    dna = np.ones((2, 128), np.float32)
    dna[1, 7] = bad
    with pytest.raises(InvalidVector, match=r"Fashion DNA of article 'a2': holds NaN, infinity or a component beyond"):
        index.upsert_many([article(1), article(2)], dna, [True, True])
    assert len(index) == 0
    with pytest.raises(InvalidVector, match="query vector"):
        index.search(dna[1], 3)


def test_shapes_are_checked():
    index = ArticleIndex()
    with pytest.raises(InvalidVector, match=r"a1.: has shape \(64,\)"):
        index.upsert(article(1), np.ones(64, np.float32), True)
    with pytest.raises(InvalidVector, match="for 1 articles"):
        index.upsert_many([article(1)], np.ones((2, 128), np.float32), [True])


def test_titles_come_with_every_article_or_with_none():
    ones = np.ones(128, np.float32)
    with pytest.raises(ValueError, match="come with every article"):
        ArticleIndex(titles=True).upsert(article(1), ones, True)
    with pytest.raises(ValueError, match="come with every article"):
        ArticleIndex().upsert(article(1), ones, True, ones)
    with pytest.raises(ValueError, match="holds no title embeddings"):
        ArticleIndex().search(ones, 1, EVERYTHING, "title")
    index = ArticleIndex(titles=True)
    with pytest.raises(InvalidVector, match="title embedding of article 'a1': holds NaN"):
        index.upsert(article(1), ones, True, ones * np.float32(np.nan))
    assert len(index) == 0


def test_the_last_of_one_id_stays():
    index = ArticleIndex()
    dna = np.stack([np.full(128, 1.0), np.full(128, 2.0)]).astype(np.float32)
    index.upsert_many([article(1, price=1.0), article(1, price=2.0)], dna, [True, False])
    assert len(index) == 1
    assert not index.in_stock("a1")
    assert (index.dna_of("a1") == 2.0).all()


def test_public_json_has_the_contracts_fields_and_nothing_else():
    index = ArticleIndex()
    record = Article(article_id="é/1", title="T", category="C", brand="B", price=9.5, image="x.jpg", tags=("t",))
    index.upsert(record, np.zeros(128, np.float32), True)
    assert orjson.loads(index.article_json("é/1")) == {
        "article_id": "é/1",
        "title": "T",
        "category": "C",
        "brand": "B",
        "colour": None,
        "price": 9.5,
        "image": "x.jpg",
    }
    assert index.article_json("unknown") is None


def test_dna_of_articles_that_were_never_live_can_be_remembered():
    index = ArticleIndex()
    index.remember_dna("gone", np.full(128, 3.0, np.float32))
    assert (index.dna_of("gone") == 3.0).all()
    assert not index.knows("gone")
    assert index.search(np.ones(128, np.float32), 5).article_ids == ()
    assert index.dna_of("unheard of") is None


def test_a_batch_equals_one_by_one():
    index, _ = random_index(500)
    queries = np.random.default_rng(2).standard_normal((4, 128)).astype(np.float32)
    for query, found in zip(queries, index.search_many(queries, 7), strict=True):
        assert found.article_ids == index.search(query, 7).article_ids


def indexed(entries: list[Entry]) -> ArticleIndex:
    index = ArticleIndex()
    for entry in entries:
        index.upsert(entry.article, entry.dna, entry.in_stock)
    return index


def test_facets_are_those_of_what_is_in_stock_the_most_frequent_first() -> None:
    entries = [
        Entry(article(number, category=category, colour=colour), np.zeros(128, np.float32), in_stock)
        for number, (category, colour, in_stock) in enumerate(
            [("Shirt", "red", True), ("dress", None, True), ("Dress", "Blue", True), ("coat", "red", False)]
        )
    ]
    index = indexed(entries)
    assert index.facets("category", 10) == ["dress", "Shirt"]  # as each was first written
    assert index.facets("category", 1) == ["dress"]
    assert sorted(index.facets("colour", 10)) == ["Blue", "red"]
    assert index.facets("gender", 10) == []


@pytest.mark.parametrize("most", [1, 7, 29, 30, 100])
def test_some_of_what_is_in_stock_are_taken_evenly(most: int) -> None:
    entries = [Entry(article(number), np.zeros(128, np.float32), number % 2 == 0) for number in range(60)]
    index = indexed(entries)
    rows = index.some_in_stock(most)
    assert len(set(rows.tolist())) == min(most, 30)
    assert all(index.in_stock(article_id) for article_id in index.ids_of(rows))
    if 1 < most < 30:
        assert len({int(row) // 20 for row in rows}) == min(most, 3)  # of each third
