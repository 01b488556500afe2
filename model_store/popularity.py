"""How recent sales count in a ranking: written once, so that what is evaluated is what is served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE

POPULARITY = DNA_SIZE - 1
"""Component of Fashion DNA that tells how much an article sold, in bundles that have it; 0 for what never did."""
_ONE_SALE, _SCALE = 0.1, 8.0

BEST_SELLERS = 10
"""Length of the list of best sellers: the ranks in which popularity was ahead of all models (Zalando 2017, §3.4)."""

TRENDING_DAYS = 7
"""Popularity counts the sales of the last 7 days (Zalando 2017, §3.1: "the week immediately preceding")."""


def trend_score(sales: NDArray[np.float64]) -> NDArray[np.float32]:
    """log(1 + sales of the last 7 days), float32, same shape: never negative, 0 for what did not sell."""
    return np.log1p(sales).astype(np.float32)


def popularity_component(sales: NDArray[np.float64]) -> NDArray[np.float32]:
    """Decayed sales as a component of Fashion DNA, float32, same shape: log(1 + 10 · sales) / 8, so 1 after 300 sales.

    A tenth of a sale still tells an article from one that never sold; and beside 127 components of about 1, it hardly
    changes which articles are alike.
    """
    return (np.log1p(sales / _ONE_SALE) / _SCALE).astype(np.float32)


NEWCOMERS_AT_MOST = 0.25
"""Share of what is in stock that may be new. In a shop that has just opened all is, and newness then tells nothing."""


def newcomer_sales(total: float, in_stock: int, newcomers: int) -> float:
    """Sales that an article counts with at least while it has been listed for less than those 7 days.

    It had no week to sell in, so it is given the average of what is in stock (Zalando 2017, §3.1). ``total``: sales of
    all articles in stock in the 7 days; 0 where more than a quarter of the ``in_stock`` articles are ``newcomers``.
    """
    return total / in_stock if in_stock and newcomers <= NEWCOMERS_AT_MOST * in_stock else 0.0


def with_newcomers(sales: NDArray[np.float64], newcomer: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``sales`` (N) of what is in stock, with ``newcomer_sales`` for the articles that ``newcomer`` (N) marks."""
    least = newcomer_sales(float(sales.sum()), len(sales), int(np.count_nonzero(newcomer)))
    return np.where(newcomer, np.maximum(sales, least), sales)
