"""Positions of the purchased articles in each customer's ranking, by counting instead of sorting (Zalando 2017, §3.4).

Letters beyond those of ``model_store``: K customers of the window, N candidates, P purchases (distinct pairs of
customer and article). Candidates come in ``TIERS`` tiers, one block after the other; a table ranks some of the tiers,
so that one pass of scoring serves all tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.errors import TrainingError

Float32 = NDArray[np.float32]
TIERS = 3
_SCORES_AT_ONCE = 8_000_000  # 32 MB of float32


class Ranking(Protocol):
    """A model under test. ``parameters``: number of weights, None where there is nothing to learn."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> int | None: ...

    def scores(self, customers: slice) -> Float32:
        """Scores, float32 (B, N), of all candidates for B consecutive customers; higher is recommended earlier."""


class Watcher(Protocol):
    """Something else that is found out from a ranking's scores, while they are at hand."""

    def see(self, customers: slice, scores: Float32) -> None:
        """Scores, float32 (B, N), of B consecutive customers; each customer comes once, and none is changed."""


@dataclass(frozen=True)
class Targets:
    """What is to be found: P purchases, sorted by customer, among N candidates.

    ``offsets`` int64 (K + 1): customer k's are the rows offsets[k]:offsets[k + 1]; ``candidate`` int64 (P), position
    among the candidates; ``tier_ends`` int64 (TIERS): the candidates of tier j end before tier_ends[j].
    ``hidden`` int64, cut by ``hidden_offsets`` int64 (K + 1): candidates that a customer is not shown, none
    of them a target.
    """

    offsets: NDArray[np.int64]
    candidate: NDArray[np.int64]
    tier_ends: NDArray[np.int64]
    hidden_offsets: NDArray[np.int64]
    hidden: NDArray[np.int64]

    @classmethod
    def among_all(
        cls, offsets: NDArray[np.int64], candidate: NDArray[np.int64], tier_ends: NDArray[np.int64]
    ) -> Targets:
        """Targets where every customer is shown every candidate."""
        return cls(offsets, candidate, tier_ends, np.zeros_like(offsets), np.zeros(0, np.int64))

    def hidden_from(self, customer: int) -> NDArray[np.int64]:
        """Candidates that are left out of this customer's ranking."""
        return self.hidden[self.hidden_offsets[customer] : self.hidden_offsets[customer + 1]]

    @property
    def customers(self) -> int:
        """K."""
        return len(self.offsets) - 1

    @property
    def candidates(self) -> int:
        """N."""
        return int(self.tier_ends[-1])

    @property
    def customer(self) -> NDArray[np.int64]:
        """(P) customer of each purchase."""
        return np.repeat(np.arange(self.customers), np.diff(self.offsets))

    @property
    def tier(self) -> NDArray[np.int64]:
        """(P) tier of each purchased article."""
        return np.searchsorted(self.tier_ends, self.candidate, side="right")


@dataclass(frozen=True)
class Places:
    """Where P' purchased articles stand in one candidate set.

    ``above`` int64 (P'): candidates with a strictly higher score; ``tied`` int64 (P'): candidates with the same score,
    the article itself included; ``auc`` float64 (P'): share of the candidates which the customer did not buy that
    score lower, ties counting half (½ where the customer bought all candidates).
    """

    customer: NDArray[np.int64]
    above: NDArray[np.int64]
    tied: NDArray[np.int64]
    auc: NDArray[np.float64]


class Tally:
    """How many candidates score higher than an article, and the same, by tier: of one customer's ``row``, float32 (N).

    What several choices of targets ask of one article is counted once.
    """

    def __init__(self, row: Float32, tier_ends: NDArray[np.int64]):
        self._row, self._ends = row, tier_ends
        self._blocks = [slice(low, high) for low, high in pairwise([0, *tier_ends.tolist()])]
        self._counted: dict[int, tuple[list[int], list[int]]] = {}

    def of(self, article: int) -> tuple[list[int], list[int]]:
        """Numbers (TIERS) of all candidates that score higher, and of those that score the same, itself included."""
        if article not in self._counted:
            higher, equal = self._row > self._row[article], self._row == self._row[article]
            self._counted[article] = (
                [int(np.count_nonzero(higher[block])) for block in self._blocks],
                [int(np.count_nonzero(equal[block])) for block in self._blocks],
            )
        return self._counted[article]

    def among(self, articles: NDArray[np.int64], others: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """The same (m, TIERS) of each of m ``articles``, among ``others`` alone."""
        in_tier = np.eye(TIERS, dtype=np.int64)[np.searchsorted(self._ends, others, side="right")]
        scores, theirs = self._row[articles][:, None], self._row[others][None, :]
        return (theirs > scores) @ in_tier, (theirs == scores) @ in_tier


class Ranks:
    """One model's counts for all P purchases, tier by tier; a candidate set is any union of tiers."""

    def __init__(self, targets: Targets):
        shape = (len(targets.candidate), TIERS)
        self._targets = targets
        # Of many customers and models this is what takes the memory: 96 bytes of each purchase and model.
        self._above, self._tied = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self._bought_above, self._bought_tied = np.zeros(shape, np.int32), np.zeros(shape, np.int32)

    def count(self, customer: int, tally: Tally) -> None:
        """Enter one customer's ranking."""
        own = slice(self._targets.offsets[customer], self._targets.offsets[customer + 1])
        bought, hidden = self._targets.candidate[own], self._targets.hidden_from(customer)
        for index, article in enumerate(bought.tolist(), own.start):
            self._above[index], self._tied[index] = tally.of(article)
        self._bought_above[own], self._bought_tied[own] = tally.among(bought, bought)
        if len(hidden):
            above, tied = tally.among(bought, hidden)
            self._above[own] -= above
            self._tied[own] -= tied

    def places(self, tiers: Sequence[int], chosen: NDArray[np.bool_]) -> Places:
        """Places of the ``chosen`` (P) purchases, whose articles must lie in ``tiers``, among the candidates there."""
        columns = list(tiers)
        above, tied, bought_above, bought_tied = (
            counts[chosen][:, columns].sum(axis=1, dtype=np.int64)
            for counts in (self._above, self._tied, self._bought_above, self._bought_tied)
        )
        others = self._others(columns)[chosen]
        lower = others - (above - bought_above) - (tied - bought_tied) / 2
        auc = np.where(others > 0, lower / np.maximum(others, 1), 0.5)
        return Places(self._targets.customer[chosen], above, tied, auc)

    def _others(self, columns: list[int]) -> NDArray[np.int64]:
        """(P) number of candidates that the purchase's customer did not buy."""
        targets = self._targets
        sizes = np.diff(targets.tier_ends, prepend=0)[columns].sum()
        inside = np.isin(targets.tier, columns)
        bought = np.bincount(targets.customer[inside], minlength=targets.customers)
        hidden_from = np.repeat(np.arange(targets.customers), np.diff(targets.hidden_offsets))
        inside = np.isin(np.searchsorted(targets.tier_ends, targets.hidden, side="right"), columns)
        hidden = np.bincount(hidden_from[inside], minlength=targets.customers)
        others: NDArray[np.int64] = (sizes - bought - hidden)[targets.customer]
        return others


def rank(
    ranking: Ranking, several: Sequence[Targets], advance: Callable[[int], None], watchers: Sequence[Watcher] = ()
) -> list[Ranks]:
    """Rank several choices of targets over the same customers and candidates, scoring once for all.

    ``watchers`` see the same scores; ``advance`` hears how many customers were done.

    Memory stays bounded: the scores of a few customers at a time. Raises TrainingError where a score is not finite.
    """
    ranks = [Ranks(targets) for targets in several]
    for customers in _chunks(several[0]):
        scores = ranking.scores(customers)
        if not np.isfinite(scores).all():
            raise TrainingError(f"{ranking.name}: scores are not finite (NaN or overflow): train the model again")
        for customer, row in enumerate(scores, customers.start):
            tally = Tally(row, several[0].tier_ends)
            for one in ranks:
                one.count(customer, tally)
        for watcher in watchers:
            watcher.see(customers, scores)
        advance(len(scores))
    return ranks


def _chunks(targets: Targets) -> Iterator[slice]:
    size = max(1, _SCORES_AT_ONCE // targets.candidates)
    for start in range(0, targets.customers, size):
        yield slice(start, min(start + size, targets.customers))
