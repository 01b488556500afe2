from __future__ import annotations

import numpy as np
from tiny_shops import purchases_of

from model_store.dataset import Availability
from offline.negatives import NegativeSampler

DAY = 86_400
ARTICLES = 40
CUSTOMERS = 6


def availability(rng: np.random.Generator) -> Availability:
    """Each article in stock for one or two stretches of the 100 days; the last one never."""
    rows = []
    for article in range(ARTICLES - 1):
        cuts = np.sort(rng.choice(100, 4, replace=False)) * DAY
        rows += [(article, cuts[0], cuts[1]), (article, cuts[2], cuts[3])]
    table = np.asarray(rows, dtype=np.int64)
    return Availability(table[:, 0].astype(np.int32), table[:, 1], table[:, 2], ARTICLES)


def setting(seed: int = 0, **options: float) -> tuple[NegativeSampler, Availability, np.ndarray, np.ndarray, set]:
    rng = np.random.default_rng(seed)
    stock = availability(rng)
    rows = []
    for customer in range(CUSTOMERS):
        for order, day in enumerate(np.sort(rng.choice(np.arange(5, 95), 8, replace=False))):
            choice = np.flatnonzero(stock.in_stock_at(int(day) * DAY))
            rows.append((customer, int(rng.choice(choice)), int(day) * DAY, customer * 8 + order))
    purchases = purchases_of(rows)
    bought = {(row[0], row[1]) for row in rows}
    sampler = NegativeSampler(purchases, stock, **options)
    return sampler, stock, purchases.customer.astype(np.int64), purchases.timestamp, bought


def test_negatives_were_in_stock_at_that_moment_and_never_bought() -> None:
    for share in (0.0, 0.5, 1.0):
        sampler, stock, customer, time, bought = setting(recent_share=share)
        drawn, valid = sampler.draw(customer, time, 50, np.random.default_rng(1))
        assert valid.all()
        assert drawn.shape == (len(customer), 50)
        assert stock.in_stock(drawn, time[:, None]).all()
        assert not any((who, article) in bought for who, row in zip(customer, drawn, strict=True) for article in row)


def test_they_are_uniform_among_what_qualifies() -> None:
    sampler, stock, customer, time, bought = setting()
    drawn, _ = sampler.draw(customer[:1], time[:1], 20_000, np.random.default_rng(1))
    allowed = [a for a in np.flatnonzero(stock.in_stock_at(int(time[0]))) if (0, int(a)) not in bought]
    counts = np.bincount(drawn[0], minlength=ARTICLES)[allowed] / 20_000
    assert counts.sum() == 1.0
    np.testing.assert_allclose(counts, 1 / len(allowed), atol=0.02)


def test_recent_ones_sold_shortly_before() -> None:
    stock = Availability.always(ARTICLES)
    rows = [(0, 1, 10 * DAY, 0), (0, 2, 50 * DAY, 1), (0, 3, 60 * DAY, 2), (1, 4, 60 * DAY, 3), (1, 5, 70 * DAY, 4)]
    sampler = NegativeSampler(purchases_of(rows), stock, recent_share=1.0, recent_days=28)
    drawn, _ = sampler.draw(np.asarray([1]), np.asarray([61 * DAY]), 500, np.random.default_rng(0))
    assert set(drawn[0].tolist()) == {2, 3}  # 1 sold too long ago, 4 and 5 were bought, 5 was sold later


def test_where_nothing_recent_qualifies_anything_in_stock_does() -> None:
    stock = Availability.always(ARTICLES)
    sampler = NegativeSampler(purchases_of([(0, 1, 10 * DAY, 0)]), stock, recent_share=1.0)
    drawn, valid = sampler.draw(np.asarray([0]), np.asarray([10 * DAY]), 200, np.random.default_rng(0))
    assert valid.all()
    assert len(set(drawn[0].tolist())) > ARTICLES // 2


def test_the_last_qualifying_article_is_found_however_rare() -> None:
    count = 5_000
    stock = Availability(
        np.arange(count, dtype=np.int32),
        np.where(np.arange(count) == 77, 10 * DAY, 90 * DAY),
        np.full(count, 99 * DAY),
        count,
    )
    sampler = NegativeSampler(purchases_of([(0, 3, 95 * DAY, 0)]), stock)
    drawn, valid = sampler.draw(np.asarray([0]), np.asarray([20 * DAY]), 3, np.random.default_rng(0))
    assert valid.all()
    assert drawn.tolist() == [[77, 77, 77]]


def test_a_moment_at_which_nothing_qualifies_gives_no_example() -> None:
    stock = Availability(np.asarray([0, 1], np.int32), np.zeros(2, np.int64), np.full(2, 50 * DAY), 2)
    purchases = purchases_of([(0, 0, 10 * DAY, 0), (0, 1, 20 * DAY, 1), (1, 0, 20 * DAY, 2)])
    sampler = NegativeSampler(purchases, stock)
    time = np.asarray([10 * DAY, 20 * DAY, 60 * DAY])
    drawn, valid = sampler.draw(np.asarray([0, 1, 1]), time, 4, np.random.default_rng(0))
    assert valid.tolist() == [False, True, False]
    assert drawn[1].tolist() == [1, 1, 1, 1]
