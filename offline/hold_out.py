"""What training does not see: the end of the data, or the end of each customer's history (``config.split.hold_out``).

*By time* (Zalando 2017, §3) nothing is taken out here: training stops at the cut-off. *Last order* is the leave-one-out
of Amazon 2024, §5.1, for orders: whatever a customer did after the order before the last is left out, so that neither
the order nor the session that led to it can be learned. *Last purchase* is the plain leave-one-out of the literature,
which leaves out one article of an order, most often, and lets the others tell it. What others did later stays in both,
as in the literature. Of what is left, the end of each history is left out once more to validate by
(``offline.context``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.purchases import Purchases

Protocol = Literal["by_time", "last_order", "last_purchase"]
"""How a run is evaluated, and so what its training leaves out."""
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
BY_TIME, LAST_ORDER, LAST_PURCHASE = PROTOCOLS


@dataclass(frozen=True)
class HeldOut:
    """The end of the history of each customer who had bought before, L purchases of C customers of a whole data set."""

    protocol: Protocol
    purchases: Purchases
    """all that is in the data set"""
    customer: NDArray[np.int64]
    """(C) index into ``purchases.customer_ids``"""
    rows: NDArray[np.int64]
    """(L) rows of ``purchases``, sorted"""
    known_until: NDArray[np.int64]
    """(C) Unix seconds of the last purchase that is known"""

    @classmethod
    def of(cls, data: DataSet, protocol: Protocol, until: int | None = None) -> HeldOut | None:
        """What is held out of ``data``, returns taken out first; None where training just stops at the cut-off.

        Only what was known at ``until`` (Unix seconds) counts, where that is given.
        """
        if protocol == BY_TIME:
            return None
        purchases = data.purchases(until)
        return _last_orders(purchases) if protocol == LAST_ORDER else _last_purchases(purchases)

    @property
    def begins(self) -> NDArray[np.int64]:
        """(C) Unix seconds of the first purchase of what is held out of each history."""
        first = np.searchsorted(self.purchases.customer[self.rows], self.customer)
        return self.purchases.timestamp[self.rows[first]]

    def left_out_of(self, data: DataSet) -> DataSet:
        """The data set without it, and without what its customers did after the last purchase that is known."""
        names = [self.purchases.customer_ids[index] for index in self.customer]
        ends = dict(zip(names, self.known_until.tolist(), strict=True))
        return data.ended(ends, "without the end of each history", self.purchases.row[self.rows])


def _last_orders(purchases: Purchases) -> HeldOut:
    """Orders as ``Purchases.order`` tells them apart.

    Purchases at the very time of the last order, or later, that belong to another one are neither known nor asked for.
    """
    ends = purchases.offsets[1:] - 1
    last = purchases.order == purchases.order[ends][purchases.customer]
    rows = np.flatnonzero(last)
    customer = purchases.customer[rows]
    begins = np.full(len(ends), np.iinfo(np.int64).max)
    np.minimum.at(begins, customer, purchases.timestamp[rows])
    earlier = np.bincount(purchases.customer[purchases.timestamp < begins[purchases.customer]], minlength=len(ends))
    chosen = np.flatnonzero(earlier)
    known_until = purchases.timestamp[purchases.offsets[chosen] + earlier[chosen] - 1]
    return HeldOut(LAST_ORDER, purchases, chosen, rows[earlier[customer] > 0], known_until)


def _last_purchases(purchases: Purchases) -> HeldOut:
    """Of purchases at one time, the last is the one with the greatest event id."""
    chosen = np.flatnonzero(np.diff(purchases.offsets) > 1)
    rows = purchases.offsets[chosen + 1] - 1
    return HeldOut(LAST_PURCHASE, purchases, chosen, rows, purchases.timestamp[rows - 1])


def training_data(data: DataSet, protocol: Protocol) -> DataSet:
    """What is trained on, of ``data``."""
    held = HeldOut.of(data, protocol)
    return data if held is None else held.left_out_of(data)
