"""How recent sales count in a ranking: written once, so that what is evaluated is what is served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRENDING_DAYS = 7
"""Popularity counts the sales of the last 7 days (Zalando 2017, §3.1: "the week immediately preceding")."""


def trend_score(sales: NDArray[np.float64]) -> NDArray[np.float32]:
    """log(1 + sales of the last 7 days), float32, same shape: never negative, 0 for what did not sell."""
    return np.log1p(sales).astype(np.float32)
