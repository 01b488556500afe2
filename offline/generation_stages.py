"""The stages of the generating half (Amazon 2024): title encoder, CORE, memory, base model, language model."""

from __future__ import annotations

from offline.context import Context


def train_title_encoder(context: Context) -> None:
    raise NotImplementedError


def train_id_embeddings(context: Context) -> None:
    raise NotImplementedError


def train_query_memory(context: Context) -> None:
    raise NotImplementedError


def train_base_model(context: Context) -> None:
    raise NotImplementedError


def train_language_model(context: Context) -> None:
    raise NotImplementedError
