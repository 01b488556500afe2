"""Embeddings of generated titles and of queries, as one bundle's title encoder makes them."""

from __future__ import annotations

import numpy as np

from model_store.generation import TEXT_SIZE, TextEncoder
from service.engine.arrays import Float32
from service.engine.slots import Slots, digest

KEPT_TITLES = 4_096
"""Texts whose embeddings are kept, about 1 KB each."""


class TitleVectors:
    """Embeds titles and queries, and keeps what it was asked for lately: a text is read more often than written."""

    def __init__(self, encoder: TextEncoder, most: int = KEPT_TITLES):
        self._encoder = encoder
        self._slots = Slots(most)
        self._vectors = np.full((most, TEXT_SIZE), np.nan, np.float32)  # written to, so that the memory is really there

    def of(self, text: str) -> Float32:
        """float32 (128), of length 1."""
        key = digest(text.encode(errors="surrogatepass"))
        slot = self._slots.find(key)
        if slot is None:
            vector = self._encoder.encode([text])[0]
            slot = self._slots.give(key)
            self._vectors[slot] = vector
        # A copy: somebody else may have the slot before its asker is done.
        own: Float32 = self._vectors[slot].copy()
        return own
