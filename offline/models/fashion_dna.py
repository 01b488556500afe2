"""Fashion DNA: catalogue data of an article → f, and the static customers it is trained through (Zalando §2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store import DNA_SIZE


class FashionDnaNetwork(nn.Module):
    """Multi-hot tags ⊕ numbers ⊕ image embedding → fully connected stack → f (B, 128).

    ``tag_ids`` int64 (B, L), 0 = padding; ``numeric`` float32 (B, M); ``image_embedding`` float32 (B, E). The sum of
    tag embeddings is the first fully connected layer on multi-hot tags, without ever writing the zeros. With
    ``unit_norm``, f has length 1.
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
    ):
        super().__init__()
        self.from_tags = nn.Embedding(tags + 1, hidden, padding_idx=0)
        nn.init.normal_(self.from_tags.weight, std=0.05)
        with torch.no_grad():
            self.from_tags.weight[0].zero_()
        self.from_numbers = nn.Linear(numeric + image, hidden)
        self.stack = nn.Sequential(
            nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)
        )
        self.bottleneck = nn.Linear(hidden, DNA_SIZE)
        self.tag_dropout, self.unit_norm = tag_dropout, unit_norm

    def forward(self, tag_ids: Tensor, numeric: Tensor, image_embedding: Tensor) -> Tensor:
        if self.training and self.tag_dropout:
            keep = torch.rand(tag_ids.shape, device=tag_ids.device) >= self.tag_dropout
            tag_ids = tag_ids * keep
        hidden = self.from_tags(tag_ids).sum(dim=1)  # (B, hidden)
        hidden = hidden + self.from_numbers(torch.cat([numeric, image_embedding], dim=1))
        dna: Tensor = self.bottleneck(self.stack(hidden))  # (B, 128)
        return F.normalize(dna, dim=1) if self.unit_norm else dna


class StaticCustomers(nn.Module):
    """The static model's style vectors s_k and biases β_k of K customers: z_νk = f_ν · s_k + β_k (equation 1)."""

    def __init__(self, customers: int, base_rate: float = 0.001):
        super().__init__()
        self.style = nn.Parameter(torch.randn(customers, DNA_SIZE) * 0.05)
        self.bias = nn.Parameter(torch.full((customers,), float(torch.logit(torch.tensor(base_rate)))))

    def forward(self, dna: Tensor) -> Tensor:
        """Logits z (B, K) of articles ``dna`` (B, 128) for all customers."""
        return dna @ self.style.T + self.bias


def sparse_cross_entropy(logits: Tensor, rows: Tensor, customers: Tensor) -> Tensor:
    """Cross-entropy of a sparse binary purchase matrix, averaged over customers and articles, without a dense target.

    ``logits`` (B, K); the positives are Π[rows[j], customers[j]] = 1. With x log-odds, −log σ(x) − … collapses to
    Σ softplus(z) − Σ_{bought} z (design §4).
    """
    return (F.softplus(logits).sum() - logits[rows, customers].sum()) / logits.numel()
