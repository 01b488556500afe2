"""CORE: sessions as weighted sums of their articles' own embeddings (Hou et al. 2022; Amazon 2024, §4.4).

Notation of the paper: h_i the embedding of a session's i-th article, α_i its weight, h_s the session's embedding.

    h_s = Σ_i α_i h_i                                       (representation-consistent encoder, equation 1)
    α = 1 / n                                               (ave, equation 2)
    α = softmax(w · F)   F = Transformer(h_1, …, h_n)       (trm, equations 3 to 5)
    loss = −log softmax_j(cos(h_s, h'_j) / τ)               (robust distance measuring, equation 6)

with dropout on every h_i of the session and on every article's h'_j (item dropout). As session and articles lie in one
space and only their angle counts, the table of articles is all that is kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model_store.generation import TEXT_SIZE
from offline.config import IdEmbeddingsConfig

_LOGITS = 1 << 25  # held at once, forward and backward; more are computed again when they are needed


class CoreNetwork(nn.Module):
    """M known articles, and behind them the cold one: row M of ``table``.

    The transformer looks only backwards, as in the authors' implementation, so one pass gives the embeddings of all
    prefixes of a sequence, and padding at the end reaches none of them.
    """

    def __init__(self, articles: int, config: IdEmbeddingsConfig):
        super().__init__()
        self.articles = articles
        self.table = nn.Embedding(articles + 1, TEXT_SIZE)
        nn.init.uniform_(self.table.weight, -(TEXT_SIZE**-0.5), TEXT_SIZE**-0.5)
        self.item_dropout = nn.Dropout(config.item_dropout)
        self.weights: nn.Module = TransformerWeights(config) if config.variant == "trm" else AverageWeights()

    def forward(self, articles: Tensor) -> Tensor:
        """Embeddings (B, T, 128), of length 1, of the prefixes that end at each action of ``articles`` int64 (B, T)."""
        embedding = self.item_dropout(self.table(articles))
        alpha = self.weights(embedding)  # (B, T, T)
        return F.normalize((alpha @ embedding).float(), dim=-1)

    def known(self) -> Tensor:
        """Embeddings (M, 128), of length 1, of the known articles, with item dropout while training."""
        return F.normalize(self.item_dropout(self.table.weight[: self.articles]), dim=-1)


class AverageWeights(nn.Module):
    """CORE-ave: (B, T, 128) → α (B, T, T); row t holds 1 / (t + 1) for the actions 0 … t."""

    def forward(self, embedding: Tensor) -> Tensor:
        length = embedding.shape[1]
        return prefix_softmax(embedding.new_zeros(1, length)).expand(len(embedding), length, length)


class TransformerWeights(nn.Module):
    """CORE-trm: (B, T, 128) → α (B, T, T), at most ``config.max_actions`` actions; row t weights the actions 0 … t."""

    def __init__(self, config: IdEmbeddingsConfig):
        super().__init__()
        self.position = nn.Embedding(config.max_actions, TEXT_SIZE)
        self.norm = nn.LayerNorm(TEXT_SIZE)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            TEXT_SIZE, config.heads, config.inner, config.dropout, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.read = nn.Linear(TEXT_SIZE, 1, bias=False)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, embedding: Tensor) -> Tensor:
        length = embedding.shape[1]
        places = torch.arange(length, device=embedding.device)
        later = places[None, :] > places[:, None]  # (T, T), True: may not be looked at
        hidden = self.dropout(self.norm(embedding + self.position(places)))
        return prefix_softmax(self.read(self.layers(hidden, mask=later)).squeeze(-1).float())


def prefix_softmax(score: Tensor) -> Tensor:
    """Scores (B, T) → (B, T, T): row t is the softmax of scores 0 … t, and 0 behind."""
    length = score.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=score.device).tril()
    return score[:, None, :].expand(-1, length, -1).masked_fill(~earlier, float("-inf")).softmax(dim=-1)


class CoreTraining(nn.Module):
    """The network below its cross-entropy over all known articles. ``forward`` gives (loss summed, predictions)."""

    def __init__(self, core: CoreNetwork, temperature: float):
        super().__init__()
        self.core, self._temperature = core, temperature

    def forward(self, articles: Tensor, places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """``articles`` int64 (B, T), padded at the end; ``places`` int64 (S) into B·T, each to foretell ``targets``."""
        sessions, known = self.core(articles).flatten(0, 1)[places], self.core.known().float()
        size = max(_LOGITS // max(len(known), 1), 1)
        with torch.autocast(articles.device.type, enabled=False):  # cosines over a small temperature need float32
            parts = zip(torch.split(sessions, size), torch.split(targets, size), strict=True)
            loss = torch.stack([self._loss(part, known, target, len(sessions) > size) for part, target in parts]).sum()
        return loss, torch.tensor(float(len(places)), device=articles.device)

    def _loss(self, sessions: Tensor, known: Tensor, targets: Tensor, again: bool) -> Tensor:
        if again:
            loss: Tensor = checkpoint(
                cosine_cross_entropy, sessions, known, targets, self._temperature, use_reentrant=False
            )
            return loss
        return cosine_cross_entropy(sessions, known, targets, self._temperature)


def cosine_cross_entropy(sessions: Tensor, known: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Equation 6, summed: ``sessions`` (S, 128) and ``known`` (M, 128) of length 1, ``targets`` int64 (S)."""
    return F.cross_entropy(sessions @ known.T / temperature, targets, reduction="sum")
