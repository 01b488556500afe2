"""Attributes as sentences, and sequences of them as tokens (Li et al. 2023, §2.1, §2.2.1).

An article is the sentence {key, value, key, value, …} of its attributes, a search the sentence {"query", its words}. A
sequence is [CLS] and its sentences, the newest first; what is too long loses its oldest end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from offline.baselines.texts import Attributes
from offline.models.recformer import CLS, KEY, PADDING, VALUE, Tokens

QUERY = "query"
MAX_ATTRIBUTE_TOKENS = 32
"""Of a key or a value (§3.1.3)."""


class Sentence(NamedTuple):
    """Tokens of one article or search, and of which kind each is."""

    token: tuple[int, ...]
    kind: tuple[int, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Text → token ids, and the tokens that no text becomes."""

    encode: Callable[[str], list[int]]
    cls: int
    padding: int
    mask: int
    size: int


def sentence_of(attributes: Attributes, vocabulary: Vocabulary) -> Sentence:
    """The sentence of an article, or of a search as attributes; an attribute of which nothing is known is left out."""
    token: list[int] = []
    kind: list[int] = []
    for name, value in attributes.items():
        for text, what in ((name, KEY), (value, VALUE)) if value.strip() else ():
            ids = vocabulary.encode(text)[:MAX_ATTRIBUTE_TOKENS]
            token += ids
            kind += [what] * len(ids)
    return Sentence(tuple(token), tuple(kind))


def words_of(articles: Iterable[Attributes], queries: Iterable[str]) -> list[str]:
    """Every key and value, as often as it occurs: what a tokenizer is learned from."""
    return [*chain.from_iterable(chain.from_iterable(each.items()) for each in articles), *queries]


@dataclass(frozen=True)
class Layout:
    """How sequences are laid out."""

    vocabulary: Vocabulary
    tokens: int
    """of a sequence at most, [CLS] among them"""
    sentences: int
    """of a sequence at most"""
    window: int
    """a multiple of it is the length of all sequences of a batch"""

    def tokens_of(self, sequences: Sequence[Sequence[Sentence]], device: torch.device) -> Tokens:
        """B sequences of sentences, oldest first, as the network reads them: newest first, padded to one length."""
        rows = [self._row(sequence) for sequence in sequences]
        longest = max((len(token) for token, _, _ in rows), default=1)
        length = -(-longest // self.window) * self.window
        filled = np.zeros((3, len(rows), length), np.int64)
        filled[0], filled[1] = self.vocabulary.padding, PADDING
        for number, parts in enumerate(rows):
            for table, part in zip(filled, parts, strict=True):
                table[number, : len(part)] = part
        token, kind, sentence = torch.from_numpy(filled).to(device)
        return Tokens(token, kind, sentence)

    def _row(self, sequence: Sequence[Sentence]) -> tuple[list[int], list[int], list[int]]:
        token, kind, place = [self.vocabulary.cls], [CLS], [0]
        latest = sequence[max(len(sequence) - self.sentences, 0) :]
        for number, sentence in enumerate(reversed(latest), 1):
            token += sentence.token
            kind += sentence.kind
            place += [number] * len(sentence.token)
            if len(token) >= self.tokens:
                break
        return token[: self.tokens], kind[: self.tokens], place[: self.tokens]


def masked(tokens: Tokens, vocabulary: Vocabulary, random: torch.Generator) -> tuple[Tokens, Tensor]:
    """BERT's masking of 15% of the words: 80% become the mask, 10% any token (§2.3.1). ``random`` draws on the CPU.

    Gives the masked sequences, and which tokens are to be foretold: bool (B, T). One at least is, of those that can be.
    """
    shape, device = tokens.token.shape, tokens.token.device
    draw, become = torch.rand(2, *shape, generator=random).to(device)
    draw = draw.masked_fill((tokens.kind != KEY) & (tokens.kind != VALUE), 2.0)
    chosen = (draw < 0.15) | (draw == draw.min()) & (draw < 1.0)
    other = torch.randint(vocabulary.size, shape, generator=random).to(device)
    token = torch.where(chosen & (become < 0.8), vocabulary.mask, tokens.token)
    token = torch.where(chosen & (become >= 0.9), other, token)
    return tokens._replace(token=token), chosen
