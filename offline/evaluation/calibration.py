"""Whether the static model's probabilities, σ(f·s_k + β_k), are those with which customers buy (Zalando 2017, eq. 1).

They speak of all of training's time: "customer k bought article ν". So their *level* can be held against nothing but
the purchase matrix that they were trained on, and that says how well they fit, not how well they foretell. On later
purchases their *shape* is looked at: whether pairs that are twice as likely are bought twice as often, up to one factor
for all, since a window is shorter than training. There only pairs count that had not been bought before, since those
that had were taught as bought.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model_store.dataset import DataSet
from model_store.purchases import Purchases
from offline.context import TrainingPart
from offline.evaluation.metrics import Estimate, Float64, estimate, resamples
from offline.evaluation.ranks import Float32
from offline.evaluation.task import Task
from offline.fashion_dna import purchase_matrix, trained_articles
from offline.hold_out import BY_TIME
from offline.run import Run, Split

Int64 = NDArray[np.int64]
TENTHS = 10
_ENOUGH = 30  # purchases: of fewer, ten groups tell nothing
_MOST_PAIRS = 100_000_000  # 5 s on one core
_FOR_EDGES = 200_000
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class StaticModel:
    """p = σ(style · dna + bias): styles (K, 128) and biases (K) of K customers, DNA (N, 128), all float32."""

    customer_ids: list[str]
    style: Float32
    bias: Float32
    dna: Float32

    @classmethod
    def of(cls, run: Run) -> StaticModel:
        """Raises InvalidConfig where the run is not complete."""
        trained = run.load_arrays("static")
        ids: list[str] = run.load_json("static_customers")
        return cls(ids, trained["style"], trained["bias"], run.load_arrays("article_dna")["dna"])

    def log_odds(self, customers: Int64, dna: Float32) -> Float32:
        """z, float32 (C, A), of every pair of these customers and of A articles, whose DNA is ``dna`` (A, 128)."""
        z: Float32 = self.style[customers] @ dna.T
        z += self.bias[customers, None]
        return z

    def rows(self, names: list[str]) -> Int64:
        """(C) row of each customer, −1 for who was not in training."""
        row = {name: index for index, name in enumerate(self.customer_ids)}
        return np.array([row.get(name, -1) for name in names], np.int64)


@dataclass(frozen=True)
class Pairs:
    """All pairs of C customers and A articles that are looked at, and which of them were bought.

    ``customers`` int64 (C), rows of the static model; ``articles`` int64 (A), sorted; ``bought`` and ``left_out``: two
    rows, customers 0 … C − 1 and places among ``articles``, each pair at most once.
    """

    name: str
    title: str
    customers: Int64
    articles: Int64
    bought: Int64
    left_out: Int64


class Tenth(NamedTuple):
    """A tenth of the pairs, those with the least probabilities first."""

    pairs: int
    predicted: float
    """mean probability"""
    observed: Estimate
    """share that was bought"""


@dataclass(frozen=True)
class Calibration:
    """``ratio``: purchases over the sum of all probabilities; 1 where the level is right."""

    name: str
    title: str
    customers: int
    articles: int
    pairs: int
    bought: int
    ratio: Estimate
    tenths: list[Tenth]


def calibrations(
    data: DataSet, trained_on: DataSet, run: Run, tasks: list[Task], samples: int, seed: int
) -> list[Calibration]:
    """Training's own matrix, the validation window, and what was evaluated; where less than 30 was bought, not."""
    model, split = StaticModel.of(run), run.load_model("split", Split)
    part, cutoff = TrainingPart.of(trained_on, split), trained_on.purchases(split.cutoff)
    training, by_time = part.data.purchases(part.end), tasks[0].protocol == BY_TIME
    opens, title = (split.validation_from, "The validation window") if by_time else (0, "What was held out to validate")
    validation = Span(opens, split.cutoff, training, cutoff)
    found = [
        training_pairs(trained_on, part.end, training, model),
        window_pairs("validation", title, trained_on, validation, model),
    ]
    if by_time:
        start, until = tasks[0].window.start, tasks[-1].window.until
        evaluated = Span(
            start, until, cutoff if start == split.cutoff else data.purchases(start), data.purchases(until)
        )
        found.append(window_pairs("evaluated", "The evaluated window", data, evaluated, model))
    else:
        found.append(held_out_pairs(tasks[0], model))
    return [calibrate(model, pairs, samples, seed) for pairs in found if pairs.bought.shape[1] >= _ENOUGH]


class Span(NamedTuple):
    """start ≤ t < until, Unix seconds, and the purchases that are known at each end."""

    start: int
    until: int
    known: Purchases
    known_later: Purchases


def training_pairs(data: DataSet, end: int, known: Purchases, model: StaticModel) -> Pairs:
    """What Fashion DNA was trained on: every article that took part, and every frequent customer."""
    rows = model.rows(known.customer_ids)
    matrix = purchase_matrix(known, np.flatnonzero(rows >= 0), len(data.article_ids))
    first = int(known.timestamp.min(initial=end))
    articles = trained_articles(matrix, data.availability, first, end)
    bought = _pairs_of(known, rows, articles)
    return Pairs(
        "training", "The training matrix itself", np.arange(len(model.customer_ids)), articles, bought, bought[:, :0]
    )


def window_pairs(name: str, title: str, data: DataSet, span: Span, model: StaticModel) -> Pairs:
    """Every customer of the static model, and what was in stock at some moment of the ``span``."""
    articles = np.flatnonzero(data.availability.in_stock_between(span.start, span.until))
    before = _pairs_of(span.known, model.rows(span.known.customer_ids), articles)
    later = span.known_later.between(span.start, span.until)
    bought = _without(_pairs_of(later, model.rows(later.customer_ids), articles), before, len(articles))
    return Pairs(name, title, np.arange(len(model.customer_ids)), articles, bought, before)


def held_out_pairs(task: Task, model: StaticModel) -> Pairs:
    """The customers who were asked for, of those that the static model knows, and all articles."""
    rows, targets = model.rows(task.customer_ids), task.first_time
    order = np.argsort(task.candidates)  # candidates stand tier by tier
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    number = np.cumsum(rows >= 0) - 1
    hidden_from = np.repeat(np.arange(targets.customers), np.diff(targets.hidden_offsets))
    pairs = [(targets.customer, targets.candidate), (hidden_from, targets.hidden)]
    kept = [np.stack([number[who], place[what]])[:, rows[who] >= 0] for who, what in pairs]
    return Pairs("evaluated", "What was held out", rows[rows >= 0], task.candidates[order], *kept)


def _pairs_of(purchases: Purchases, rows: Int64, articles: Int64) -> Int64:
    """(2, B) row of the static model and place among ``articles`` of what was bought; each pair once."""
    row = rows[purchases.customer]
    inside = (row >= 0) & np.isin(purchases.article, articles)
    place = np.searchsorted(articles, purchases.article[inside])
    return _split(np.unique(row[inside] * max(len(articles), 1) + place), len(articles))


def _without(pairs: Int64, others: Int64, articles: int) -> Int64:
    one, other = (part[0] * max(articles, 1) + part[1] for part in (pairs, others))
    return _split(np.setdiff1d(one, other), articles)


def _split(keys: Int64, articles: int) -> Int64:
    return np.stack(np.divmod(keys, max(articles, 1)))


def calibrate(model: StaticModel, pairs: Pairs, samples: int, seed: int) -> Calibration:
    """Ten groups of equally many pairs, by probability: what was predicted and what was bought.

    Where there are more than 100 million pairs, of customers drawn at random. The groups' limits come from 200,000
    pairs drawn at random, so the groups differ a little in size. Intervals: bootstrap over customers.
    """
    pairs = _at_most(pairs, _MOST_PAIRS, seed)
    edges = _edges(model, pairs, seed)
    dna = model.dna[pairs.articles]
    parts = [_counted(model, pairs, dna, block, edges) for block in _blocks(pairs)]
    count, predicted, bought = (np.concatenate(of_all) for of_all in zip(*parts, strict=True))  # each (C, 10)
    columns = np.concatenate([bought, count, predicted], axis=1)  # (C, 30)
    whole = np.ones(len(columns))
    totals = np.array([drawn @ columns for drawn in chain([whole], resamples(len(whole), samples, seed))])
    of_bought, of_count, of_predicted = np.split(totals, 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = of_bought / of_count
        ratios = of_bought.sum(axis=1, keepdims=True) / of_predicted.sum(axis=1, keepdims=True)
    sizes, means = count.sum(axis=0), predicted.sum(axis=0)
    return Calibration(
        pairs.name,
        pairs.title,
        len(pairs.customers),
        len(pairs.articles),
        int(sizes.sum()),
        int(bought.sum()),
        estimate(ratios[0], ratios[1:])[0],
        [
            Tenth(int(size), float(mean / size), share)
            for size, mean, share in zip(sizes, means, estimate(shares[0], shares[1:]), strict=True)
            if size
        ],
    )


def _at_most(pairs: Pairs, most: int, seed: int) -> Pairs:
    """The same of fewer customers, drawn at random, where there are more than ``most`` pairs."""
    kept = max(most // max(len(pairs.articles), 1), 1)
    if len(pairs.customers) <= kept:
        return pairs
    chosen = np.sort(np.random.default_rng(seed).choice(len(pairs.customers), kept, replace=False))
    number = np.full(len(pairs.customers), -1)
    number[chosen] = np.arange(kept)
    of_them = [np.stack([number[part[0]], part[1]])[:, number[part[0]] >= 0] for part in (pairs.bought, pairs.left_out)]
    return Pairs(pairs.name, pairs.title, pairs.customers[chosen], pairs.articles, *of_them)


def _edges(model: StaticModel, pairs: Pairs, seed: int) -> Float64:
    """(9) log-odds between the tenths."""
    if len(pairs.customers) * len(pairs.articles) <= _FOR_EDGES:
        z = model.log_odds(pairs.customers, model.dna[pairs.articles]).ravel()
    else:
        rng = np.random.default_rng(seed)
        who, what = rng.choice(pairs.customers, _FOR_EDGES), rng.choice(pairs.articles, _FOR_EDGES)
        z = np.einsum("ij,ij->i", model.style[who], model.dna[what]) + model.bias[who]
    edges: Float64 = np.quantile(z, np.arange(1, TENTHS) / TENTHS).astype(np.float64)
    return edges


def _blocks(pairs: Pairs) -> Iterator[slice]:
    size = max(1, _PAIRS_AT_ONCE // max(len(pairs.articles), 1))
    for start in range(0, len(pairs.customers), size):
        yield slice(start, min(start + size, len(pairs.customers)))


def _counted(
    model: StaticModel, pairs: Pairs, dna: Float32, block: slice, edges: Float64
) -> tuple[Float64, Float64, Float64]:
    """Of a block of B customers, each (B, 10): pairs, sum of probabilities, purchases."""
    z = model.log_odds(pairs.customers[block], dna)
    size = len(z) * TENTHS
    group = np.searchsorted(edges, z, side="right") + TENTHS * np.arange(len(z))[:, None]  # (B, A)
    group[_within(pairs.left_out, block)] = size  # counted apart, and then not at all
    columns = [
        np.bincount(group.ravel(), minlength=size + 1),
        np.bincount(group.ravel(), expit(z).ravel(), size + 1),
        np.bincount(group[_within(pairs.bought, block)], minlength=size + 1),
    ]
    count, predicted, bought = (column[:size].reshape(-1, TENTHS).astype(np.float64) for column in columns)
    return count, predicted, bought


def _within(pairs: Int64, block: slice) -> tuple[Int64, Int64]:
    """Indices into the block's (B, A) of the ``pairs`` that lie in it."""
    inside = (pairs[0] >= block.start) & (pairs[0] < block.stop)
    return pairs[0, inside] - block.start, pairs[1, inside]
