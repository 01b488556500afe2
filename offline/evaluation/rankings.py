"""The rankings that compete (Zalando 2017, §3.1–3.3), and the blend of them, which is what is served.

Those that learn nothing but counts stand in ``counting``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Blend
from model_store.generation import rank_bonus
from model_store.generation_spec import MIXUP_LENGTH
from model_store.popularity import POPULARITY, TRENDING_DAYS, trend_score
from offline.baselines import MODELS, RECFORMER, RECFORMER_QUERY
from offline.evaluation.counting import CO_PURCHASE, MARKOV, OWN_HISTORY
from offline.evaluation.moments import ByMoment
from offline.evaluation.ranks import Float32, Ranking
from offline.evaluation.task import POPULARITY_DAYS, Task
from offline.popularity import Popularity, best_seller_bonus

BY_SALES, STATIC, DYNAMIC, GENERATED, BLENDED = "popularity", "static", "dynamic", "generated", "blended"


def sales_of(days: int) -> str:
    """The name of popularity that counts the sales of so many days: of the paper's 7 it is that alone."""
    return BY_SALES if days == TRENDING_DAYS else f"{BY_SALES} of {days} days"


COMPARED = (
    (DYNAMIC, STATIC),
    (STATIC, BY_SALES),
    (BLENDED, STATIC),
    (BLENDED, DYNAMIC),
    (BLENDED, GENERATED),
    *((BLENDED, sales_of(days)) for days in POPULARITY_DAYS),
    (BLENDED, OWN_HISTORY),
    (BLENDED, CO_PURCHASE),
    (BLENDED, MARKOV),
    *((BLENDED, model) for model in MODELS),
    (RECFORMER_QUERY, RECFORMER),
)
"""Which differences are reported, where both were ranked."""


@dataclass(frozen=True)
class PersonalRanking:
    """Scores f · s: the static model (§3.2) and the dynamic one (§3.3), by whose styles it is."""

    name: str
    parameters: int
    style: Float32
    """(K, 128)"""
    dna: Float32
    """(N, 128)"""
    popularity: PopularityThen | None = None
    """the last component of f; None where that is in ``dna``, or there is none"""

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        style = self.style[customers]
        scores: Float32 = style @ self.dna.T
        if self.popularity is not None:
            scores += style[:, POPULARITY, None] * self.popularity.component.rows(self.popularity.read[customers])
        return scores


@dataclass(frozen=True)
class PopularityThen:
    """What N ``candidates`` had sold when each customer's ranking is made, as a component of Fashion DNA.

    ``read`` int64 (K): up to when sales were known that it is made of, as those of a bundle are.
    """

    popularity: Popularity
    candidates: NDArray[np.int64]
    read: NDArray[np.int64]

    @cached_property
    def component(self) -> ByMoment[Float32]:
        """At any moment, float32 (N)."""
        return ByMoment(lambda moment: self.popularity.at(moment)[self.candidates])


@dataclass(frozen=True)
class PopularityRanking:
    """What sold most in the ``days`` before each customer's moment; what (re-)enters gets the average (§3.1)."""

    name: str
    task: Task
    days: int
    parameters: int | None = None

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        return self._sales.rows(self.task.sales_until[customers])

    @cached_property
    def _sales(self) -> ByMoment[Float32]:
        return ByMoment(self._sales_before)

    def _sales_before(self, moment: int) -> Float32:
        sales = self.task.recent.before(moment, self.days)[self.task.candidates]
        return np.where(self.task.entering, self.task.average_sales[self.days], sales).astype(np.float32)


def popularity(task: Task, days: int = TRENDING_DAYS) -> PopularityRanking:
    """Sales of the week before, or of as many ``days``."""
    return PopularityRanking(sales_of(days), task, days)


@dataclass(frozen=True)
class StaticStyles:
    """Styles s_k, float32 (K, 128), for the task's customers, and how many of those the static model did not know."""

    style: Float32
    unknown: int


def static_styles(customer_ids: list[str], trained_ids: list[str], trained: Float32) -> StaticStyles:
    """Each customer's trained style; a customer that the static model does not know gets the mean of all styles."""
    row_of = {customer_id: row for row, customer_id in enumerate(trained_ids)}
    rows = np.asarray([row_of.get(customer_id, -1) for customer_id in customer_ids], np.int64)
    style = np.where((rows < 0)[:, None], trained.mean(axis=0), trained[rows]).astype(np.float32)
    return StaticStyles(style, int(np.count_nonzero(rows < 0)))


@dataclass(frozen=True)
class GeneratedRanking:
    """Retrieval with mixup of what the language model wrote (Amazon 2024, §4.4).

    ``lists`` (K): positions among the candidates, best first; what is not on a customer's list ties behind it. A
    customer without a generation gets ``otherwise``, which is the blended ranking as in the service.
    """

    lists: Sequence[NDArray[np.int64]]
    otherwise: Ranking
    parameters: int
    name: str = GENERATED

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        scores = self.otherwise.scores(customers)
        for row, listed in zip(scores, self.lists[customers], strict=True):
            if len(listed):
                row[:] = 0.0
                row[listed] = np.arange(len(listed), 0, -1)
        return scores


@dataclass(frozen=True)
class BlendedRanking:
    """What the service ranks by (``model_store.bundle.Blend``).

    f · d + what the ``blend`` adds for popularity, sales of the week before the window, the places among the best
    sellers and in the mixup list, and what the customer bought before (no part of tables that hide that). For a
    customer without purchases, unless ``blend.cold_by_style``: by log(1 + sales), and what was generated first gains as
    much as the best seller; what neither sold nor was generated follows by f · d.
    """

    dynamic: PersonalRanking
    blend: Blend
    task: Task
    lists: Sequence[NDArray[np.int64]] = ()
    """(K) as ``GeneratedRanking`` has them; none at all without a generating half"""
    generating_parameters: int = 0
    name: str = BLENDED

    @property
    def parameters(self) -> int:
        weights = 2 if self.dynamic.popularity is None else 4
        return self.dynamic.parameters + weights + (self.generating_parameters + 1 if self.lists else 0)

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        scores = self.dynamic.scores(customers)
        trends, moments = self._trend.distinct(self.task.sales_until[customers])
        popular, readings = self._popular.distinct(self._read[customers])
        lists = self.lists[customers] if self.lists else [np.zeros(0, np.int64)] * len(scores)
        new_customer = (self.task.history_sizes[customers] == 0) & (not self.blend.cold_by_style)
        bought = self.task.bought[customers]
        everyone = zip(scores, moments, readings, new_customer, lists, bought, strict=True)
        for row, moment, reading, cold, listed, had in everyone:
            trend = trends[moment]
            bonus = np.zeros(len(row), np.float32)
            bonus[listed] = rank_bonus(len(listed))
            if cold:
                first = row.max() + 1.0  # above all that neither sold nor was generated
                gained = trend + bonus * (trend.max() if trend.any() else 1.0)
                row[:] = np.where(gained > 0, first + gained, row)
            else:
                row[:] += popular[reading] + np.float32(self.blend.trend) * trend
                row[:] += np.float32(self.blend.generated) * bonus
                row[had[:MIXUP_LENGTH]] += np.float32(self.blend.bought_before) * rank_bonus(len(had))
        return scores

    @cached_property
    def _trend(self) -> ByMoment[Float32]:
        return ByMoment(lambda moment: trend_score(self.task.trend(moment)))

    @cached_property
    def _popular(self) -> ByMoment[Float32]:
        """What popularity adds, as it was read at a moment."""
        return ByMoment(self._popular_at)

    def _popular_at(self, moment: int) -> Float32:
        if self.dynamic.popularity is None:
            return np.zeros(len(self.task.candidates), np.float32)
        component = self.dynamic.popularity.component.at(moment)
        best = best_seller_bonus(component)
        return np.float32(self.blend.popularity) * component + np.float32(self.blend.best_sellers) * best

    @property
    def _read(self) -> NDArray[np.int64]:
        """(K) when popularity was read; any moment where there is none."""
        return self.task.sales_until if self.dynamic.popularity is None else self.dynamic.popularity.read


def blended(
    dynamic: PersonalRanking,
    task: Task,
    blend: Blend,
    lists: Sequence[NDArray[np.int64]] = (),
    generating_parameters: int = 0,
) -> BlendedRanking:
    """The ranking that is served to this task's customers, by both halves and the run's blend."""
    return BlendedRanking(dynamic, blend, task, lists, generating_parameters)
