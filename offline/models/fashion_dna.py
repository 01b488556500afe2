"""Fashion DNA: catalogue data of an article → f, and the static customers it is trained through (Zalando §2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store import DNA_SIZE
from model_store.article_features import PRICE_COLUMNS

_CONSTANT_SHARE = 0.1  # of f's squared length √128²


class FashionDnaNetwork(nn.Module):
    """Multi-hot tags ⊕ numbers ⊕ image embedding → fully connected stack → f (B, 128).

    ``tag_ids`` int64 (B, L), 0 = padding; ``numeric`` float32 (B, M); ``image_embedding`` float32 (B, E). The sum of
    tag embeddings is the first fully connected layer on multi-hot tags, without ever writing the zeros. With
    ``unit_norm``, every f has the same length √128, so that its components are about 1, as the LSTM's inputs should be;
    with ``constant``, one component is the same for every article, and any style can express a bias. With
    ``popularity``, the last component is 0: the place of what the article sold (``model_store.popularity``). With
    ``ignore_price``, neither the price nor its absence is seen.
    """

    def __init__(
        self,
        tags: int,
        numeric: int,
        image: int,
        *,
        hidden: int = 256,
        dropout: float = 0.0,
        tag_dropout: float = 0.0,
        unit_norm: bool = False,
        constant: bool = False,
        popularity: bool = False,
        ignore_price: bool = False,
    ):
        super().__init__()
        seen = torch.ones(numeric)
        seen[list(PRICE_COLUMNS)] = float(not ignore_price)
        self.register_buffer("seen", seen, persistent=False)
        self.from_tags = nn.Embedding(tags + 1, hidden, padding_idx=0)
        nn.init.normal_(self.from_tags.weight, std=0.05)
        with torch.no_grad():
            self.from_tags.weight[0].zero_()
        self.from_numbers = nn.Linear(numeric + image, hidden)
        self.stack = nn.Sequential(
            nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)
        )
        self.bottleneck = nn.Linear(hidden, DNA_SIZE - constant - popularity)
        self.tag_dropout, self.unit_norm = tag_dropout, unit_norm
        self.constant, self.popularity = constant, popularity

    def forward(self, tag_ids: Tensor, numeric: Tensor, image_embedding: Tensor) -> Tensor:
        if self.training and self.tag_dropout:
            keep = torch.rand(tag_ids.shape, device=tag_ids.device) >= self.tag_dropout
            tag_ids = tag_ids * keep
        hidden = self.from_tags(tag_ids).sum(dim=1)  # (B, hidden)
        hidden = hidden + self.from_numbers(torch.cat([numeric * self.get_buffer("seen"), image_embedding], dim=1))
        dna: Tensor = self.bottleneck(self.stack(hidden))  # (B, 128), less what follows
        share = _CONSTANT_SHARE if self.constant else 0.0
        if self.unit_norm:
            dna = F.normalize(dna, dim=1) * (DNA_SIZE * (1.0 - share)) ** 0.5
        if self.constant:
            dna = torch.cat([dna, torch.full_like(dna[:, :1], (DNA_SIZE * share) ** 0.5)], dim=1)
        if self.popularity:
            dna = torch.cat([dna, torch.zeros_like(dna[:, :1])], dim=1)
        return dna


class StaticCustomers(nn.Module):
    """The static model's style vectors s_k and biases β_k of K customers: z_νk = f_ν · s_k + β_k (equation 1).

    s_k = shared + deviation_k: what all customers like is learned once, so that a customer of few purchases has a
    style, and the prior on the deviations (``regularisation``) pulls towards everybody's taste instead of none.
    """

    def __init__(self, customers: int, base_rate: float = 0.001):
        super().__init__()
        self.shared = nn.Parameter(torch.randn(DNA_SIZE) * 0.05)
        self.deviation = nn.Parameter(torch.randn(customers, DNA_SIZE) * 0.01)
        self.bias = nn.Parameter(torch.full((customers,), float(torch.logit(torch.tensor(base_rate)))))

    @property
    def no_decay(self) -> tuple[nn.Parameter, ...]:
        """The deviations: they have a prior of their own."""
        return (self.deviation,)

    @property
    def style(self) -> Tensor:
        """s_k, float32 (K, 128)."""
        return self.shared + self.deviation

    def forward(self, dna: Tensor) -> Tensor:
        """Logits z (B, K) of articles ``dna`` (B, 128) for all customers."""
        # One matrix product less memory than dna @ style.T, whose sum would be a second (K, 128).
        return dna @ self.deviation.T + (dna @ self.shared)[:, None] + self.bias

    def regularisation(self) -> Tensor:
        """Σ_k |s_k − shared|²."""
        return self.deviation.square().sum()


def sparse_cross_entropy(logits: Tensor, rows: Tensor, customers: Tensor) -> Tensor:
    """Cross-entropy of a sparse binary purchase matrix, averaged over customers and articles, without a dense target.

    ``logits`` (B, K); the positives are Π[rows[j], customers[j]] = 1. With x log-odds, −log σ(x) − … collapses to
    Σ softplus(z) − Σ_{bought} z (design §4).
    """
    return (F.softplus(logits).sum() - logits[rows, customers].sum()) / logits.numel()
