"""Responses as the language model learns them: batches, losses, perplexities (Amazon 2024, §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline.language_models import device_of, evaluating
from offline.sequences import Tokenised
from offline.training import Rows

_UNLABELLED = -100  # what cross-entropy ignores
_NEIGHBOURS = 32  # batches whose prompts are sorted by length together


@dataclass(frozen=True)
class Batch:
    """``token_ids`` int64 (B, T), padded with 0 behind each response; ``labels`` int64 (B, T): −100 outside responses.

    T counts the tokens of the longest prompt and response together.
    """

    token_ids: Tensor
    labels: Tensor

    @property
    def responses_from(self) -> int:
        """The first place, over the whole batch, that a response begins at."""
        return int((self.labels != _UNLABELLED).any(dim=0).nonzero()[0])


def collate(examples: Sequence[Tokenised]) -> Batch:
    """A batch whose loss is the responses' alone."""
    lengths = [len(example.prompt) + len(example.response) for example in examples]
    token_ids = torch.zeros(len(examples), max(lengths), dtype=torch.int64)
    labels = torch.full_like(token_ids, _UNLABELLED)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        token_ids[row, :length] = torch.tensor([*example.prompt, *example.response])
        labels[row, len(example.prompt) : length] = torch.tensor(example.response)
    return Batch(token_ids, labels)


def response_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of every response's tokens in nats, float32 (B, W), 0 where there is no response.

    Padding lies behind the responses, where a causal model cannot see it: no attention mask is needed. Only the last
    W places, which foretell responses, go through the model's head.
    """
    first = batch.responses_from
    width = batch.labels.shape[1] - first
    logits = model(input_ids=batch.token_ids[:, :-1], use_cache=False, logits_to_keep=width).logits  # (B, W, V)
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.labels[:, first:].flatten(), ignore_index=_UNLABELLED, reduction="none"
    )
    return losses.view(-1, width)


def perplexities(model: nn.Module, examples: Sequence[Tokenised], batch: int) -> NDArray[np.float64]:
    """exp(mean negative log-likelihood per token) of each example's response, float64 (E); ``batch`` at a time."""
    found = np.zeros(len(examples))
    with evaluating(model):
        for rows in by_length(examples, np.arange(len(examples)), batch):
            part = on_device(device_of(model), collate([examples[row] for row in rows]))
            means = response_losses(model, part).double().sum(1) / (part.labels != _UNLABELLED).sum(1)
            found[rows] = np.exp(means.cpu().numpy())
    return found


def bucketed_batches(examples: Sequence[Tokenised], rows: Rows, size: int, rng: np.random.Generator) -> list[Rows]:
    """``rows`` in random order, ``size`` at a time, so that examples of one batch are of about the same length."""
    order = rng.permutation(rows)
    batches: list[Rows] = []
    for start in range(0, len(order), size * _NEIGHBOURS):
        batches += by_length(examples, order[start : start + size * _NEIGHBOURS], size)
    return [batches[place] for place in rng.permutation(len(batches))]


def by_length(examples: Sequence[Tokenised], rows: Rows, size: int) -> list[Rows]:
    """``rows``, ``size`` at a time, those with the longest prompts first: what does not fit shows at once."""
    order = sorted(rows.tolist(), key=lambda row: (-len(examples[row].prompt), -len(examples[row].response)))
    return in_parts(np.array(order, np.int64), size)


def in_parts(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def on_device(device: torch.device, batch: Batch) -> Batch:
    return Batch(batch.token_ids.to(device), batch.labels.to(device))
