"""The sample shop's customers: when they come, how often they buy, and the style they are into, which drifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.shop.catalogue import STYLE_COUNT, Floats, Ints

PHASE_DAYS = 75
"""Mean time for which a customer stays with a style."""
ALONG_THE_RING = 0.8
"""How often the next style is the next one on the ring, rather than any."""
CURRENT_SHARE, PREVIOUS_SHARE = 0.82, 0.08
"""Shares of the orders within the style of the moment and the one before; the rest is spread over all styles."""
OWN_GENDER = 0.9
_MEAN_DAYS_BETWEEN_ORDERS = 13.5


@dataclass
class Customers:
    """K customers on one day. ``current`` and ``previous`` are styles; ``live_a_day`` moves them on."""

    joined: Ints
    """(K) first day as a customer"""
    rate: Floats
    """(K) orders per day"""
    gender: Ints
    """(K)"""
    current: Ints
    """(K)"""
    previous: Ints
    """(K)"""

    @classmethod
    def draw(cls, customers: int, days: int, rng: np.random.Generator) -> Customers:
        """K customers on day 0: a quarter from the start, the others join until three quarters of the way."""
        later = rng.integers(1, max(2, days * 3 // 4), customers)
        current = rng.integers(0, STYLE_COUNT, customers)
        return cls(
            joined=np.where(rng.random(customers) < 0.25, 0, later),
            rate=np.clip(np.exp(rng.normal(0.0, 0.5, customers)), 0.2, 4.0) / _MEAN_DAYS_BETWEEN_ORDERS,
            gender=(rng.random(customers) < 0.4).astype(np.int64),
            current=current,
            previous=(current - 1) % STYLE_COUNT,
        )

    def __len__(self) -> int:
        return len(self.joined)

    def taste(self) -> Floats:
        """Probability of each style for each customer's next order, float64 (K, S)."""
        who = np.arange(len(self))
        taste = np.full((len(self), STYLE_COUNT), (1.0 - CURRENT_SHARE - PREVIOUS_SHARE) / STYLE_COUNT)
        taste[who, self.current] += CURRENT_SHARE
        taste[who, self.previous] += PREVIOUS_SHARE
        return taste

    def draw_styles(self, who: Ints, rng: np.random.Generator) -> Ints:
        """A style for each of the customers ``who``, drawn from their taste: (len(who))."""
        chance = rng.random(len(who))
        anywhere = rng.integers(0, STYLE_COUNT, len(who))
        settled = np.where(chance < CURRENT_SHARE, self.current[who], self.previous[who])
        return np.where(chance < CURRENT_SHARE + PREVIOUS_SHARE, settled, anywhere)

    def draw_genders(self, who: Ints, rng: np.random.Generator) -> Ints:
        """For whom each of ``who`` shops: mostly for their own gender."""
        return np.where(rng.random(len(who)) < OWN_GENDER, self.gender[who], 1 - self.gender[who])

    def draw_visitors(self, day: int, scale: float, rng: np.random.Generator) -> Ints:
        """Customers who come today; ``scale`` is the number of visits per order."""
        chance: NDArray[np.float64] = self.rate * scale
        return np.flatnonzero((rng.random(len(self)) < chance) & (self.joined <= day))

    def live_a_day(self, rng: np.random.Generator) -> None:
        """Let a day pass: some move on to another style."""
        moves = rng.random(len(self)) < 1.0 / PHASE_DAYS
        along = rng.random(len(self)) < ALONG_THE_RING
        following = np.where(along, (self.current + 1) % STYLE_COUNT, rng.integers(0, STYLE_COUNT, len(self)))
        self.previous = np.where(moves, self.current, self.previous)
        self.current = np.where(moves, following, self.current)
