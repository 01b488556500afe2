"""How well a model ranks the purchases of a time window: what early stopping and the blend's weights go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import Availability
from model_store.errors import TrainingError
from model_store.purchases import Purchases
from offline.hold_out import HeldOut

Float32 = NDArray[np.float32]
_BLOCK = 64_000_000  # scores held at once


@dataclass(frozen=True)
class Window:
    """The purchases of C customers inside a window, to be found among the articles in stock at some moment of it.

    ``customers`` list (C): their ids; ``times`` int64 (C): each one's first purchase in the window, when their style is
    read; ``candidates`` int64 (A): article numbers; ``row`` int64 (G), sorted, and ``target`` int64 (G): the purchases,
    as indices into ``customers`` and ``candidates``. Purchases of articles that were never in stock are left out.
    """

    customers: list[str]
    times: NDArray[np.int64]
    candidates: NDArray[np.int64]
    row: NDArray[np.int64]
    target: NDArray[np.int64]

    def only(self, chosen: NDArray[np.bool_]) -> Window:
        """The window of the ``chosen`` (C) customers."""
        kept, number = chosen[self.row], np.cumsum(chosen) - 1
        customers = [customer for customer, wanted in zip(self.customers, chosen, strict=True) if wanted]
        return Window(customers, self.times[chosen], self.candidates, number[self.row[kept]], self.target[kept])


def make_window(
    purchases: Purchases,
    availability: Availability,
    start: int,
    end: int,
    *,
    name: str,
    most: int | None = None,
    rng: np.random.Generator | None = None,
) -> Window:
    """The window start ≤ t < end, with at most ``most`` customers, drawn by ``rng``.

    Raises TrainingError where nobody bought anything that was in stock in it; ``name`` is what the message calls it.
    """
    inside = purchases.between(start, end)
    candidates = np.flatnonzero(availability.in_stock_between(start, end))
    position = candidate_places(candidates, availability.articles)
    known = position[inside.article] >= 0
    if not known.any():
        raise TrainingError(
            f"the {name} window {_day(start)} … {_day(end)} holds no purchase of an article in stock: "
            "choose other days in [split], or a data set that reaches further"
        )
    customer, first_row, row = np.unique(inside.customer[known], return_index=True, return_inverse=True)
    times, target = inside.timestamp[known][first_row], position[inside.article[known]]
    window = Window([purchases.customer_ids[index] for index in customer], times, candidates, row, target)
    return _drawn(window, most, rng)


def held_out_window(
    held: HeldOut, articles: int, *, most: int | None = None, rng: np.random.Generator | None = None
) -> Window:
    """What is held out of the ends of histories, to be found among all ``articles``, in stock or not.

    At most ``most`` customers, drawn by ``rng``. Raises TrainingError where nothing is held out.
    """
    if not len(held.customer):
        raise TrainingError(
            "no customer has bought a third time: with the end of each history held out, there is none to validate by"
        )
    row = np.searchsorted(held.customer, held.purchases.customer[held.rows])
    names = [held.purchases.customer_ids[index] for index in held.customer]
    target = held.purchases.article[held.rows].astype(np.int64)
    return _drawn(Window(names, held.begins, np.arange(articles), row, target), most, rng)


def _drawn(window: Window, most: int | None, rng: np.random.Generator | None) -> Window:
    if most is None or rng is None or len(window.customers) <= most:
        return window
    chosen = np.zeros(len(window.customers), bool)
    chosen[rng.choice(len(chosen), most, replace=False)] = True
    return window.only(chosen)


@dataclass(frozen=True)
class AsOf:
    """What A candidates are given for what was known when each of C customers is ranked, at M different moments."""

    table: Float32
    """(M, A)"""
    which: NDArray[np.int64]
    """(C) row of the table"""

    @classmethod
    def of(cls, moments: NDArray[np.int64], make: Callable[[int], Float32]) -> AsOf:
        """What ``make`` gives, float32 (A), for the ``moments`` (C) of the customers, Unix seconds."""
        different, which = np.unique(moments, return_inverse=True)
        return cls(np.stack([make(moment) for moment in different.tolist()]), which)

    def rows(self, low: int, high: int) -> Float32:
        """Of the customers low … high - 1: float32 (high - low, A), or (1, A) where all are given the same."""
        return self.table if len(self.table) == 1 else self.table[self.which[low:high]]

    def only(self, chosen: NDArray[np.bool_]) -> AsOf:
        """Of the ``chosen`` (C) customers."""
        return AsOf(self.table, self.which[chosen])

    def map(self, make: Callable[[Float32], Float32]) -> AsOf:
        """What ``make`` makes of each moment's row, float32 (A)."""
        return AsOf(np.stack([make(row) for row in self.table]), self.which)


def candidate_places(candidates: NDArray[np.int64], articles: int) -> NDArray[np.int64]:
    """Place of each of all ``articles`` among the ``candidates`` (A), −1 for what is none: int64 (articles)."""
    places = np.full(articles, -1, np.int64)
    places[candidates] = np.arange(len(candidates))
    return places


def bought_candidates(
    position: NDArray[np.int64], purchases: Purchases, customers: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """``owned_candidates`` in order of their latest purchase, the latest first."""
    bought = []
    for customer in customers.tolist():
        rows = slice(*purchases.offsets[customer : customer + 2]) if customer >= 0 else slice(0)
        places = position[purchases.article[rows]][::-1]
        places = places[places >= 0]
        bought.append(places[np.sort(np.unique(places, return_index=True)[1])])
    return bought


def owned_candidates(
    position: NDArray[np.int64], purchases: Purchases, customers: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Which candidates each customer has bought: their positions, ascending.

    ``position`` int64 (N): place of each article among the candidates, -1 for what is none; ``customers`` int64 (C):
    index into those of ``purchases``, -1 for who bought nothing.
    """
    return [np.sort(places) for places in bought_candidates(position, purchases, customers)]


def ranks(
    window: Window, dna: Float32, styles: Float32, bonus: Callable[[int, int], Float32] | None = None
) -> NDArray[np.float64]:
    """Rank of each purchase among the candidates, float64 (G), 1 = top; ties share the middle of their places.

    ``dna`` float32 (N, 128) of all articles, ``styles`` float32 (C, 128). ``bonus`` gives what is added to f·d of the
    customers low … high - 1: float32 (high - low, A).
    """
    result = np.empty(len(window.row), dtype=np.float64)
    candidates = dna[window.candidates]
    for low, high, purchases in _blocks(window):
        scores = styles[low:high] @ candidates.T  # (block, A)
        if bonus is not None:
            scores += bonus(low, high)
        for index in purchases:
            row = scores[window.row[index] - low]
            mine = row[window.target[index]]
            result[index] = 0.5 + np.count_nonzero(row > mine) + 0.5 * np.count_nonzero(row == mine)
    return result


def _blocks(window: Window) -> Iterator[tuple[int, int, range]]:
    """(first customer, end, their purchases), so many customers at a time that their scores fit in memory."""
    size = max(_BLOCK // max(len(window.candidates), 1), 1)
    for low in range(0, len(window.customers), size):
        high = min(low + size, len(window.customers))
        yield low, high, range(*np.searchsorted(window.row, [low, high]).tolist())


def auc(window: Window, rank: NDArray[np.float64]) -> float:
    """Area under the ROC of all purchases together (§3.4): the mean share of other candidates ranked below."""
    return float(np.mean(1.0 - (rank - 1.0) / max(len(window.candidates) - 1, 1)))


def discounted_gain(rank: NDArray[np.float64]) -> float:
    """NDCG over the whole ranking with one relevant article each: mean of 1 / log2(1 + rank)."""
    return float(np.mean(1.0 / np.log2(1.0 + rank)))


def _day(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")
