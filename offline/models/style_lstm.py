"""The style LSTM: purchases → style vectors d_i (Zalando 2017, §2.3), and its three losses (§2.4, equation 2)."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store import DNA_SIZE, MEMORY_SIZE
from model_store.popularity import POPULARITY

_POPULAR = 4.0  # of d at first: the weight of popularity, from which training sets out


class StyleLstmNetwork(nn.Module):
    """Step inputs (B, T, D) → styles d (B, T, 128); memory (hidden, cell), each (B, 256), is zero unless given.

    ``popularity``: the last component of f is what an article sold. It is ranked by, and never read as an input, since
    it changes with every bundle while histories stay.
    """

    def __init__(self, step_size: int, dropout: float = 0.0, *, popularity: bool = False):
        super().__init__()
        self.lstm = nn.LSTM(step_size, MEMORY_SIZE, batch_first=True)
        with torch.no_grad():  # forget gates start open (gate order of torch: input, forget, cell, output)
            self.lstm.get_parameter("bias_ih_l0")[MEMORY_SIZE : 2 * MEMORY_SIZE] = 1.0
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(MEMORY_SIZE, DNA_SIZE)
        if popularity:
            with torch.no_grad():
                self.lstm.get_parameter("weight_ih_l0")[:, POPULARITY] = 0.0  # and no gradient ever reaches them
                self.project.bias[POPULARITY] = _POPULAR

    def forward(
        self, steps: Tensor, memory: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        state = None if memory is None else (memory[0][None], memory[1][None])
        output, (hidden, cell) = self.lstm(steps, state)
        return self.project(self.dropout(output)), (hidden[0], cell[0])


class Loss(Protocol):
    """Loss per prediction (…) from the affinity of the bought article (…) and of n negatives (…, n)."""

    def __call__(self, positive: Tensor, negative: Tensor) -> Tensor: ...


def rank_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Lrank: mean of σ(f̃_j·d − f·d), a smooth 1 − AUC."""
    return torch.sigmoid(negative - positive[..., None]).mean(dim=-1)


def sigmoid_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Lσ: −log σ(f·d) − Σ log σ(−f̃_j·d)."""
    return F.softplus(-positive) + F.softplus(negative).sum(dim=-1)


def softmax_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Lsmax: −log of the bought article's share in a softmax over itself and the n negatives."""
    return torch.logsumexp(torch.cat([positive[..., None], negative], dim=-1), dim=-1) - positive


LOSSES: dict[str, Loss] = {"rank": rank_loss, "sigmoid": sigmoid_loss, "softmax": softmax_loss}
