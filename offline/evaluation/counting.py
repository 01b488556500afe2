"""Rankings that count: what a customer bought before, what the same customers bought, and what was bought right after.

They learn nothing and are hard to beat on short histories. *Own history* shows what was bought before, the latest
first. *Co-purchase* is item-based collaborative filtering: the cosine of two articles' customers (Linden et al. 2003).
*Markov-1* is the chance that an order with one article is followed by one with the other (Rendle et al. 2010, before
anything is factorised).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from model_store.purchases import Purchases
from offline.evaluation.ranks import Float32
from offline.evaluation.task import Task

OWN_HISTORY, CO_PURCHASE, MARKOV = "own history", "co-purchase", "Markov-1"


@dataclass(frozen=True)
class CountingRanking:
    """Scores: the sum over what a customer ``had`` (K, A) of how much each of A articles speaks for N candidates."""

    name: str
    had: csr_array
    speaks_for: csr_array
    """(A, N)"""
    parameters: int | None = None

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        found: Float32 = (self.had[customers] @ self.speaks_for).astype(np.float32).toarray()
        return found


def own_history(task: Task, articles: int) -> CountingRanking:
    """How late in the history an article was bought last: the place of that purchase in it, from 1 on."""
    history = task.history
    place = np.arange(len(history)) - history.offsets[history.customer] + 1
    rows = np.arange(len(history))[::-1]  # the latest of several comes first
    _, latest = np.unique(history.customer[rows].astype(np.int64) * articles + history.article[rows], return_index=True)
    kept, shape = rows[latest], (len(history.customer_ids), articles)
    had = csr_array((place[kept].astype(np.float32), (history.customer[kept], history.article[kept])), shape)
    itself = csr_array(eye_array(articles, dtype=np.float32))
    return CountingRanking(OWN_HISTORY, _of_customers(had, task.known_customer), itself[:, task.candidates])


@dataclass(frozen=True)
class CoPurchaseRanking:
    """Σ over the articles i of the history: |customers of i and ν| / √(|customers of i| |customers of ν|), i ≠ ν.

    How alike articles are is worked out for those that some customers had, and again for the next ones: that of all
    pairs grows with the square of what single customers bought. ``had`` (K, A) and ``bought`` (C, A) are 1 where
    it is so, of the task's K customers and of all C; ``candidates`` (N).
    """

    had: csr_array
    bought: csr_array
    candidates: NDArray[np.int64]
    name: str = CO_PURCHASE
    parameters: int | None = None

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        had = self.had[customers]
        own = np.unique(had.indices)  # (U)
        together = (self._buyers[own] @ self._candidates_bought).tocsr()  # (U, N)
        row = np.repeat(np.arange(len(own)), np.diff(together.indptr))
        together.data[self.candidates[together.indices] == own[row]] = 0.0
        alike = _scaled(together, 1 / self._size[own], 1 / self._size[self.candidates])
        found: Float32 = (had[:, own] @ alike).toarray()
        return found

    @cached_property
    def _buyers(self) -> csr_array:
        """(A, C)"""
        return self.bought.T.tocsr()

    @cached_property
    def _candidates_bought(self) -> csr_array:
        """(C, N)"""
        return self.bought[:, self.candidates]

    @cached_property
    def _size(self) -> Float32:
        """(A) root of the number of customers, as if nothing had none."""
        size: Float32 = np.sqrt(np.maximum(np.asarray(self.bought.sum(axis=0)).ravel(), 1))
        return size


def co_purchase(task: Task, articles: int) -> CoPurchaseRanking:
    """Of what all customers are known to have bought."""
    history = task.history
    bought = _ones(history.customer, history.article, (len(history.customer_ids), articles))
    return CoPurchaseRanking(_of_customers(bought, task.known_customer), bought, task.candidates)


def markov(task: Task, articles: int) -> CountingRanking:
    """Mean over the articles i of the latest order: how often ν was in an order right after one with i, of all such."""
    history = task.history
    orders = int(history.order.max(initial=-1)) + 1
    inside = _ones(history.order, history.article, (orders, articles))
    before, after = _neighbours(history)
    pairs = (inside[before].T @ inside[after]).tocsr()
    starts = np.maximum(np.asarray(pairs.sum(axis=1)).ravel(), 1)
    chance = _scaled(pairs, 1 / starts, np.ones(articles))
    latest = np.full(len(history.customer_ids), -1, np.int64)
    np.maximum.at(latest, history.customer, history.order)
    last = inside[latest]
    last = _scaled(last, 1 / np.maximum(np.asarray(last.sum(axis=1)).ravel(), 1), np.ones(articles))
    return CountingRanking(MARKOV, _of_customers(last, task.known_customer), chance[:, task.candidates])


def _neighbours(history: Purchases) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of orders of which the second is the next of the first one's customer."""
    orders, first = np.unique(history.order, return_index=True)  # numbered customer by customer, in order of time
    same = history.customer[first][1:] == history.customer[first][:-1]
    return orders[:-1][same], orders[1:][same]


def _ones(rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]) -> csr_array:
    """1 where a pair occurs, however often."""
    matrix = csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _scaled(matrix: csr_array, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> csr_array:
    """Each entry times its row's and its column's factor."""
    of_row = np.repeat(rows, np.diff(matrix.indptr))
    return csr_array((matrix.data * of_row * columns[matrix.indices], matrix.indices, matrix.indptr), matrix.shape)


def _of_customers(matrix: csr_array, known_customer: NDArray[np.int64]) -> csr_array:
    """The rows of the task's customers; nothing for who is not known."""
    known = np.flatnonzero(known_customer >= 0)
    which = (np.ones(len(known), np.float32), (known, known_customer[known]))
    return csr_array(which, (len(known_customer), matrix.shape[0])) @ matrix
