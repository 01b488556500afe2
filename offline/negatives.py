"""Negative examples for the style LSTM: what a customer could have bought at that moment and never did (§2.4).

Rule: in stock at t_i, and not among any of the customer's purchases in the training data (the order being predicted
included). A share may be drawn from articles sold shortly before t_i instead, as often as they sold, in stock as well.
Where a draw breaks the rule it is repeated; where that does not end, the choice is made from an exact list; a moment
at which nothing at all qualifies gives no example.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import Availability
from model_store.purchases import Purchases

_ROUNDS = 40
_DAY = 86_400

Int64 = NDArray[np.int64]


class NegativeSampler:
    """Draws negatives for the purchases of one training set."""

    def __init__(
        self, purchases: Purchases, availability: Availability, *, recent_share: float = 0.0, recent_days: int = 28
    ):
        self._availability, self._articles = availability, availability.articles
        pairs = purchases.customer.astype(np.int64) * self._articles + purchases.article
        self._bought = np.unique(pairs)
        by_time = np.argsort(purchases.timestamp, kind="stable")
        self._sale_times, self._sold = purchases.timestamp[by_time], purchases.article[by_time].astype(np.int64)
        self._recent_share, self._recent = recent_share, recent_days * _DAY
        ever = np.unique(availability.article)
        self._ever = ever.astype(np.int64)

    def draw(
        self, customer: Int64, time: Int64, count: int, rng: np.random.Generator
    ) -> tuple[Int64, NDArray[np.bool_]]:
        """(negatives int64 (S, count), valid bool (S)) for S purchases by ``customer`` (S) at ``time`` (S).

        A row that is not valid has no qualifying article, and must not be used.
        """
        who, when = np.repeat(customer.astype(np.int64), count), np.repeat(time, count)
        drawn = np.zeros(len(who), dtype=np.int64)
        missing = np.arange(len(who))
        recent = rng.random(len(who)) < self._recent_share
        for attempt in range(_ROUNDS):
            if not len(missing) or not len(self._ever):
                break
            # Where nothing sold lately qualifies, the later half of the attempts takes anything in stock.
            from_sales = recent[missing] & (attempt < _ROUNDS // 2)
            drawn[missing] = self._candidates(when[missing], from_sales, rng)
            missing = missing[~self.qualifies(who[missing], when[missing], drawn[missing])]
        valid = np.ones(len(customer), dtype=bool)
        for index in np.unique(missing // count):
            places = missing[missing // count == index]
            choice = self._exact(int(customer[index]), int(time[index]))
            valid[index] = len(choice) > 0
            if len(choice):
                drawn[places] = rng.choice(choice, len(places))
        return drawn.reshape(-1, count), valid

    def qualifies(self, customer: Int64, time: Int64, article: Int64) -> NDArray[np.bool_]:
        """Whether each article may be a negative for each customer at each time, bool (same shape)."""
        pairs = customer * self._articles + article
        place = np.minimum(np.searchsorted(self._bought, pairs), max(len(self._bought) - 1, 0))
        bought = self._bought[place] == pairs if len(self._bought) else np.zeros(len(pairs), dtype=bool)
        return ~bought & self._availability.in_stock(article, time)

    def _candidates(self, time: Int64, from_sales: NDArray[np.bool_], rng: np.random.Generator) -> Int64:
        drawn = self._ever[rng.integers(len(self._ever), size=len(time))]
        if from_sales.any():
            moments = time[from_sales]
            low = np.searchsorted(self._sale_times, moments - self._recent, side="left")
            high = np.searchsorted(self._sale_times, moments, side="left")
            some = high > low
            index = low + (rng.random(len(moments)) * (high - low)).astype(np.int64)
            drawn[np.flatnonzero(from_sales)[some]] = self._sold[index[some]]
        return drawn

    def _exact(self, customer: int, time: int) -> Int64:
        stock = np.flatnonzero(self._availability.in_stock_at(time))
        return stock[self.qualifies(np.full(len(stock), customer), np.full(len(stock), time), stock)]
