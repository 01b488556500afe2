"""What trains each stage. Imports all that any of them needs, which takes seconds: for processes that train."""

from __future__ import annotations

from collections.abc import Callable

from offline.blend_stage import train_blend
from offline.context import Context
from offline.generation_stages import (
    build_query_memory,
    train_base,
    train_ids,
    train_language_model,
    train_titles,
)
from offline.style_stages import train_fashion_dna, train_images, train_popularity, train_style_lstm

TRAIN: dict[str, Callable[[Context], None]] = {
    "images": train_images,
    "fashion_dna": train_fashion_dna,
    "popularity": train_popularity,
    "style_lstm": train_style_lstm,
    "title_encoder": train_titles,
    "id_embeddings": train_ids,
    "query_memory": build_query_memory,
    "base_model": train_base,
    "language_model": train_language_model,
    "blend": train_blend,
}
