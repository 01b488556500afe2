"""What training does not see: the end of the data, or each customer's last order (``config.split.hold_out``).

*By time* (Zalando 2017, §3) nothing is taken out here: training stops at the cut-off. *Last order* is the leave-one-out
of Amazon 2024, §5.1, for orders: whatever a customer did after the order before the last is left out, so that neither
the order nor the session that led to it can be learned. What others did later stays, as in the literature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet, Purchases
from offline.config import Config

LAST_ORDER = "last_order"


@dataclass(frozen=True)
class LastOrders:
    """The last order of each customer who had ordered before, L purchases of C customers, of a whole data set."""

    purchases: Purchases
    """all that is in the data set"""
    customer: NDArray[np.int64]
    """(C) index into ``purchases.customer_ids``"""
    rows: NDArray[np.int64]
    """(L) rows of ``purchases``, sorted"""
    known_until: NDArray[np.int64]
    """(C) Unix seconds of the last purchase before the order"""

    @classmethod
    def of(cls, data: DataSet) -> LastOrders:
        """Orders as ``Purchases.order`` tells them apart; returns are taken out first.

        Purchases at the very time of the last order, or later, that belong to another one are neither known nor asked
        for.
        """
        purchases = data.purchases()
        ends = purchases.offsets[1:] - 1
        last = purchases.order == purchases.order[ends][purchases.customer]
        rows = np.flatnonzero(last)
        customer = purchases.customer[rows]
        begins = np.full(len(ends), np.iinfo(np.int64).max)
        np.minimum.at(begins, customer, purchases.timestamp[rows])
        earlier = np.bincount(purchases.customer[purchases.timestamp < begins[purchases.customer]], minlength=len(ends))
        chosen = np.flatnonzero(earlier)
        known_until = purchases.timestamp[purchases.offsets[chosen] + earlier[chosen] - 1]
        return cls(purchases, chosen, rows[earlier[customer] > 0], known_until)

    def left_out_of(self, data: DataSet) -> DataSet:
        """The data set without them, and without what their customers did after the order before."""
        names = [self.purchases.customer_ids[index] for index in self.customer]
        return data.ended(dict(zip(names, self.known_until.tolist(), strict=True)), "without last orders")


def training_data(data: DataSet, config: Config) -> DataSet:
    """What is trained on, of ``data``."""
    return LastOrders.of(data).left_out_of(data) if config.split.hold_out == LAST_ORDER else data
