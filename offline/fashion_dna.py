"""Training Fashion DNA on the binary purchase matrix of frequent customers (Zalando 2017, §2.2, figure 1).

Batches of articles × ALL customers. An article takes part if it was bought by one of them, or was in stock before the
validation window: one that was on offer and never bought is evidence too, one that nobody could buy is not.
A customer without purchases has no row to learn from and takes no part; such a customer is served from d_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_store.dataset import Availability
from model_store.errors import TrainingError
from model_store.purchases import Purchases
from offline.article_tables import ArticleTable, encode_dna
from offline.config import FashionDnaConfig
from offline.models.fashion_dna import FashionDnaNetwork, StaticCustomers, sparse_cross_entropy
from offline.training import Rows, shuffled_batches
from offline.validation import Window, auc, ranks


@dataclass(frozen=True)
class PurchaseMatrix:
    """Π ∈ {0, 1}, sparse, by article: ``customers[offsets[ν]:offsets[ν + 1]]`` bought article ν.

    ``customer_ids`` (K); ``offsets`` int64 (N + 1); ``customers`` int64 (positives), columns of Π.
    """

    customer_ids: list[str]
    offsets: NDArray[np.int64]
    customers: NDArray[np.int64]

    def positives(self, articles: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row in the batch, customer) of every purchase of a batch of ``articles`` (B)."""
        low, count = self.offsets[articles], np.diff(self.offsets)[articles]
        rows = np.repeat(np.arange(len(articles)), count)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        return rows, self.customers[low[rows] + within]


def frequent_customers(purchases: Purchases, min_purchases: int, most: int) -> NDArray[np.int64]:
    """Customers with at least ``min_purchases`` (≥ 1) purchases, at most ``most``, those with more purchases first.

    This is the rule for customers without purchases: they are not in training.
    """
    counts = np.diff(purchases.offsets)
    enough = np.flatnonzero(counts >= max(min_purchases, 1))
    by_count = enough[np.argsort(-counts[enough], kind="stable")]
    return np.sort(by_count[:most])


def purchase_matrix(purchases: Purchases, customers: NDArray[np.int64], articles: int) -> PurchaseMatrix:
    """Π of some ``customers`` (indices into ``purchases``); buying an article twice counts once."""
    column = np.full(len(purchases.customer_ids), -1, dtype=np.int64)
    column[customers] = np.arange(len(customers))
    mine = column[purchases.customer]
    pairs = np.unique(purchases.article[mine >= 0].astype(np.int64) * max(len(customers), 1) + mine[mine >= 0])
    article, bought_by = np.divmod(pairs, max(len(customers), 1))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(article, minlength=articles))])
    return PurchaseMatrix([purchases.customer_ids[index] for index in customers], offsets.astype(np.int64), bought_by)


def trained_articles(matrix: PurchaseMatrix, availability: Availability, start: int, end: int) -> Rows:
    """Articles that take part: bought, or in stock at some moment with start ≤ moment < end."""
    return np.flatnonzero((np.diff(matrix.offsets) > 0) | availability.in_stock_between(start, end))


class FashionDnaTraining(nn.Module):
    """Both sides of equation 1. ``forward`` gives (loss summed over the articles, number of articles).

    The loss of an article is the cross-entropy summed over the K customers, so that a customer's gradient does not
    depend on how many others there are; its minimum is that of the mean.
    """

    def __init__(self, network: FashionDnaNetwork, customers: StaticCustomers, prior: float):
        super().__init__()
        self.network, self.customers, self._prior = network, customers, prior

    def forward(
        self, tag_ids: Tensor, numeric: Tensor, image_embedding: Tensor, rows: Tensor, bought_by: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = self.customers(self.network(tag_ids, numeric, image_embedding))  # (B, K)
        cross_entropy = sparse_cross_entropy(logits.float(), rows, bought_by) * logits.numel()
        prior = self._prior * self.customers.regularisation() * len(tag_ids)
        return cross_entropy + prior, torch.tensor(float(len(tag_ids)), device=tag_ids.device)


class FashionDnaStage:
    """Training of Fashion DNA and the static customers; its score is the static model's AUC in the window."""

    name = "fashion_dna"

    def __init__(
        self,
        network: FashionDnaNetwork,
        table: ArticleTable,
        *,
        matrix: PurchaseMatrix,
        articles: Rows,
        window: Window,
        config: FashionDnaConfig,
        device: torch.device,
    ):
        if not len(matrix.customer_ids):
            raise TrainingError(
                f"fashion_dna: no customer has {config.min_purchases} purchases before the validation window; "
                "lower fashion_dna.min_purchases"
            )
        rate = len(matrix.customers) / (max(len(articles), 1) * len(matrix.customer_ids))
        self.encoder = network
        self.customers = StaticCustomers(len(matrix.customer_ids), base_rate=float(np.clip(rate, 1e-7, 0.5)))
        # The log-posterior's prior counts once per epoch, over all of the articles.
        prior = config.style_regularisation / max(len(articles), 1)
        self.network: nn.Module = FashionDnaTraining(network, self.customers, prior)
        self._table, self._matrix, self._articles, self._window = table, matrix, articles, window
        self._batch_size, self._device = config.batch, device

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        del epoch
        return shuffled_batches(self._articles, self._batch_size, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        del rng
        article, bought_by = self._matrix.positives(rows)
        positives = (torch.from_numpy(article).to(device), torch.from_numpy(bought_by).to(device))
        return (*self._table.tensors(rows, device), *positives)

    def validate(self) -> float:
        dna = np.zeros((len(self._table), self.customers.shared.shape[0]), dtype=np.float32)
        dna[self._window.candidates] = encode_dna(self.encoder, self._table, self._device, self._window.candidates)
        return auc(
            self._window, ranks(self._window, dna, static_styles(self.arrays(), self.ids, self._window.customers))
        )

    @property
    def ids(self) -> list[str]:
        """Customer ids in the order of the static arrays."""
        return self._matrix.customer_ids

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """``style`` float32 (K, 128), ``bias`` float32 (K), ``shared`` float32 (128): everybody's style."""
        named = {"style": self.customers.style, "bias": self.customers.bias, "shared": self.customers.shared}
        return {name: value.detach().float().cpu().numpy().copy() for name, value in named.items()}


def static_styles(
    static: dict[str, NDArray[np.float32]], ids: Sequence[str], customers: Sequence[str]
) -> NDArray[np.float32]:
    """s_k float32 (C, 128) of ``customers``; the shared style for those who were not in training."""
    column = {customer: index for index, customer in enumerate(ids)}
    return np.stack(
        [static["style"][column[name]] if name in column else static["shared"] for name in customers]
    ).astype(np.float32)
