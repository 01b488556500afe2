from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.bundle import Blend
from model_store.generation import IdEmbeddings
from service.engine.filters import EVERYTHING, Filters
from service.engine.ids import IdSpace
from service.engine.index import ArticleIndex
from service.engine.mixup import Intent, Mixup
from service.engine.ranking import Asked, Ranker, Taste
from service.engine.trending import NO_TREND, TrendSnapshot

from . import shops
from .shops import Entry, Shop, article

shop_entries = st.lists(st.builds(Entry, shops.articles, shops.vectors, st.booleans()), max_size=30)
sales = st.dictionaries(st.integers(0, 35).map(lambda i: f"a{i}"), st.integers(1, 4).map(float), max_size=15)
questions = st.tuples(st.integers(1, 12), shops.filters)


def build(entries: list[Entry]) -> tuple[ArticleIndex, Shop]:
    index, shop = ArticleIndex(), Shop()
    for entry in entries:
        index.upsert(entry.article, entry.dna, entry.in_stock)
        shop.live[entry.article.article_id] = entry
    return index, shop


def by_brute_force(shop: Shop, sold, query, weight, *, n: int, wanted: Filters) -> list[tuple[str, float]]:
    def score(entry: Entry) -> np.float32:
        bonus = np.float32(weight) * np.log1p(np.float64(sold.get(entry.article.article_id, 0.0))).astype(np.float32)
        return np.float32(entry.dna @ query) + bonus

    scored = sorted((-float(score(entry)), entry.article.article_id) for entry in shop.allowed(wanted))
    return [(article_id, -value) for value, article_id in scored[:n]]


def by_counting(shop: Shop, sold, answers, wanted: Filters) -> list[int | None]:
    """The rank of each answer among all that sold and may be shown; None for what did not sell."""
    shown = {entry.article.article_id for entry in shop.allowed(wanted)}
    order = sorted(shown & sold.keys(), key=lambda name: (-sold[name], name))
    rank_of = {name: rank for rank, name in enumerate(order, 1)}
    return [rank_of.get(answer.article_id) for answer in answers]


def ranks(answers, source: str) -> list[int | None]:
    return [answer.sources.get(source) for answer in answers]


def pairs(answers) -> list[tuple[str, float]]:
    return [(answer.article_id, answer.score) for answer in answers]


@settings(deadline=None, max_examples=150)
@given(shop_entries, sales, shops.vectors, st.sampled_from([0.0, 0.3, 1.0, 10.0]), questions)
def test_blended_equals_scoring_everything_in_stock(entries, sold, style, weight, question):
    n, wanted = question
    index, shop = build(entries)
    answers = Ranker(Blend(trend=weight)).rank(
        index, Taste(style, cold=False), n, trending=TrendSnapshot(sold), filters=wanted
    )
    assert pairs(answers) == by_brute_force(shop, sold, style, weight, n=n, wanted=wanted)


@settings(deadline=None, max_examples=80)
@given(shop_entries, sales, shops.vectors, questions)
def test_a_rank_among_what_trends_counts_what_is_in_stock_and_passes(entries, sold, style, question):
    n, wanted = question
    index, shop = build(entries)
    answers = Ranker(Blend(trend=0.3)).rank(
        index, Taste(style, cold=False), n, trending=TrendSnapshot(sold), filters=wanted
    )
    assert ranks(answers, "trending") == by_counting(shop, sold, answers, wanted)


@pytest.mark.parametrize(("seed", "size"), [(0, 300), (1, 300), (2, 3_000), (3, 3_000)])
def test_in_a_shop_where_much_trends_a_ranking_equals_scoring_everything(seed, size):
    """In the larger one, whether few or all that trends is looked at depends on the weight."""
    rng = np.random.default_rng(seed)
    dna = np.zeros((size, 128), np.float32)
    dna[:, :8] = rng.integers(-3, 4, (size, 8))
    categories = rng.choice(shops.CATEGORIES, size)
    index, shop = build(
        [
            Entry(article(i, category=categories[i]), dna[i], in_stock)
            for i, in_stock in enumerate(rng.random(size) < 0.8)
        ]
    )
    sold = {f"a{i}": float(count) for i, count in enumerate(rng.geometric(0.2, size)) if rng.random() < 0.7}
    style = np.where(np.arange(128) < 8, rng.integers(-3, 4, 128), 0).astype(np.float32)
    best_sellers = frozenset(sorted(sold, key=sold.__getitem__)[-40:])
    nearest = frozenset(name for name, _ in shop.best(style, 20, EVERYTHING))
    only_trending = 0
    for weight in (0.01, 0.3, 1.0, 5.0, 25.0, 1e3):
        ranker, trending = Ranker(Blend(trend=weight)), TrendSnapshot(sold)
        for wanted in (
            EVERYTHING,
            Filters(category=frozenset({"dress"})),
            Filters(exclude=best_sellers),
            Filters(exclude=nearest | best_sellers, category=frozenset({"dress", "shirt"})),
        ):
            answers = ranker.rank(index, Taste(style, cold=False), 5, trending=trending, filters=wanted)
            assert pairs(answers) == by_brute_force(shop, sold, style, weight, n=5, wanted=wanted)
            assert ranks(answers, "trending") == by_counting(shop, sold, answers, wanted)
            only_trending += ranks(answers, "style").count(None)
    assert only_trending > 20  # else this would show nothing of what trends


@settings(deadline=None, max_examples=80)
@given(shop_entries, sales, shops.vectors, st.integers(1, 12), shops.filters)
def test_style_ignores_sales(entries, sold, style, n, wanted):
    index, shop = build(entries)
    answers = Ranker(Blend(trend=5.0)).rank(
        index, Taste(style, cold=False), n, strategy="style", trending=TrendSnapshot(sold), filters=wanted
    )
    assert pairs(answers) == shop.best(style, n, wanted)
    assert [answer.sources for answer in answers] == [{"style": place} for place in range(1, len(answers) + 1)]


@settings(deadline=None, max_examples=80)
@given(shop_entries, sales, st.none() | shops.vectors, st.booleans(), questions)
def test_trending_lists_sales_then_the_rest_by_style(entries, sold, style, cold, question):
    n, wanted = question
    index, shop = build(entries)
    strategy = "blended" if cold else "trending"
    answers = Ranker(Blend(trend=1.0)).rank(
        index, Taste(style, cold=cold), n, strategy=strategy, trending=TrendSnapshot(sold), filters=wanted
    )

    def key(entry: Entry) -> tuple[float, float, str]:
        article_id = entry.article.article_id
        by_style = 0.0 if style is None or article_id in sold else -float(entry.dna @ style)
        return -sold.get(article_id, 0.0), by_style, article_id

    expected = [entry.article.article_id for entry in sorted(shop.allowed(wanted), key=key)][:n]
    assert [answer.article_id for answer in answers] == expected
    assert [answer.score for answer in answers] == sorted((answer.score for answer in answers), reverse=True)


@settings(deadline=None, max_examples=80)
@given(shop_entries, sales, shops.vectors.filter(np.any), st.integers(1, 12), shops.filters)
def test_a_session_adapts_a_cold_customers_answer(entries, sold, session, n, wanted):
    index, shop = build(entries)
    answers = Ranker(Blend(trend=1.0)).rank(
        index, Taste(cold=True, session=session), n, strategy="style", trending=TrendSnapshot(sold), filters=wanted
    )
    exact = session.astype(np.float64)
    query = (exact / (exact @ exact)).astype(np.float32)
    top = np.log1p(max(sold.values(), default=0.0)).astype(np.float32)
    expected = by_brute_force(shop, sold, query, 1 / float(top) if sold else 0.0, n=n, wanted=wanted)
    # f·f̄/‖f̄‖² is no whole number: sums may differ in the last place, so places are held against scores.
    assert len(answers) == len(expected)
    np.testing.assert_allclose([a.score for a in answers], [score for _, score in expected], atol=1e-5)


def test_a_clicked_kind_comes_ahead_of_an_equally_sold_one_and_both_ahead_of_what_never_sold():
    index = ArticleIndex()
    axes = np.eye(3, 128, dtype=np.float32)
    for number in range(3):
        index.upsert(article(number), axes[number], True)
    trending = TrendSnapshot({"a0": 9.0, "a1": 9.0})
    answers = Ranker(Blend()).rank(index, Taste(cold=True, session=axes[1]), 3, trending=trending)
    assert [answer.article_id for answer in answers] == ["a1", "a0", "a2"]
    assert answers[0].sources == {"session": 1, "trending": 2}


def test_a_session_that_says_nothing_leaves_the_trend():
    index = ArticleIndex()
    index.upsert(article(1), np.ones(128, np.float32), True)
    taste = Taste(cold=True, session=np.zeros(128, np.float32))
    answers = Ranker(Blend()).rank(index, taste, 3, trending=TrendSnapshot({"a1": 2.0}))
    assert [answer.sources for answer in answers] == [{"trending": 1}]


@pytest.mark.parametrize("strategy", ["style", "trending", "blended"])
@pytest.mark.parametrize("taste", [Taste(), Taste(np.ones(128, np.float32), cold=False)], ids=["cold", "warm"])
def test_what_is_excluded_or_out_of_stock_shows_in_no_strategy_and_no_fallback(strategy, taste):
    index = ArticleIndex()
    for number in range(10):
        index.upsert(article(number), np.ones(128, np.float32), in_stock=number != 4)
    trending = TrendSnapshot({f"a{number}": 5.0 for number in range(6)})
    wanted = Filters(exclude=frozenset({"a0", "a7"}))
    answers = Ranker(Blend(trend=1.0)).rank(index, taste, 200, strategy=strategy, trending=trending, filters=wanted)
    assert sorted(answer.article_id for answer in answers) == ["a1", "a2", "a3", "a5", "a6", "a8", "a9"]


def test_a_sale_a_stock_change_and_a_new_snapshot_show_in_the_next_ranking():
    index = ArticleIndex()
    for number in range(3):
        index.upsert(article(number), np.zeros(128, np.float32), True)
    ranker, trending = Ranker(Blend()), TrendSnapshot({"a1": 3.0, "a2": 2.0})

    def first(snapshot: TrendSnapshot) -> str:
        return ranker.rank(index, Taste(), 1, trending=snapshot)[0].article_id

    assert first(trending) == "a1"
    index.set_stock("a1", False)
    assert first(trending) == "a2"
    assert first(TrendSnapshot({"a0": 1.0})) == "a0"
    assert first(NO_TREND) == "a0"
    index.set_stock("a1", True)
    assert first(trending) == "a1"


def test_an_unknown_style_of_a_known_customer_falls_back_to_the_trend():
    index = ArticleIndex()
    index.upsert(article(1), np.ones(128, np.float32), True)
    answers = Ranker(Blend()).rank(index, Taste(None, cold=False), 5, filters=EVERYTHING)
    assert [answer.sources for answer in answers] == [{"catalogue": 1}]


@settings(deadline=None, max_examples=60)
@given(
    shop_entries,
    sales,
    shops.vectors,
    st.lists(st.tuples(shops.articles, shops.vectors, st.booleans()), max_size=8),
    shops.filters,
)
def test_a_ranker_follows_the_index_through_every_change(entries, sold, style, later, wanted):
    index, shop = build(entries)
    ranker, trending = Ranker(Blend(trend=1.0)), TrendSnapshot(sold)
    for changed, dna, in_stock in later:
        ranker.rank(index, Taste(style, cold=False), 5, trending=trending, filters=wanted)
        if in_stock and changed.article_id in shop.live:
            index.remove(changed.article_id)
            del shop.live[changed.article_id]
        else:
            index.upsert(changed, dna, in_stock)
            shop.live[changed.article_id] = Entry(changed, dna, in_stock)
        answers = ranker.rank(index, Taste(style, cold=False), 5, trending=trending, filters=wanted)
        assert pairs(answers) == by_brute_force(shop, sold, style, 1.0, n=5, wanted=wanted)


def test_a_ranker_begins_again_where_too_much_changed():
    index = ArticleIndex()
    for number in range(3):
        index.upsert(article(number), np.zeros(128, np.float32), True)
    ranker, trending = Ranker(Blend()), TrendSnapshot({"a1": 1.0})
    ranker.rank(index, Taste(), 3, trending=trending)
    revision = index.revision
    for number in range(1_000):
        index.set_stock("a1", bool(number % 2))
    index.set_stock("a1", False)
    assert index.touched_since(revision) is None
    answers = ranker.rank(index, Taste(), 3, trending=trending)
    assert [answer.article_id for answer in answers] == ["a0", "a2"]


def test_what_is_too_new_to_have_sold_counts_as_average_until_its_week_is_over():
    index = ArticleIndex()
    for number in range(10):
        created_at = {8: 999, 9: 1_000}.get(number)
        dated = article(number).model_copy(update={"created_at": created_at})
        index.upsert(dated, np.zeros(128, np.float32), True)
    trending = TrendSnapshot({"a1": 9.0, "a2": 0.5, "a3": 0.5}, since=1_000)
    ranker = Ranker(Blend(trend=2.0))

    def scores() -> dict[str, float]:
        answers = ranker.rank(index, Taste(np.zeros(128, np.float32), cold=False), 20, trending=trending)
        return {answer.article_id: answer.score for answer in answers}

    average = 2.0 * np.log1p(10.0 / 10)
    assert scores()["a9"] == pytest.approx(average)
    assert scores()["a8"] == 0.0  # its week is over
    newer = article(20).model_copy(update={"created_at": 2_000})
    index.upsert(newer, np.zeros(128, np.float32), True)
    assert scores()["a20"] == pytest.approx(2.0 * np.log1p(10.0 / 11))  # follows the index
    index.set_stock("a20", False)
    assert "a20" not in scores()


def test_where_a_quarter_of_the_shop_is_new_newness_counts_for_nothing():
    index = ArticleIndex()
    for number in range(4):
        dated = article(number).model_copy(update={"created_at": 1_000})
        index.upsert(dated, np.zeros(128, np.float32), True)
    trending = TrendSnapshot({"a1": 9.0}, since=1_000)
    answers = Ranker(Blend(trend=1.0)).rank(index, Taste(np.zeros(128, np.float32), cold=False), 4, trending=trending)
    assert [answer.score > 0 for answer in answers] == [True, False, False, False]


# What was generated

IDS = IdEmbeddings({"a1": 0, "a2": 1}, np.eye(2, 128, dtype=np.float32), np.eye(3, 128, dtype=np.float32)[2])
titled_entries = st.lists(st.builds(Entry, shops.articles, shops.vectors, st.booleans(), shops.vectors), max_size=30)
intents = st.builds(Intent, shops.vectors, st.none() | st.integers(0, 35).map(lambda i: f"a{i}"))


def titled(entries: list[Entry], blend: Blend, best_sellers=()) -> tuple[ArticleIndex, Shop, Ranker]:
    space = IdSpace(IDS)
    index, shop = ArticleIndex(titles=True, place_of=space.place_of), Shop()
    for entry in entries:
        index.upsert(entry.article, entry.dna, entry.in_stock, entry.title)
        shop.live[entry.article.article_id] = entry
    return index, shop, Ranker(blend, Mixup(space), best_sellers)


def listed_ids(index: ArticleIndex, ranker: Ranker, intent: Intent, wanted: Filters) -> list[str]:
    return index.ids_of(ranker.mixup(index, intent, wanted).rows)


def gains(listed, weight: float) -> dict[str, np.float32]:
    """What the places of a mixup list are worth, from the formula in ``Blend``."""
    return {
        name: np.float32(weight) * np.float32(math.log2(201 / rank) / math.log2(201))
        for rank, name in enumerate(listed, 1)
    }


def leads(best_sellers, shop: Shop, weight: float) -> dict[str, float]:
    """What the first ten of ``best_sellers`` in stock gain, from the formula in ``Blend``."""
    first = [name for name in best_sellers if name in shop.live and shop.live[name].in_stock][:10]
    return {name: weight * math.log(11 / rank) / math.log(11) for rank, name in enumerate(first, 1)}


@settings(deadline=None, max_examples=150)
@given(
    titled_entries,
    sales,
    st.permutations([f"a{i}" for i in range(36)]),
    shops.vectors,
    st.none() | intents,
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.5, 30.0]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 1.5]),
    st.permutations([f"a{i}" for i in range(31)]).map(lambda names: names[:20]),
    questions,
)
def test_blended_with_best_sellers_and_what_was_bought_equals_scoring_everything_in_stock(
    entries, sold, best_sellers, style, intent, trend, weight, popularity, bought_before, again, question
):
    n, wanted = question
    blend = Blend(trend=trend, best_sellers=weight, popularity=popularity, generated=0.7, bought_before=bought_before)
    index, shop, ranker = titled(entries, blend, best_sellers)
    answers = ranker.rank(
        index,
        Taste(style, cold=False),
        n,
        trending=TrendSnapshot(sold),
        filters=wanted,
        intent=intent,
        again=again,
    )
    gained = {} if intent is None else gains(listed_ids(index, ranker, intent, wanted), 0.7)
    led = leads(best_sellers, shop, weight)
    allowed = {entry.article.article_id for entry in shop.allowed(wanted)}
    had = [name for name in again if name in allowed]
    repeated = {name: float(gain) for name, gain in gains(had, bought_before).items()}

    def score(entry: Entry) -> float:
        name = entry.article.article_id
        own = float(entry.dna @ style) + popularity * float(entry.dna[127]) + trend * math.log1p(sold.get(name, 0.0))
        return own + led.get(name, 0.0) + float(gained.get(name, 0.0)) + repeated.get(name, 0.0)

    expected = sorted((score(entry) for entry in shop.allowed(wanted)), reverse=True)[:n]
    np.testing.assert_allclose([answer.score for answer in answers], expected, atol=1e-4)
    place_of = {name: place for place, name in enumerate(led, 1)}
    for answer in answers:
        assert answer.score == pytest.approx(score(shop.live[answer.article_id]), abs=1e-4)
        assert answer.sources.get("best_sellers") == place_of.get(answer.article_id)
    places = {name: place for place, name in enumerate(had, 1)} if bought_before else {}
    for answer in answers:
        assert answer.sources.get("bought_before") == places.get(answer.article_id)


def test_what_was_bought_last_is_lifted_most() -> None:
    index, _ = build([Entry(article(number), np.zeros(128, np.float32), number != 3) for number in range(300)])
    bought = [f"a{number}" for number in (7, 3, 9, *range(20, 290))]  # a3 is out of stock
    ranker = Ranker(Blend(bought_before=2.0))
    answers = ranker.rank(index, Taste(np.zeros(128, np.float32), cold=False), 300, again=bought)
    assert [answer.article_id for answer in answers[:3]] == ["a7", "a9", "a20"]
    assert [answer.score for answer in answers[:2]] == pytest.approx([2.0, 2 * math.log(201 / 2) / math.log(201)])
    assert sum(answer.score > 0 for answer in answers) == 200


def test_the_next_best_seller_moves_up_when_one_sells_out_and_a_filter_moves_none():
    entries = [
        Entry(article(i, category="dress" if i % 2 else "shirt"), np.zeros(128, np.float32), True) for i in range(30)
    ]
    index, _ = build(entries)
    ranker = Ranker(Blend(best_sellers=1.0), best_sellers=["gone", *(f"a{i}" for i in range(25))])

    def places(**filters):
        answers = ranker.rank(index, Taste(np.zeros(128, np.float32), cold=False), 30, filters=Filters(**filters))
        found = {answer.sources.get("best_sellers"): answer.article_id for answer in answers}
        found.pop(None)
        return [found[place] for place in sorted(found)]

    assert places() == [f"a{i}" for i in range(10)]
    assert places(category=frozenset({"dress"})) == ["a1", "a3", "a5", "a7", "a9"]
    assert places(exclude=frozenset({"a0"})) == [f"a{i}" for i in range(1, 10)]
    index.set_stock("a2", in_stock=False)
    index.remove("a4")
    assert places() == ["a0", "a1", "a3", *(f"a{i}" for i in range(5, 12))]
    for i in range(20):
        index.set_stock(f"a{i}", in_stock=False)
    assert places() == [f"a{i}" for i in range(20, 25)]
    index.set_stock("a0", in_stock=True)
    assert places() == ["a0", *(f"a{i}" for i in range(20, 25))]


def test_best_sellers_count_in_no_other_strategy():
    index, _ = build([Entry(article(i), np.zeros(128, np.float32), True) for i in range(5)])
    ranker = Ranker(Blend(best_sellers=1.0, popularity=3.0), best_sellers=["a4"])
    plain, taste = Ranker(Blend()), Taste(np.ones(128, np.float32), cold=False)
    for strategy in ("style", "trending"):
        assert ranker.rank(index, taste, 5, strategy=strategy) == plain.rank(index, taste, 5, strategy=strategy)
    assert ranker.rank(index, Taste(taste.style), 5) == plain.rank(index, Taste(taste.style), 5)  # who is cold


@pytest.mark.parametrize("strategy", ["style", "blended", "generated"])
@settings(deadline=None, max_examples=40)
@given(titled_entries, sales, shops.vectors, st.none() | intents, questions)
def test_where_the_blend_says_so_a_cold_customer_is_ranked_like_all_others(
    strategy, entries, sold, style, intent, question
):
    n, wanted = question
    index, _, ranker = titled(entries, Blend(trend=0.3, generated=0.7, cold_by_style=True))
    cold, warm = (
        ranker.rank(
            index,
            Taste(style, cold=cold),
            n,
            strategy=strategy,
            trending=TrendSnapshot(sold),
            filters=wanted,
            intent=intent,
        )
        for cold in (True, False)
    )
    assert cold == warm


@settings(deadline=None, max_examples=150)
@given(
    titled_entries,
    sales,
    shops.vectors,
    intents,
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.7, 20.0]),
    questions,
)
def test_blended_with_an_intent_equals_scoring_everything_in_stock(
    entries, sold, style, intent, trend, weight, question
):
    n, wanted = question
    index, shop, ranker = titled(entries, Blend(trend=trend, generated=weight))
    answers = ranker.rank(
        index, Taste(style, cold=False), n, trending=TrendSnapshot(sold), filters=wanted, intent=intent
    )
    gained = gains(listed_ids(index, ranker, intent, wanted), weight)

    def score(entry: Entry) -> float:
        sales_score = np.float32(trend) * np.log1p(np.float64(sold.get(entry.article.article_id, 0.0))).astype("f4")
        return float(entry.dna @ style) + float(sales_score) + float(gained.get(entry.article.article_id, 0.0))

    expected = sorted((score(entry) for entry in shop.allowed(wanted)), reverse=True)[:n]
    np.testing.assert_allclose([answer.score for answer in answers], expected, atol=1e-5)
    for answer in answers:
        assert answer.score == pytest.approx(score(shop.live[answer.article_id]), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_larger_shop_a_ranking_with_an_intent_equals_scoring_everything(seed):
    """Of a mixup list's 200 articles few or all are within reach, as weights are."""
    rng = np.random.default_rng(seed)
    dna, titles = np.zeros((2, 1_000, 128), np.float32)
    dna[:, :8] = rng.integers(-3, 4, (1_000, 8))
    titles[:, :8] = rng.standard_normal((1_000, 8))
    entries = [Entry(article(i), dna[i], i % 5 > 0, titles[i]) for i in range(1_000)]
    sold = {f"a{i}": float(count) for i, count in enumerate(rng.geometric(0.2, 1_000)) if rng.random() < 0.5}
    style = np.where(np.arange(128) < 8, rng.integers(-3, 4, 128), 0).astype(np.float32)
    bonus = np.array([np.log1p(np.float64(sold.get(f"a{i}", 0.0))) for i in range(1_000)]).astype(np.float32)
    places = set()
    for trend, weight in ((0.0, 0.5), (0.0, 50.0), (0.3, 0.5), (0.3, 5.0), (5.0, 50.0), (25.0, 0.5)):
        index, _, ranker = titled(entries, Blend(trend=trend, generated=weight))
        for wanted in (EVERYTHING, Filters(exclude=frozenset(f"a{i}" for i in range(0, 1_000, 9)))):
            intent = Intent(titles[1], "a1")
            answers = ranker.rank(
                index, Taste(style, cold=False), 20, trending=TrendSnapshot(sold), filters=wanted, intent=intent
            )
            gained = gains(listed_ids(index, ranker, intent, wanted), weight)
            assert len(gained) == 200
            scores = {
                f"a{i}": (dna[i] @ style + np.float32(trend) * bonus[i]) + gained.get(f"a{i}", np.float32(0))
                for i in range(1_000)
                if i % 5 and f"a{i}" not in wanted.exclude
            }
            expected = sorted(scores, key=lambda name: (-scores[name], name))[:20]
            assert [answer.article_id for answer in answers] == expected
            places |= {answer.sources.get("generated", 0) for answer in answers}
    assert 0 in places
    assert max(places) > 20  # else this would show nothing of what is far down the list


@settings(deadline=None, max_examples=80)
@given(titled_entries, sales, st.none() | shops.vectors, intents, st.sampled_from([0.0, 0.7]), questions)
def test_a_cold_customers_mixup_list_gains_as_much_as_the_best_seller(entries, sold, style, intent, weight, question):
    n, wanted = question
    index, shop, ranker = titled(entries, Blend(trend=0.3, generated=weight))
    answers = ranker.rank(index, Taste(style), n, trending=TrendSnapshot(sold), filters=wanted, intent=intent)
    best_seller = math.log1p(max(sold.values())) if sold else 1.0
    gained = gains(listed_ids(index, ranker, intent, wanted), best_seller if weight else 0.0)

    def score(entry: Entry) -> float:
        name = entry.article.article_id
        return math.log1p(sold.get(name, 0.0)) + float(gained.get(name, 0.0))

    expected = sorted((score(entry) for entry in shop.allowed(wanted)), reverse=True)[:n]
    np.testing.assert_allclose([answer.score for answer in answers], expected, atol=1e-5)


@settings(deadline=None, max_examples=80)
@given(titled_entries, sales, shops.vectors.filter(np.any), intents, questions)
def test_a_session_and_an_intent_add_up_for_a_cold_customer(entries, sold, session, intent, question):
    n, wanted = question
    index, shop, ranker = titled(entries, Blend(generated=0.1))
    taste = Taste(cold=True, session=session)
    answers = ranker.rank(index, taste, n, trending=TrendSnapshot(sold), filters=wanted, intent=intent)
    gained = gains(listed_ids(index, ranker, intent, wanted), 1.0)
    top = math.log1p(max(sold.values())) if sold else 1.0

    def score(entry: Entry) -> float:
        name = entry.article.article_id
        like = float(entry.dna @ session) / float(session @ session)
        return like + math.log1p(sold.get(name, 0.0)) / top + float(gained.get(name, 0.0))

    expected = sorted((score(entry) for entry in shop.allowed(wanted)), reverse=True)[:n]
    np.testing.assert_allclose([answer.score for answer in answers], expected, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(titled_entries, sales, shops.vectors, intents, st.booleans(), questions)
def test_generated_is_the_mixup_list_and_other_strategies_know_no_intent(entries, sold, style, intent, cold, question):
    n, wanted = question
    index, _, ranker = titled(entries, Blend(trend=0.3, generated=0.7))
    taste, trending = Taste(style, cold=cold), TrendSnapshot(sold)

    def rank(strategy, intent=intent):
        return ranker.rank(index, taste, n, strategy=strategy, trending=trending, filters=wanted, intent=intent)

    listed = listed_ids(index, ranker, intent, wanted)[:n]
    assert pairs(rank("generated")) == [(name, pytest.approx(gain)) for name, gain in gains(listed, 1.0).items()]
    assert [answer.sources for answer in rank("generated")] == [{"generated": rank + 1} for rank in range(len(listed))]
    assert pairs(rank("generated", None)) == pairs(rank("blended", None))
    for strategy in ("style", "trending"):
        assert rank(strategy) == rank(strategy, None)


@pytest.mark.parametrize("cells_from", [10_000, 64])
def test_customers_who_are_ranked_together_get_what_each_gets_alone(cells_from):
    rng = np.random.default_rng(8)
    dna, titles = rng.standard_normal((2, 1_000, 128)).astype(np.float32)
    index, ranker = ArticleIndex(cells_from, titles=True), Ranker(Blend(trend=3.0, generated=5.0))
    index.upsert_many(
        [article(row, price=1 + row % 100) for row in range(1_000)], dna, (rng.random(1_000) < 0.7).tolist(), titles
    )
    now, before = (
        TrendSnapshot({f"a{row}": float(rng.geometric(0.2)) for row in rng.permutation(1_000)[:300]}) for _ in range(2)
    )
    tastes = [Taste(vector, cold=False) for vector in rng.standard_normal((3, 128)).astype(np.float32)]
    tastes += [Taste(tastes[0].style, cold=True), Taste(tastes[0].style, cold=True, session=tastes[1].style), Taste()]
    wide = Filters(exclude=frozenset(f"a{row}" for row in range(0, 1_000, 7)))
    asked = [
        Asked(taste, n, strategy, trending, filters)
        for taste in tastes
        for n, filters in ((5, EVERYTHING), (20, wide), (50, Filters(price_max=60.0)))
        for strategy in ("style", "blended", "trending", "generated")
        for trending in (now, before)
    ]
    rng.shuffle(asked)
    for each, answers in zip(asked, ranker.rank_many(index, asked), strict=True):
        alone = ranker.rank(
            index, each.taste, each.n, strategy=each.strategy, trending=each.trending, filters=each.filters
        )
        assert answers.articles() == alone
    assert ranker.rank_many(index, []) == []


def test_every_source_says_where_it_ranked_an_article():
    index, _, ranker = titled([], Blend(trend=0.1, generated=1.0))
    axes = np.eye(4, 128, dtype=np.float32)
    for number in range(4):
        index.upsert(article(number), axes[number], True, axes[number])
    intent = Intent(axes[3], "a2")
    trending = TrendSnapshot({"a1": 5.0})
    answers = ranker.rank(index, Taste(axes[0], cold=False), 4, trending=trending, intent=intent)
    assert {answer.article_id: answer.sources for answer in answers} == {
        "a0": {"style": 1, "generated": 2},
        "a1": {"style": 2, "trending": 1, "generated": 3},
        "a2": {"style": 3, "generated": 1},
        "a3": {"style": 4},  # the nearest title: its place in the list is the generated id's (§4.4)
    }


def test_a_weight_of_0_looks_nothing_up():
    class Unused(Mixup):
        def make(self, *arguments, **more):
            raise AssertionError("asked")

    index, _, _ = titled([], Blend())
    index.upsert(article(1), np.ones(128, np.float32), True, np.ones(128, np.float32))
    ranker = Ranker(Blend(trend=1.0), Unused(IdSpace(IDS)))
    intent = Intent(np.ones(128, np.float32), "a1")
    assert ranker.rank(index, Taste(np.ones(128, np.float32), cold=False), 1, intent=intent)
    assert ranker.rank(index, Taste(), 1, intent=intent)
