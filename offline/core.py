"""Training CORE on what customers clicked and bought, and the article table that is kept of it (Amazon 2024, §4.4).

The rules, each held by a test:

- A sequence is a customer's clicks and kept purchases in time order. Clicks on articles that the same customer bought
  are left out, as the paper leaves them out of its data (§5.1), and of equal clicks in a row the first stays.
- Every purchase is predicted from the actions before it; clicks are inputs alone. In the sample shop, predicting clicks
  too finds as many of the held-out purchases (0.267 both) at 1.4 times the cost (``IdEmbeddingsConfig.predict``).
- Each epoch cuts the sequences anew into stretches of ``max_actions`` inputs, beginning at random; every prefix of a
  stretch that a purchase follows is an example.
- Articles with fewer than ``min_actions`` actions share the cold embedding. It learns by standing in for known articles
  among the inputs; it is never an answer.
- Nothing at or after ``until`` is trained on. What was bought from then to ``held_out_until`` is foretold from all that
  its customer did before that moment, ranked among what was in stock in that window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_store import tables
from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.records import EventType
from offline.config import IdEmbeddingsConfig
from offline.models.core import CoreNetwork, CoreTraining
from offline.progress import Progress, Silent
from offline.training import Curve, Rows, derive, fit, seed_torch, shuffled_batches
from offline.world import World

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

FOUND_AMONG = 10
"""Validation counts a purchase as found where it ranks among that many."""
_HELD_OUT = 5_000  # purchases that validation foretells
_READ_BATCH = 256


@dataclass(frozen=True)
class CoreTable:
    """What is kept of CORE: ``embedding`` float32 (M, 128) of the articles at ``rows`` int64 (M), and ``cold`` (128).

    All of length 1. ``curve`` tells how it was trained; its score is the share of held-out purchases found.
    """

    embedding: Float32
    rows: Int64
    cold: Float32
    curve: Curve


@dataclass(frozen=True)
class Actions:
    """A clicks and purchases, by customer, then time; rows ``offsets[k]:offsets[k + 1]`` are customer k's.

    ``article`` int64 (A) rows of the data set's articles; ``time`` int64 (A); ``bought`` bool (A).
    """

    offsets: Int64
    article: Int64
    time: Int64
    bought: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.article)


def read_actions(data: DataSet, until: int) -> Actions:
    """The actions before ``until`` of all customers who bought something by then."""
    purchases = data.purchases(until)
    clicks = _read_clicks(data, until, purchases.customer_ids)
    pair = purchases.customer.astype(np.int64) * len(data.article_ids) + purchases.article
    clicks = clicks[:, ~np.isin(clicks[0] * len(data.article_ids) + clicks[1], pair)]
    customer = np.concatenate([clicks[0], purchases.customer])
    article = np.concatenate([clicks[1], purchases.article])
    time = np.concatenate([clicks[2], purchases.timestamp])
    bought = np.arange(len(customer)) >= clicks.shape[1]
    order = np.lexsort((bought, time, customer))
    customer, article, time, bought = customer[order], article[order], time[order], bought[order]
    again = np.zeros(len(customer), dtype=bool)
    again[1:] = (customer[1:] == customer[:-1]) & (article[1:] == article[:-1]) & ~bought[1:] & ~bought[:-1]
    customer, article, time, bought = customer[~again], article[~again], time[~again], bought[~again]
    return Actions(np.searchsorted(customer, np.arange(len(purchases.customer_ids) + 1)), article, time, bought)


def _read_clicks(data: DataSet, until: int, customer_ids: list[str]) -> Int64:
    """Customer's number, article's row and time of each click: int64 (3, C), in file order."""
    customers, articles = pa.array(customer_ids, pa.string()), pa.array(data.article_ids, pa.string())
    parts = [np.zeros((3, 0), np.int64)]
    for batch in data.events():
        early = pa.array(tables.seconds(batch.column("timestamp")) < until)
        clicked = pc.and_(early, pc.equal(batch.column("type"), EventType.CLICK.value))
        rows = batch.filter(pc.and_(clicked, pc.is_in(batch.column("customer_id"), value_set=customers)))
        who = pc.index_in(rows.column("customer_id"), value_set=customers).to_numpy()
        what = pc.index_in(rows.column("article_id"), value_set=articles).to_numpy()
        parts.append(np.stack([who, what, tables.seconds(rows.column("timestamp"))]).astype(np.int64))
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class HeldOut:
    """H purchases to be foretold: ``sequences`` of places in the table, oldest first, each before its purchase.

    ``target`` int64 (H) places, −1 for an article that is not known; ``allowed`` bool (M): what was in stock.
    """

    sequences: list[Int64]
    target: Int64
    allowed: NDArray[np.bool_]


def hold_out(
    actions: Actions, place: Int64, since: int, max_actions: int, allowed: NDArray[np.bool_], rng: np.random.Generator
) -> HeldOut:
    """The purchases from ``since`` on of customers who did something before them, at most 5,000, drawn by ``rng``.

    ``place`` int64 (N): each article's in the table, that of the cold one where it is not known.
    """
    customer = np.repeat(np.arange(len(actions.offsets) - 1), np.diff(actions.offsets))
    rows = np.flatnonzero(actions.bought & (actions.time >= since))
    start = actions.offsets[customer[rows]]
    end = np.array(
        [low + np.searchsorted(actions.time[low:row], actions.time[row]) for low, row in zip(start, rows, strict=True)],
        np.int64,
    )  # what happened at the very moment of the purchase does not foretell it
    rows, start, end = rows[end > start], start[end > start], end[end > start]
    if len(rows) > _HELD_OUT:
        drawn = np.sort(rng.choice(len(rows), _HELD_OUT, replace=False))
        rows, start, end = rows[drawn], start[drawn], end[drawn]
    sequences = [
        place[actions.article[max(low, high - max_actions) : high]] for low, high in zip(start, end, strict=True)
    ]
    target = place[actions.article[rows]]
    return HeldOut(sequences, np.where(target < len(allowed), target, -1), allowed)


class CoreStage:
    """Training of CORE; its score is the share of held-out purchases among the first 10.

    ``place`` int64 (N): each article's place in the table, ``network.articles`` where it is not known.
    """

    name = "id_embeddings"

    def __init__(
        self, network: CoreNetwork, actions: Actions, place: Int64, *, held_out: HeldOut, config: IdEmbeddingsConfig
    ):
        self.core = network
        self.network: nn.Module = CoreTraining(network, config.temperature)
        self._config, self._held_out = config, held_out
        self._place, self._offsets = place[actions.article], actions.offsets
        counts = actions.bought if config.predict == "purchases" else np.ones(len(actions), dtype=bool)
        first = np.zeros(len(actions) + 1, dtype=bool)
        first[actions.offsets] = True
        self._counts = counts & ~first[:-1] & (self._place < network.articles)
        if not self._counts.any():
            raise TrainingError(
                "id_embeddings: nobody bought anything after another action before the validation window"
            )
        self._start = self._length = np.zeros(0, np.int64)

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        """Stretches in random order, cut anew; those that no target follows are left out."""
        del epoch
        self._start, self._length = cut_sequences(self._offsets, self._config.max_actions, rng)
        targets = np.concatenate([[0], np.cumsum(self._counts)])
        rows = np.flatnonzero(targets[self._start + self._length + 1] > targets[self._start + 1])
        if len(rows) > self._config.max_sequences:
            rows = rng.choice(rows, self._config.max_sequences, replace=False)
        return shuffled_batches(rows, self._config.batch, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        start, length = self._start[rows], self._length[rows]
        offset = np.arange(int(length.max()))
        inside = offset < length[:, None]  # (B, T)
        index = np.where(inside, start[:, None] + offset, 0)
        cold = rng.random(index.shape) < self._config.cold_share
        articles = np.where(cold | ~inside, self.core.articles, self._place[index])
        places = np.flatnonzero(inside & self._counts[index + 1])
        targets = self._place[index.reshape(-1)[places] + 1]
        return tuple(torch.from_numpy(part).to(device) for part in (articles, places, targets))

    def validate(self) -> float:
        """0 where nothing is held out."""
        held_out = self._held_out
        if not len(held_out.target):
            return 0.0
        rank = held_out_ranks(self.core, held_out)
        return float((rank <= FOUND_AMONG).mean())


def cut_sequences(offsets: Int64, size: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Starts and lengths int64 of stretches of inputs, each followed by one more action of the same customer.

    Every action that another follows is an input of exactly one stretch. All have ``size`` actions but a customer's
    first, whose length is drawn, and last.
    """
    inputs = np.maximum(np.diff(offsets) - 1, 0)
    first = np.where(inputs > size, rng.integers(1, size + 1, len(inputs)), size)
    chunks = np.where(inputs > 0, 1 + -(-np.maximum(inputs - first, 0) // size), 0)
    customer = np.repeat(np.arange(len(inputs)), chunks)
    number = np.arange(len(customer)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    begin = np.where(number > 0, first[customer] + (number - 1) * size, 0)
    end = np.minimum(first[customer] + number * size, inputs[customer])
    return offsets[:-1][customer] + begin, end - begin


def held_out_ranks(core: CoreNetwork, held_out: HeldOut) -> NDArray[np.float64]:
    """Rank float64 (H) of each purchase among what was in stock, 1 = top; infinite where it was not, or is unknown.

    Ties share the middle of their places.
    """
    device = next(core.parameters()).device
    rank = np.full(len(held_out.target), np.inf)
    core.eval()
    with torch.inference_mode():
        known = core.known()
        forbidden = torch.from_numpy(~held_out.allowed).to(device)
        for start in range(0, len(rank), _READ_BATCH):
            sequences = held_out.sequences[start : start + _READ_BATCH]
            target = torch.from_numpy(held_out.target[start : start + _READ_BATCH]).to(device)
            scores = (_read(core, sequences, device) @ known.T).masked_fill(forbidden, float("-inf"))
            own = scores.gather(1, target.clamp(min=0)[:, None])
            place = 0.5 + (scores > own).sum(dim=1) + 0.5 * (scores == own).sum(dim=1)
            shown = (target >= 0) & own[:, 0].isfinite()
            rank[start : start + _READ_BATCH] = torch.where(shown, place, torch.inf).cpu().numpy()
    return rank


def _read(core: CoreNetwork, sequences: Sequence[Int64], device: torch.device) -> Tensor:
    """Embeddings (B, 128) of whole sequences."""
    length = np.array([len(each) for each in sequences])
    articles = np.full((len(sequences), int(length.max())), core.articles, np.int64)
    for row, each in zip(articles, sequences, strict=True):
        row[: len(each)] = each
    sessions: Tensor = core(torch.from_numpy(articles).to(device))
    return sessions[torch.arange(len(length), device=device), torch.from_numpy(length - 1).to(device)]


def popularity_ranks(actions: Actions, place: Int64, held_out: HeldOut) -> NDArray[np.float64]:
    """The same ranks where all are shown what was bought most in training: what the table must beat."""
    sold = np.bincount(place[actions.article[actions.bought]], minlength=len(held_out.allowed) + 1)[:-1]
    sold = np.where(held_out.allowed, sold, -1)
    own = sold[held_out.target]
    place_of = 0.5 + (sold[None, :] > own[:, None]).sum(axis=1) + 0.5 * (sold[None, :] == own[:, None]).sum(axis=1)
    return np.where((held_out.target >= 0) & (own >= 0), place_of, np.inf)


def train_core(
    data: DataSet,
    config: IdEmbeddingsConfig,
    *,
    until: int,
    held_out_until: int,
    seed: int,
    checkpoint: Path,
    recipe: str = "",
    world: World | None = None,
    precision: str = "auto",
    progress: Progress | None = None,
) -> CoreTable:
    """Train on the actions before ``until``; purchases from then to ``held_out_until`` stop it early.

    Without any of the latter all epochs are trained and the last counts. Raises TrainingError where no purchase
    follows another action.
    """
    actions = read_actions(data, until)
    seen = np.bincount(actions.article, minlength=len(data.article_ids))
    rows = np.flatnonzero(seen >= config.min_actions)
    place = np.full(len(data.article_ids), len(rows), np.int64)
    place[rows] = np.arange(len(rows))
    held_out = hold_out(
        read_actions(data, held_out_until),
        place,
        until,
        config.max_actions,
        data.availability.in_stock_between(until, held_out_until)[rows],
        derive(seed, "id_embeddings", "held out"),
    )
    seed_torch(derive(seed, "id_embeddings", "weights"))
    network = CoreNetwork(len(rows), config)
    stage = CoreStage(network, actions, place, held_out=held_out, config=config)
    fitted = fit(
        stage,
        config,
        seed=seed,
        checkpoint=checkpoint,
        recipe=recipe,
        keep_last=not len(held_out.target),
        world=world,
        precision=precision,
        progress=progress,
    )
    if len(held_out.target):
        sold = float((popularity_ranks(actions, place, held_out) <= FOUND_AMONG).mean())
        (progress or Silent()).say(
            f"id_embeddings: {fitted.best_score:.3f} of {len(held_out.target):,} held-out purchases among the first "
            f"{FOUND_AMONG}; of what is bought most, {sold:.3f}"
        )
    return _table(network, rows, fitted.curve)


def _table(network: CoreNetwork, rows: Int64, curve: Curve) -> CoreTable:
    with torch.inference_mode():
        weight = torch.nn.functional.normalize(network.table.weight.float(), dim=-1).cpu().numpy()
    return CoreTable(weight[:-1].copy(), rows, weight[-1].copy(), curve)
