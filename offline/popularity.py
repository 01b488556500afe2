"""How much articles sell, as it stood at any moment: for rankings by sales, and as a component of Fashion DNA.

Decayed sales halve in every ``half_life`` days, so that what sold yesterday counts for more than what sold last year,
and even that for more than nothing. As the last component of f (``model_store.popularity.POPULARITY``) they are an
input that the style LSTM is trained with jointly: how much they count is a component of d, and so depends on the
customer and the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import Availability
from model_store.generation import rank_bonus
from model_store.popularity import BEST_SELLERS, POPULARITY, TRENDING_DAYS, popularity_component, with_newcomers
from model_store.purchases import Purchases
from offline.article_offsets import read_dna
from offline.config import Config
from offline.context import Context
from offline.run import Run
from offline.validation import AsOf, Window, discounted_gain

DAY = 86_400
HALF_LIVES = (3.0, 7.0, 14.0, 28.0, 56.0, 112.0)
_FORGOTTEN = 30  # half-lives after which a sale counts for nothing that float32 could tell
_STEP = 7 * DAY  # seconds between two moments that ``PopularityHistory`` keeps

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class RecentSales:
    """Sales of N ``articles`` before any moment; nothing at or after it counts."""

    def __init__(self, purchases: Purchases, articles: int):
        by_time = np.argsort(purchases.timestamp, kind="stable")
        self._sold, self._when, self._articles = purchases.article[by_time], purchases.timestamp[by_time], articles

    @property
    def first(self) -> int:
        """When the first of all was, Unix seconds; 0 where nothing sold."""
        return int(self._when[0]) if len(self._when) else 0

    def before(self, moment: int, days: int | None = TRENDING_DAYS) -> Float64:
        """Sales in the ``days`` before ``moment``, or in all time (None), float64 (N)."""
        low, high = np.searchsorted(self._when, [-1 if days is None else moment - days * DAY, moment])
        return np.bincount(self._sold[low:high], minlength=self._articles).astype(np.float64)

    def decayed(self, moment: int, half_life: float, since: int | None = None) -> Float64:
        """Sales before ``moment``, and not before ``since``: each 1 at first, and half in every ``half_life`` days."""
        oldest = moment - int(_FORGOTTEN * half_life * DAY)
        low, high = np.searchsorted(self._when, [oldest if since is None else max(oldest, since), moment])
        weight = 0.5 ** ((moment - self._when[low:high]) / (half_life * DAY))
        counts: Float64 = np.bincount(self._sold[low:high], weight, minlength=self._articles).astype(np.float64)
        return counts

    def trend(self, moment: int, candidates: NDArray[np.int64], created_at: NDArray[np.int64]) -> Float64:
        """Sales of the week before as the service counts them for ``candidates`` (A): newcomers get the average.

        ``created_at`` (A): Unix seconds, -1 where that is not told.
        """
        return with_newcomers(self.before(moment)[candidates], created_at >= moment - TRENDING_DAYS * DAY)


class Popularity:
    """The popularity component of N articles at any moment.

    An article that was not in stock before the moment, and never sold, had no time to: it gets the mean of what is in
    stock, as what enters the inventory does in Zalando 2017, §3.1.
    """

    def __init__(self, sales: RecentSales, availability: Availability, half_life: float):
        self.sales, self.half_life, self._availability = sales, half_life, availability
        self._enters = np.full(availability.articles, np.iinfo(np.int64).max)
        np.minimum.at(self._enters, availability.article, availability.start)

    def at(self, moment: int) -> Float32:
        """Components at ``moment`` (Unix seconds), float32 (N)."""
        return self.of(self.sales.decayed(moment, self.half_life), moment)

    def of(self, decayed: Float64, moment: int) -> Float32:
        """Components of ``decayed`` sales, float64 (N), as they stand at ``moment``."""
        component = popularity_component(decayed)
        component[(self._enters >= moment) & (decayed == 0)] = self.newcomer(component, moment)
        return component

    def newcomer(self, component: Float32, moment: int) -> float:
        """What an article gets that enters at ``moment``: the mean ``component`` of what is in stock."""
        in_stock = self._availability.in_stock_at(moment) & (self._enters < moment)
        return float(component[in_stock].mean()) if in_stock.any() else 0.0


def best_seller_bonus(component: Float32) -> Float32:
    """What the places in the list of best sellers are worth, float32 (A), of the popularity ``component`` (A) each.

    ``rank_bonus`` of the ``BEST_SELLERS`` highest, as far as they are above 0; equal ones stand in the order given.
    """
    first = np.argsort(-component, kind="stable")[:BEST_SELLERS]
    first = first[component[first] > 0]
    bonus = np.zeros(len(component), np.float32)
    bonus[first] = rank_bonus(len(first), BEST_SELLERS)
    return bonus


class PopularityHistory:
    """``popularity`` at the last of its weekly readings before any moment, up to ``end``.

    A bundle reads it when it is made, so what is served is about as old. float32 (weeks, N) in memory.
    """

    def __init__(self, popularity: Popularity, end: int):
        sales, half_life = popularity.sales, popularity.half_life
        self._start = sales.first
        decayed = sales.decayed(self._start, half_life)
        rows = [popularity.of(decayed, self._start)]
        for moment in range(self._start + _STEP, end + 1, _STEP):
            fresh = sales.decayed(moment, half_life, since=moment - _STEP)
            decayed = decayed * 0.5 ** (_STEP / (half_life * DAY)) + fresh
            rows.append(popularity.of(decayed, moment))
        self._rows = np.stack(rows)

    def of(self, article: NDArray[np.int64], time: NDArray[np.int64]) -> Float32:
        """Components at each time, Unix seconds; the arguments broadcast, the result is float32 (…)."""
        reading = np.clip((time - self._start) // _STEP, 0, len(self._rows) - 1)
        found: Float32 = self._rows[reading, article]
        return found


@dataclass(frozen=True)
class HalfLifeFit:
    """The chosen half-life, and what each one tried gave: (days, discounted gain)."""

    days: float
    tried: list[tuple[float, float]]


def fit_half_life(window: Window, sales: RecentSales, until: NDArray[np.int64]) -> HalfLifeFit:
    """The half-life by whose decayed sales the purchases of ``window`` rank best.

    ``until`` int64 (C): up to when sales count for each customer of the window (Unix seconds).
    """
    tried = []
    for half_life in HALF_LIVES:
        ranked = [np.zeros(0)]
        for moment in np.unique(until).tolist():
            scores = sales.decayed(moment, half_life)[window.candidates]
            ascending, bought = np.sort(scores), scores[window.target[until[window.row] == moment]]
            higher = len(scores) - np.searchsorted(ascending, bought, side="right")
            equal = len(scores) - np.searchsorted(ascending, bought, side="left") - higher
            ranked.append(0.5 + higher + 0.5 * equal)
        tried.append((half_life, discounted_gain(np.concatenate(ranked))))
    return HalfLifeFit(max(tried, key=lambda entry: entry[1])[0], tried)


def scored_dna(run: Run) -> Float32:
    """Fashion DNA of a run as styles are ranked by it in its bundle, float32 (N, 128).

    With what training has found out beyond records, where the run has that: offsets, and what sold by the cut-off.
    """
    dna = read_dna(run)
    if run.load_model("config", Config).fashion_dna.popularity:
        dna[:, POPULARITY] = run.load_arrays("popularity")["cutoff"]
    return dna


def popularity_in_window(context: Context) -> AsOf | None:
    """The popularity component of the validation window's candidates as each customer is ranked; None without one."""
    if not context.config.fashion_dna.popularity:
        return None
    known, half_life = context.known, context.run.load_json("popularity")["half_life_days"]
    sales = RecentSales(known.training, len(context.data.article_ids))
    popularity = Popularity(sales, context.data.availability, half_life)
    return AsOf.of(known.sales_until, lambda moment: popularity.at(moment)[known.window.candidates])
