"""Embeddings of generated titles and of queries, as one bundle's title encoder makes them."""

from __future__ import annotations

from collections import OrderedDict

from model_store.generation import TextEncoder
from service.engine.arrays import Float32

KEPT_TITLES = 4_096
"""Texts whose embeddings are kept, about 1 KB each."""


class TitleVectors:
    """Embeds titles and queries, and keeps what it was asked for lately: a text is read more often than written."""

    def __init__(self, encoder: TextEncoder, most: int = KEPT_TITLES):
        self._encoder, self._most = encoder, most
        self._known: OrderedDict[str, Float32] = OrderedDict()  # the least lately used first

    def of(self, text: str) -> Float32:
        """float32 (128), of length 1. Do not write to it."""
        vector = self._known.pop(text, None)
        if vector is None:
            vector = self._encoder.encode([text])[0]
        self._known[text] = vector
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return vector
