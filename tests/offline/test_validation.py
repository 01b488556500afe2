from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_shops import purchases_of

from model_store.dataset import Availability
from model_store.errors import TrainingError
from model_store.purchases import Purchases
from offline.blend import fit_blend
from offline.hold_out import HeldOut
from offline.popularity import RecentSales
from offline.style_lstm import popular_part
from offline.validation import (
    AsOf,
    Window,
    auc,
    bought_candidates,
    discounted_gain,
    held_out_window,
    make_window,
    owned_candidates,
    ranks,
)

DAY = 86_400
ARTICLES = 12

PURCHASES = purchases_of(
    [
        (0, 1, 5 * DAY, 0),
        (0, 2, 21 * DAY, 1),
        (0, 3, 25 * DAY, 2),
        (1, 4, 22 * DAY, 3),
        (1, 11, 23 * DAY, 4),
        (2, 5, 6 * DAY, 5),
        (3, 6, 30 * DAY, 6),
    ]
)

NOTHING = np.zeros(0, np.int64)
SOMETHING = [np.array([39])] * 300  # what each customer has, and nobody buys again
UNDATED = np.full(ARTICLES, -1)


def always(row: np.ndarray, window: Window) -> AsOf:
    """The same for all customers, float32 (A)."""
    return AsOf(row[None].astype(np.float32), np.zeros(len(window.customers), np.int64))


def trend(purchases: Purchases, window: Window, until: int) -> AsOf:
    """Log(1 + sales) of the week before one moment, of 40 articles."""
    return always(np.log1p(RecentSales(purchases, 40).before(until)), window)


def stock() -> Availability:
    """Everything always, but 0 is gone before the window and 11 never was."""
    end = np.where(np.arange(ARTICLES - 1) == 0, 20 * DAY, 99 * DAY)
    return Availability(np.arange(ARTICLES - 1, dtype=np.int32), np.zeros(ARTICLES - 1, np.int64), end, ARTICLES)


def test_a_window_holds_its_purchases_and_reads_each_style_at_the_first() -> None:
    window = make_window(PURCHASES, stock(), 20 * DAY, 30 * DAY, name="validation")
    assert window.customers == ["c0", "c1"]
    assert window.times.tolist() == [21 * DAY, 22 * DAY]
    assert window.candidates.tolist() == list(range(1, 11))
    assert window.row.tolist() == [0, 0, 1]
    assert window.candidates[window.target].tolist() == [2, 3, 4]  # 11 was never in stock


def test_a_window_may_hold_some_customers_only() -> None:
    window = make_window(
        PURCHASES, stock(), 20 * DAY, 40 * DAY, name="validation", most=2, rng=np.random.default_rng(0)
    )
    whole = make_window(PURCHASES, stock(), 20 * DAY, 40 * DAY, name="validation")
    assert len(window.customers) == 2
    for row, target in zip(window.row, window.target, strict=True):
        place = whole.customers.index(window.customers[row])
        assert (place, target) in zip(whole.row.tolist(), whole.target.tolist(), strict=True)


def test_an_empty_window_is_named() -> None:
    with pytest.raises(TrainingError, match=r"validation window 1970-02-10 … 1970-02-15 holds no purchase"):
        make_window(PURCHASES, stock(), 40 * DAY, 45 * DAY, name="validation")


def test_ranks_and_auc_are_those_of_an_independent_implementation() -> None:
    rng = np.random.default_rng(0)
    window = make_window(PURCHASES, stock(), 20 * DAY, 30 * DAY, name="validation")
    dna = rng.normal(size=(ARTICLES, 128)).astype(np.float32)
    styles = rng.normal(size=(2, 128)).astype(np.float32)
    rank = ranks(window, dna, styles)
    scores = styles @ dna[window.candidates].T
    areas = []
    for row, target in zip(window.row, window.target, strict=True):
        bought = np.arange(len(window.candidates)) == target
        areas.append(roc_auc_score(bought, scores[row]))
    assert auc(window, rank) == pytest.approx(np.mean(areas), abs=1e-6)
    assert discounted_gain(rank) == pytest.approx(np.mean(1 / np.log2(1 + rank)))


def test_ties_share_the_middle() -> None:
    window = make_window(PURCHASES, stock(), 20 * DAY, 30 * DAY, name="validation")
    rank = ranks(window, np.zeros((ARTICLES, 128), np.float32), np.zeros((2, 128), np.float32))
    assert rank.tolist() == [5.5, 5.5, 5.5]
    assert auc(window, rank) == pytest.approx(0.5)


def test_scores_in_blocks_are_scores_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    window = make_window(PURCHASES, stock(), 20 * DAY, 31 * DAY, name="validation")
    dna = rng.normal(size=(ARTICLES, 128)).astype(np.float32)
    styles = rng.normal(size=(3, 128)).astype(np.float32)
    extra = rng.normal(size=(3, len(window.candidates))).astype(np.float32)
    whole = ranks(window, dna, styles, lambda low, high: extra[low:high])
    monkeypatch.setattr("offline.validation._BLOCK", 1)
    np.testing.assert_array_equal(ranks(window, dna, styles, lambda low, high: extra[low:high]), whole)
    assert (ranks(window, dna, styles) != whole).any()


def crowd(popular: bool) -> tuple[np.ndarray, ...]:
    """300 customers who buy once: what sold much the week before, or what their style points at."""
    rng = np.random.default_rng(4)
    styles = rng.normal(size=(300, 128)).astype(np.float32)
    dna = rng.normal(size=(40, 128)).astype(np.float32)
    rows = [
        (300 + index, int(article), 18 * DAY, 300 + index) for index, article in enumerate(rng.integers(4, size=80))
    ]
    for customer in range(300):
        bought = rng.integers(4) if popular else int(np.argmax(dna @ styles[customer]))
        rows.append((customer, int(bought), 20 * DAY, customer))
    return np.asarray(sorted(rows)), dna, styles


@pytest.mark.parametrize("popular", [True, False])
def test_the_blend_takes_the_trend_where_it_helps_and_only_there(popular: bool) -> None:
    rows, dna, styles = crowd(popular)
    purchases = purchases_of([tuple(row) for row in rows.tolist()])
    window = make_window(purchases, Availability.always(40), 20 * DAY, 21 * DAY, name="validation")
    order = [int(name[1:]) for name in window.customers]
    fitted = fit_blend(window, dna, styles[order], trend(purchases, window, 20 * DAY), SOMETHING)
    assert (fitted.blend.trend > 0) == popular
    chosen = next(entry for entry in fitted.tried["trend"] if entry[0] == fitted.blend.trend)
    assert chosen[1] >= fitted.tried["trend"][0][1]  # AUC never falls below the style's alone


@pytest.mark.parametrize(("popular", "some"), [(True, 300), (False, 300), (False, 29)])
def test_who_bought_nothing_yet_is_ranked_by_style_where_that_is_better_for_them(popular: bool, some: int) -> None:
    rows, dna, styles = crowd(popular)
    purchases = purchases_of([tuple(row) for row in rows.tolist()])
    window = make_window(purchases, Availability.always(40), 20 * DAY, 21 * DAY, name="validation")
    order = [int(name[1:]) for name in window.customers]
    fitted = fit_blend(
        window, dna, styles[order], trend(purchases, window, 20 * DAY), [NOTHING] * some + SOMETHING[some:]
    )
    assert fitted.blend.cold_by_style == (not popular and some == 300)
    assert (fitted.cold is None) == (some == 29)
    if popular:  # four best sellers, each as likely: by hand, places 1 to 4 in the order of their sales
        assert fitted.cold is not None
        sold = np.bincount([article for _, article, time, _ in rows.tolist() if time < 20 * DAY], minlength=40)
        bought = [article for customer, article, _, _ in rows.tolist() if customer < 300]
        place = 1 + (sold[None] > sold[bought][:, None]).sum(axis=1)
        assert len(set(sold[:4].tolist())) == 4
        assert fitted.cold[0] == pytest.approx(np.mean(1 / np.log2(1 + place)))


@pytest.mark.parametrize("telling", [True, False])
def test_the_blend_listens_to_generations_where_they_tell_and_only_there(telling: bool) -> None:
    rows, dna, _ = crowd(popular=False)
    rng = np.random.default_rng(5)
    purchases = purchases_of([tuple(row) for row in rows.tolist()])
    window = make_window(purchases, Availability.always(40), 20 * DAY, 21 * DAY, name="validation")
    weak = rng.normal(size=(len(window.customers), 128)).astype(np.float32)
    target = dict(zip(window.row.tolist(), window.target.tolist(), strict=True))
    lists = [
        np.array([place for place in rng.permutation(40)[:6] if row % 3 and place != target[row]], np.int64)
        for row in range(len(window.customers))
    ]
    if telling:
        lists = [np.append(target[row], one) if len(one) else one for row, one in enumerate(lists)]
    fitted = fit_blend(window, dna, weak, trend(purchases, window, 20 * DAY), SOMETHING, lists)
    if telling:
        assert fitted.blend.generated > 0
        before, after = fitted.tried["generated"][0], max(fitted.tried["generated"], key=lambda entry: entry[2])
        assert after[2] > before[2] + 0.2
    else:
        spread = float(np.std(weak @ dna[window.candidates].T, axis=1).mean())
        assert fitted.blend.generated <= 0.5 * spread


@pytest.mark.parametrize("popular", [True, False])
def test_the_blend_takes_popularity_where_it_helps_and_only_there(popular: bool) -> None:
    rows, dna, styles = crowd(popular)
    purchases = purchases_of([tuple(row) for row in rows.tolist()])
    window = make_window(purchases, Availability.always(40), 20 * DAY, 21 * DAY, name="validation")
    order = [int(name[1:]) for name in window.customers]
    component = np.where(np.arange(40) < 4, 1.0 - 0.1 * np.arange(40), 0.0).astype(np.float32)
    dna[:, 127] = 0.0
    fitted = fit_blend(
        window, dna, styles[order], trend(purchases, window, 10 * DAY), SOMETHING, popularity=always(component, window)
    )  # before anything sold: there is no trend
    assert list(fitted.tried) == ["popularity", "trend", "best_sellers", "bought_before"]
    assert (fitted.blend.popularity + fitted.blend.best_sellers > 0) == popular
    chosen = [
        next(entry for entry in fitted.tried[name] if entry[0] == getattr(fitted.blend, name)) for name in fitted.tried
    ]
    gains = [gain for _, _, gain in chosen]
    assert gains == sorted(gains)  # none takes back what those before won


def test_best_sellers_lift_the_top_where_a_weight_of_popularity_cannot() -> None:
    """Two best sellers are bought by all; of the others, what sold more is bought less."""
    rng = np.random.default_rng(0)
    component = np.linspace(0.0, 1.0, 40).astype(np.float32)
    dna = np.zeros((40, 128), np.float32)
    dna[:, 0] = 3 * (1 - component)
    styles = np.zeros((300, 128), np.float32)
    styles[:, 0] = 1.0
    rows = [(index, int(rng.choice([39, 38, 0, 1, 2, 3, 4, 5, 6])), 20 * DAY, index) for index in range(300)]
    purchases = purchases_of(rows)
    window = make_window(purchases, Availability.always(40), 20 * DAY, 21 * DAY, name="validation")
    fitted = fit_blend(
        window, dna, styles, trend(purchases, window, 20 * DAY), SOMETHING, popularity=always(component, window)
    )
    assert fitted.blend.popularity == 0
    assert fitted.blend.best_sellers > 0


@pytest.mark.parametrize("again", [True, False])
def test_the_blend_lifts_what_was_bought_before_where_that_is_bought_again(again: bool) -> None:
    rng = np.random.default_rng(0)
    dna, styles = rng.normal(size=(40, 128)).astype(np.float32), rng.normal(size=(300, 128)).astype(np.float32)
    had = [np.unique(rng.integers(40, size=3)) for _ in range(300)]
    bought = [rng.choice(own) if again and index % 2 else rng.integers(40) for index, own in enumerate(had)]
    purchases = purchases_of([(index, int(article), 20 * DAY, index) for index, article in enumerate(bought)])
    window = make_window(purchases, Availability.always(40), 20 * DAY, 21 * DAY, name="validation")
    order = [int(name[1:]) for name in window.customers]
    owned = [had[index] for index in order]
    fitted = fit_blend(window, dna, styles[order], trend(purchases, window, 20 * DAY), owned)
    alone, *others = fitted.tried["bought_before"]
    if again:
        assert fitted.blend.bought_before > 0
        assert max(gain for _, _, gain in others) > alone[2] + 0.1
    else:
        assert max(gain for _, _, gain in others) < alone[2] + 0.02


def test_what_was_bought_last_comes_first_and_each_article_once() -> None:
    purchases = purchases_of([(0, article, DAY * day, day) for day, article in enumerate([3, 1, 0, 3, 2, 1])])
    position = np.array([0, 1, -1, 2])
    (bought,) = bought_candidates(position, purchases, np.array([0]))
    assert bought.tolist() == [1, 2, 0]  # articles 1, 3 and 0; 2 is no candidate
    assert [places.tolist() for places in bought_candidates(position, purchases, np.array([-1]))] == [[]]


def test_what_customers_own_is_told_by_its_place_among_the_candidates() -> None:
    position = np.full(ARTICLES, -1)
    position[[3, 1, 5]] = [0, 1, 2]
    owned = owned_candidates(position, PURCHASES, np.array([2, -1, 0]))
    assert [places.tolist() for places in owned] == [[2], [], [0, 1]]  # 2 is no candidate


def test_the_blend_weighs_what_trended_when_each_customer_was_asked() -> None:
    """Half of the customers buy what trended in May, half what trended in June; a mix-up of the two tells nothing."""
    rng = np.random.default_rng(0)
    dna, styles = rng.normal(size=(40, 128)).astype(np.float32), rng.normal(size=(300, 128)).astype(np.float32)
    bought = [int(rng.integers(4)) + (20 if customer % 2 else 0) for customer in range(300)]
    window = held_out_window(held(bought), 40)
    order = [int(name[1:]) for name in window.customers]
    table = np.zeros((2, 40), np.float32)
    table[0, :4], table[1, 20:24] = 1.0, 1.0
    which = np.array([customer % 2 for customer in order])
    right, wrong = (
        fit_blend(window, dna, styles[order], AsOf(table, rows), SOMETHING).blend.trend for rows in (which, 1 - which)
    )
    assert right > 0
    assert wrong == 0


def test_ranks_by_popularity_of_each_customers_own_moment_are_those_of_the_plain_sum() -> None:
    rng = np.random.default_rng(1)
    dna, styles = rng.normal(size=(40, 128)).astype(np.float32), rng.normal(size=(9, 128)).astype(np.float32)
    dna[:, 127] = 0.0
    table, which = rng.random((3, 40)).astype(np.float32), np.array([0, 2, 1, 1, 0, 2, 2, 0, 1])
    bought = rng.integers(40, size=9)
    window = held_out_window(held(bought.tolist()), 40)
    popularity = AsOf.of(np.array([10, 30, 20])[which], lambda moment: table[[10, 30, 20].index(moment)])
    scores = styles @ dna.T + styles[:, 127, None] * table[which]
    expected = 1 + (scores > scores[np.arange(9), bought][:, None]).sum(axis=1)
    found = ranks(window, dna, styles, popular_part(styles, popularity))
    assert found.tolist() == expected.tolist()
    some = np.arange(9) % 2 == 0
    few = popular_part(styles[some], popularity.only(some))
    assert ranks(window.only(some), dna, styles[some], few).tolist() == expected[some].tolist()


def held(bought: list[int]) -> HeldOut:
    """One purchase of each customer after one of the last article, all of them held out."""
    rows = []
    for index, article in enumerate(bought):
        rows += [(index, 39, DAY, 2 * index), (index, article, 2 * DAY, 2 * index + 1)]
    purchases, customers = purchases_of(rows), np.arange(len(bought))
    return HeldOut("last_order", purchases, customers, 2 * customers + 1, np.full(len(bought), DAY))
