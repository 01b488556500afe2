"""What the catalogue keeps of an article."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.records import Article

Float32 = NDArray[np.float32]

_FINGERPRINT_SIZE = 32
_PACKED_DNA = struct.Struct(f"<{_FINGERPRINT_SIZE}s{DNA_SIZE * 4}s")


@dataclass(frozen=True)
class StoredArticle:
    """An article as it is written. ``image``: the picture's bytes, from which every bundle computes its DNA.

    ``fingerprint`` (SHA-256, 64 hexadecimal digits; ``article_features.article_fingerprint``) is that of the record and
    the picture as they were sent; a DNA counts only together with the fingerprint that it was computed from.
    """

    article: Article
    fingerprint: str
    image: bytes | None = None


@dataclass(frozen=True)
class StockLevel:
    """``quantity`` pieces (0 or more) of an article at ``set_time`` (Unix seconds)."""

    article_id: str
    quantity: int
    set_time: int


class StockOutcome(StrEnum):
    """What became of a stock level: stale is what is older than the one that is stored."""

    APPLIED = "applied"
    STALE = "stale"
    UNKNOWN_ARTICLE = "unknown_article"


@dataclass(frozen=True)
class CatalogueEntry:
    """What is true of an article now.

    ``live``: False for one that was deleted and is remembered for the histories that hold it. ``stock``: None where
    none was ever set, which counts as in stock, so that a new article can be recommended at once. ``dna`` float32
    (128) under the bundle that was asked for, None where that bundle has not encoded this content yet.
    """

    article: Article
    fingerprint: str
    live: bool
    stock: StockLevel | None
    dna: Float32 | None

    @property
    def in_stock(self) -> bool:
        return self.live and (self.stock is None or self.stock.quantity > 0)


def pack_dna(fingerprint: str, dna: Float32) -> bytes:
    """544 bytes: the fingerprint (32), then the DNA, float32 (128) little-endian."""
    return _PACKED_DNA.pack(bytes.fromhex(fingerprint), np.asarray(dna, "<f4").tobytes())


def unpack_dna(packed: bytes | None, fingerprint: str) -> Float32 | None:
    """The DNA, float32 (128), or None where there is none of this very content."""
    if packed is None or len(packed) != _PACKED_DNA.size:
        return None
    computed_from, content = _PACKED_DNA.unpack(packed)
    if computed_from.hex() != fingerprint:
        return None
    return np.frombuffer(content, "<f4").astype(np.float32, copy=False)
