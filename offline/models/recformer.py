"""Recformer's network (Li et al. 2023, §2.2): a Longformer that reads sequences of sentences of attributes.

Letters: B sequences, T tokens, d components, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLS, KEY, VALUE, PADDING = range(4)
"""Kinds of tokens: token types of the paper, and padding."""


class Tokens(NamedTuple):
    """B sequences as the network reads them, all int64 (B, T); each begins with [CLS], padding stands last."""

    token: Tensor
    """id in the vocabulary"""
    kind: Tensor
    """CLS, KEY, VALUE or PADDING"""
    sentence: Tensor
    """0 for [CLS] and padding, k for the k-th sentence, the newest being the first"""


class RecformerNetwork(nn.Module):
    """``longformer``: a ``LongformerForMaskedLM``, whose one token type gives way to the four kinds.

    Sequences hold at most ``sentences`` sentences. T must be a multiple of the Longformer's attention window.
    """

    def __init__(self, longformer: Any, sentences: int):
        super().__init__()
        self.longformer = longformer
        config = longformer.config
        kind = nn.Embedding(4, config.hidden_size)
        self.sentence = nn.Embedding(sentences + 1, config.hidden_size)
        for table in (kind, self.sentence):
            nn.init.normal_(table.weight, std=config.initializer_range)
        self._body.embeddings.token_type_embeddings = kind

    @property
    def _body(self) -> Any:
        return self.longformer.longformer

    def forward(self, tokens: Tokens) -> Tensor:
        """The representation of each sequence, h of [CLS] (equation 4) brought to length 1: float32 (B, d)."""
        return F.normalize(self.hidden(tokens)[:, 0], dim=-1)

    def hidden(self, tokens: Tokens) -> Tensor:
        """float32 (B, T, d). [CLS] attends to all and all attend to it, every other token to its window."""
        is_cls = (tokens.kind == CLS).long()
        hidden: Tensor = self._body(
            inputs_embeds=self._body.embeddings.word_embeddings(tokens.token) + self.sentence(tokens.sentence),
            position_ids=self.positions(tokens),
            token_type_ids=tokens.kind,
            attention_mask=(tokens.kind != PADDING).long(),
            global_attention_mask=is_cls,
        ).last_hidden_state
        return hidden

    def embedded(self, tokens: Tokens) -> Tensor:
        """What the first layer reads: LayerNorm(A + B + C + D), equation 2, float32 (B, T, d); for tests."""
        words = self._body.embeddings.word_embeddings(tokens.token) + self.sentence(tokens.sentence)
        embedded: Tensor = self._body.embeddings(
            inputs_embeds=words, position_ids=self.positions(tokens), token_type_ids=tokens.kind
        )
        return embedded

    def positions(self, tokens: Tokens) -> Tensor:
        """Token positions int64 (B, T); as in RoBERTa, the first is the one after that of padding."""
        padding: int = self._body.config.pad_token_id
        places = torch.arange(tokens.token.shape[1], device=tokens.token.device) + padding + 1
        return torch.where(tokens.kind == PADDING, padding, places)

    def words(self, hidden: Tensor) -> Tensor:
        """Scores of all tokens of the vocabulary (equations 7 to 9 less the softmax): float32 (…, d) → (…, V)."""
        scores: Tensor = self.longformer.lm_head(hidden)
        return scores
