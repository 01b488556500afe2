"""Training the style LSTM, and reading styles from it (Zalando 2017, §2.3–2.5).

The rules, each held by a test:

- Zero start: before a customer's first purchase, f_0, τ(t_0), the gap and the memory m_0 are zero.
- Purchases of one order are in a new random order each epoch; nothing else moves.
- Only the first article of an order (after that shuffle) contributes to the loss; the others are inputs alone.
- Negatives were in stock at t_i and are not among the customer's purchases (``offline.negatives``).
- A history longer than ``max_purchases`` is cut into consecutive chunks of that length. Each starts with zero memory
  and a zero first input, as it would be unfair to predict from; so the first prediction of a later chunk does not
  count.
- A customer without purchases has no sequence, and is not in training.

Every step input comes from ``model_store.time_features.encode_steps``, which serving calls as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from model_store import DNA_SIZE
from model_store.errors import TrainingError
from model_store.popularity import POPULARITY
from model_store.purchases import Purchases
from model_store.time_features import TimeSpec, encode_history, encode_steps
from offline.article_offsets import ArticleOffsets
from offline.config import Config, StyleLstmConfig
from offline.models.style_lstm import LOSSES, Loss, StyleLstmNetwork
from offline.negatives import NegativeSampler
from offline.popularity import PopularityHistory
from offline.run import Run
from offline.training import Rows
from offline.validation import AsOf, Window, auc, ranks

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Score = Callable[[StyleLstmNetwork, "Float32 | np.float32"], float]
"""The score of a network and of what is added to Fashion DNA, float32 (N, 128) or 0."""
_READ_STEPS = 65_536  # steps in one batch of styles_at
_SORTED_BATCHES = 16  # batches among which chunks are sorted by length, so that little is padding


@dataclass(frozen=True)
class Sequences:
    """Training sequences of P purchases in S chunks.

    Per purchase: ``customer``, ``article``, ``time`` int64 (P), ``run`` int64 (P): number of the stretch of one order
    within which articles may change places; ``counts`` bool (P): whether its prediction contributes to the loss.
    Chunk j is rows ``start[j] : start[j] + length[j]``.
    """

    customer: Int64
    article: Int64
    time: Int64
    run: Int64
    counts: NDArray[np.bool_]
    start: Int64
    length: Int64


def make_sequences(purchases: Purchases, max_purchases: int) -> Sequences:
    """Cut every customer's purchases into chunks, and mark what contributes."""
    number = np.diff(purchases.offsets)
    chunks = -(-number // max_purchases)  # per customer; none without purchases
    within = np.arange(chunks.sum()) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    start = np.repeat(purchases.offsets[:-1], chunks) + within * max_purchases
    length = np.minimum(np.repeat(purchases.offsets[1:], chunks) - start, max_purchases)
    first_of_order = np.zeros(len(purchases), dtype=bool)
    first_of_order[np.unique(purchases.order, return_index=True)[1]] = True
    later_chunk = np.zeros(len(purchases), dtype=bool)
    later_chunk[start[within > 0]] = True
    # Purchases of one order can lie apart, another order between them: then each stretch is shuffled for itself.
    run = np.cumsum(np.diff(purchases.order, prepend=-1) != 0)
    return Sequences(
        purchases.customer.astype(np.int64),
        purchases.article.astype(np.int64),
        purchases.timestamp,
        run,
        first_of_order & ~later_chunk,
        start,
        length,
    )


def shuffle_orders(sequences: Sequences, rng: np.random.Generator) -> Int64:
    """Articles int64 (P) with those of each order in a new random order."""
    # Runs are numbered in row order, so sorting by (run, random) moves articles within their run alone.
    return sequences.article[np.lexsort((rng.random(len(sequences.run)), sequences.run))]


class StyleLstmTraining(nn.Module):
    """The LSTM below one of the losses of equation 2. ``forward`` gives (loss summed, number of predictions).

    ``dna`` float32 (N, 128), without popularity, which changes with time. ``offsets`` are trained with it.
    """

    def __init__(self, network: StyleLstmNetwork, dna: Float32, loss: Loss, offsets: ArticleOffsets | None = None):
        super().__init__()
        self.network, self._loss, self.offsets = network, loss, offsets
        self.register_buffer("dna", torch.from_numpy(dna), persistent=False)

    def forward(
        self, steps: Tensor, places: Tensor, bought: Tensor, negatives: Tensor, popularity: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``steps`` (B, T, D); ``places`` int64 (S) into B·T; ``bought`` int64 (S), ``negatives`` int64 (S, n).

        ``popularity`` float32 (S, 1 + n): components of the bought article and of the negatives at that moment; zero
        where Fashion DNA has none.
        """
        style = self.network(steps)[0].flatten(0, 1)[places].float()  # (S, 128)
        dna = self.get_buffer("dna")
        if self.offsets is not None:
            dna = dna + self.offsets()
        with torch.autocast(steps.device.type, enabled=False):  # differences of large affinities need float32
            positive = (dna[bought] * style).sum(dim=-1)  # (S)
            negative = (dna[negatives] @ style[:, :, None]).squeeze(-1)  # (S, n)
            popular = style[:, POPULARITY, None] * popularity
            positive, negative = positive + popular[:, 0], negative + popular[:, 1:]
        loss = self._loss(positive, negative).sum()
        if self.offsets is not None:
            loss = loss + len(places) * self.offsets.penalty()
        return loss, torch.tensor(float(len(places)), device=steps.device)


class StyleLstmStage:
    """Training of the style LSTM, and of ``offsets`` to ``dna`` where there are any.

    ``score`` is given the network and what offsets add to Fashion DNA, float32 (N, 128) or 0: the AUC of the styles
    read at each first purchase in the window.
    """

    def __init__(
        self,
        network: StyleLstmNetwork,
        dna: Float32,
        *,
        sequences: Sequences,
        negatives: NegativeSampler,
        time_spec: TimeSpec,
        config: StyleLstmConfig,
        score: Score,
        popularity: PopularityHistory | None = None,
        offsets: ArticleOffsets | None = None,
        name: str = "style_lstm",
    ):
        self.name = name
        if not sequences.counts.any():
            raise TrainingError("style_lstm: there is no purchase before the validation window to learn from")
        self.lstm = network
        self.network: nn.Module = StyleLstmTraining(network, dna, LOSSES[config.loss], offsets)
        self._dna, self._sequences, self._negatives = dna, sequences, negatives
        self._time_spec, self._config, self._score = time_spec, config, score
        self._articles, self._popularity, self._offsets = sequences.article, popularity, offsets

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        """Chunks of like length together; the articles of each order are shuffled anew."""
        del epoch
        self._articles = shuffle_orders(self._sequences, rng)
        return length_batches(self._sequences.length, self._config.batch, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        seen = self._sequences
        length = seen.length[rows]
        offset = np.arange(int(length.max()))
        inside = offset < length[:, None]  # (B, T)
        index = np.where(inside, seen.start[rows][:, None] + offset, 0)  # (B, T) rows of purchases
        contributes = inside & seen.counts[index]
        places = np.flatnonzero(contributes)
        now = index.reshape(-1)[places]
        negatives, valid = self._negatives.draw(seen.customer[now], seen.time[now], self._config.negatives, rng)
        bought = self._articles[now[valid]]
        popularity = self._popular(np.column_stack([bought, negatives[valid]]), seen.time[now[valid]])
        drawn = (self._steps(index), places[valid], bought, negatives[valid], popularity)
        return tuple(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in drawn)

    def _popular(self, articles: Int64, time: Int64) -> Float32:
        if self._popularity is None:
            return np.zeros(articles.shape, np.float32)
        return self._popularity.of(articles, time[:, None])

    def _steps(self, index: Int64) -> Float32:
        first = np.broadcast_to(np.arange(index.shape[1]) == 0, index.shape)
        before = np.where(first, 0, index - 1)
        time = self._sequences.time
        return encode_steps(self._time_spec, self._read(self._articles[before]), time[before], time[index], first)

    def _read(self, articles: Int64) -> Float32:
        """Fashion DNA float32 (…, 128) as it is at this moment; through what is read, no offset learns anything."""
        dna = self._dna[articles]
        return dna if self._offsets is None else dna + self._offsets.of(articles)

    def validate(self) -> float:
        return self._score(self.lstm, np.float32(0) if self._offsets is None else self._offsets.table())


def length_batches(length: Int64, size: int, rng: np.random.Generator) -> list[Rows]:
    """Rows in batches of ``size``: random, but sorted by length among any ``_SORTED_BATCHES`` batches."""
    order = rng.permutation(len(length))
    batches: list[Rows] = []
    for low in range(0, len(order), size * _SORTED_BATCHES):
        group = order[low : low + size * _SORTED_BATCHES]
        group = group[np.argsort(length[group], kind="stable")]
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return [batches[index] for index in rng.permutation(len(batches))]


def trained_network(run: Run) -> StyleLstmNetwork:
    """The style LSTM of a run, in evaluation mode, on the CPU. Raises InvalidConfig where it is not trained yet."""
    config = run.load_model("config", Config)
    step_size = run.load_model("time_spec", TimeSpec).step_size
    network = StyleLstmNetwork(step_size, config.style_lstm.dropout, popularity=config.fashion_dna.popularity)
    network.load_state_dict(load_file(run.existing("style_lstm.safetensors")))
    return network.eval()


# --- reading styles -------------------------------------------------------------------------------------------


def styles_at(
    network: StyleLstmNetwork,
    time_spec: TimeSpec,
    dna: Float32,
    purchases: Purchases,
    customers: NDArray[np.integer],
    times: NDArray[np.integer],
) -> Float32:
    """Style float32 (C, 128) of each customer at a time, from that customer's purchases up to it (§2.5).

    ``dna`` float32 (N, 128); ``customers`` (C) are indices into ``purchases.customer_ids``, −1 is somebody without
    purchases; ``times`` (C) Unix seconds. The whole history counts, however long.
    """
    device = next(network.parameters()).device
    histories = [_history_rows(purchases, int(who), int(when)) for who, when in zip(customers, times, strict=True)]
    length = np.asarray([len(rows) + 1 for rows in histories], dtype=np.int64)
    styles = np.zeros((len(customers), DNA_SIZE), dtype=np.float32)
    network.eval()
    with torch.inference_mode():
        for chosen in _read_batches(length):
            steps = np.zeros((len(chosen), int(length[chosen].max()), time_spec.step_size), dtype=np.float32)
            for place, index in enumerate(chosen):
                rows = histories[index]
                steps[place, : length[index]] = encode_history(
                    time_spec, dna[purchases.article[rows]], purchases.timestamp[rows], int(times[index])
                )
            output = network(torch.from_numpy(steps).to(device))[0]
            last = torch.from_numpy(length[chosen] - 1).to(device)
            styles[chosen] = output[torch.arange(len(chosen), device=device), last].float().cpu().numpy()
    return styles


def _history_rows(purchases: Purchases, customer: int, time: int) -> NDArray[np.int64]:
    if customer < 0:
        return np.zeros(0, dtype=np.int64)
    low, high = int(purchases.offsets[customer]), int(purchases.offsets[customer + 1])
    return np.arange(low, low + int(np.searchsorted(purchases.timestamp[low:high], time, side="right")))


def _read_batches(length: Int64) -> list[Rows]:
    """Customers of like length together, at most ``_READ_STEPS`` steps at a time, padding included."""
    batches: list[Rows] = []
    order = np.argsort(length, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * length[order[end]] > _READ_STEPS:
            batches.append(order[start:end])
            start = end
    return batches


def customer_index(purchases: Purchases, customers: Sequence[str]) -> Int64:
    """Indices int64 (C) into ``purchases.customer_ids``, −1 for who is not there."""
    known = {customer: index for index, customer in enumerate(purchases.customer_ids)}
    return np.asarray([known.get(customer, -1) for customer in customers], dtype=np.int64)


def window_score(
    window: Window, time_spec: TimeSpec, dna: Float32, history: Purchases, popularity: AsOf | None = None
) -> Score:
    """A function that gives a network's AUC in ``window``, with styles read from ``history``.

    ``popularity``: that component of f, where it is used, which ``dna`` is without.
    """
    index = customer_index(history, window.customers)

    def score(network: StyleLstmNetwork, offsets: Float32 | np.float32) -> float:
        table = dna + offsets
        styles = styles_at(network, time_spec, table, history, index, window.times)
        bonus = None if popularity is None else popular_part(styles, popularity)
        return auc(window, ranks(window, table, styles, bonus))

    return score


def popular_part(styles: Float32, popularity: AsOf) -> Callable[[int, int], Float32]:
    """The share of f·d that is popularity's, as ``offline.validation.ranks`` adds it; ``styles`` float32 (C, 128)."""
    return lambda low, high: styles[low:high, POPULARITY, None] * popularity.rows(low, high)
