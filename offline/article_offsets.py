"""What purchases tell of an article beyond its record: an offset to its Fashion DNA, learned with the style LSTM.

Fashion DNA follows from attributes and pictures, so that articles with the same ones are alike. Where many customers
buy few articles, each article's own sales tell more than that. The offset is 0 at first, and drawn back to it by an L2
penalty; with some probability an article goes without, so that styles rank what never sold as well. A hybrid of content
and a latent factor of each item's own, as in Kula 2015, "Metadata embeddings for user and item cold-start
recommendations", §3.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model_store import DNA_SIZE
from model_store.popularity import POPULARITY
from offline.config import StyleLstmConfig
from offline.run import Run

NAME = "article_offsets"
"""Of the file in a run, where its style LSTM has been trained with offsets."""

Float32 = NDArray[np.float32]
_OWN = POPULARITY
"""Components that an offset has: all but the last, which is what an article sold."""


class ArticleOffsets(nn.Module):
    """Offsets of N ``articles``.

    ``penalty``: λ of their mean squared length; ``dropout``: probability to go without.
    """

    def __init__(self, articles: int, penalty: float, dropout: float):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(articles, _OWN))
        self.no_decay = (self.offset,)
        self._penalty, self._dropout = penalty, dropout

    def forward(self) -> Tensor:
        """What is added to Fashion DNA, float32 (N, 128)."""
        offset: Tensor = self.offset
        if self.training and self._dropout:
            offset = offset * (torch.rand(len(offset), 1, device=offset.device) >= self._dropout)
        return F.pad(offset, (0, DNA_SIZE - _OWN))

    def penalty(self) -> Tensor:
        """λ times the mean squared length, of one prediction's loss; scalar."""
        return self._penalty * self.offset.square().sum(dim=-1).mean()

    def of(self, articles: NDArray[np.int64]) -> Float32:
        """What is added to the Fashion DNA of ``articles`` (…) at this moment, float32 (…, 128)."""
        rows = torch.from_numpy(np.ascontiguousarray(articles)).to(self.offset.device)
        with torch.no_grad():
            found: Float32 = F.pad(self.offset[rows], (0, DNA_SIZE - _OWN)).cpu().numpy()
        return found

    def table(self) -> Float32:
        """``of`` all articles, float32 (N, 128)."""
        return self.of(np.arange(len(self.offset)))


def new_offsets(articles: int, config: StyleLstmConfig) -> ArticleOffsets | None:
    """Offsets to be trained, or None where ``config`` asks for none."""
    if not config.article_offsets:
        return None
    return ArticleOffsets(articles, config.offset_penalty, config.offset_dropout)


def trained_offsets(run: Run) -> Float32 | None:
    """The offsets of a run, float32 (N, 128); None where it has none."""
    return run.load_arrays(NAME)["offset"] if run.has(f"{NAME}.safetensors") else None


def read_dna(run: Run) -> Float32:
    """Fashion DNA of a run as the style LSTM reads it, float32 (N, 128): offsets included, what was sold not."""
    dna: Float32 = run.load_arrays("article_dna")["dna"]
    offsets = trained_offsets(run)
    return dna if offsets is None else dna + offsets
