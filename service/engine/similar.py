"""What is like an article: neighbours in Fashion DNA by cosine, out of what is in stock.

A customer's style meets articles by inner product, in which a long Fashion DNA counts for much: it is how the model
says that an article sells. For likeness only the direction counts.
"""

from __future__ import annotations

import numpy as np

from service.engine.arrays import Float32
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Ranked


def similar(index: ArticleIndex, dna: Float32, k: int, filters: Filters = EVERYTHING) -> Ranked:
    """The ``k`` articles in stock that pass ``filters`` with the highest cosine with ``dna`` float32 (128); exact.

    Fewer where fewer pass. The cosine with an article whose DNA is all zero is 0.
    """
    rows = index.allowed_rows(filters)
    vectors = index.vectors_of(rows)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(dna)
    cosines = np.divide(vectors @ dna, lengths, out=np.zeros(len(rows), np.float32), where=lengths > 0)
    return index.ranked(rows, np.clip(cosines, -1.0, 1.0), k)
