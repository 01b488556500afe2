"""Articles to store."""

from __future__ import annotations

import hashlib

import numpy as np

from model_store.records import Article
from service.catalogue.records import StoredArticle


def stored(article_id: str, *, title: str = "Title", image: bytes | None = None, **fields) -> StoredArticle:
    article = Article(article_id=article_id, title=title, category="Dress", **fields)
    digest = hashlib.sha256(article.model_dump_json().encode() + (image or b"")).hexdigest()
    return StoredArticle(article, digest, image)


def dna_of(*values: float) -> np.ndarray:
    """One row of 128 equal components per value."""
    return np.repeat(np.array(values, np.float32)[:, None], 128, axis=1)
