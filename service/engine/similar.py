"""What is like an article: neighbours in Fashion DNA by cosine, out of what is in stock.

A customer's style meets articles by inner product, in which a long Fashion DNA counts for much: it is how the model
says that an article sells. For likeness only the direction counts.
"""

from __future__ import annotations

from service.engine.arrays import Float32
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Ranked


def similar(index: ArticleIndex, dna: Float32, k: int, filters: Filters = EVERYTHING) -> Ranked:
    """The ``k`` articles in stock that pass ``filters`` with the highest cosine with ``dna`` float32 (128); exact.

    Fewer where fewer pass. The cosine with an article whose DNA is all zero is 0.
    """
    return index.most_alike(dna, k, filters)
