"""The generating half of a bundle (Amazon 2024): what reads and writes around the language model, numpy and ONNX only.

    title_encoder.onnx   title_tokenizer.json      text → title embedding: queries and titles in one space (§4.4)
    query_encoder.onnx   query_tokenizer.json      text → the memory's keys, where another encoder than that makes them
    titles.safetensors                             ``embedding`` float32 (N, 128) of the trained catalogue's titles
    ids.safetensors                                ``embedding`` float32 (M, 128), ``rows`` int64 (M) in articles.json,
                                                   ``cold`` float32 (128): CORE's article table (§4.4)
    query_memory.json    query_memory.safetensors  queries and their articles, best first; ``keys`` (S, 128) (§4.2)
    llm/                                           merged language model, a Hugging Face directory: what vLLM serves
    llm_embedded/                                  the same for onnxruntime-genai, int8: the embedded default

All embeddings have length 1, so that a dot product is a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model_store.errors import InvalidBundle
from model_store.generation_spec import (
    IDS,
    LLM,
    LLM_EMBEDDED,
    MIXUP_LENGTH,
    QUERY_ENCODER,
    QUERY_KEYS,
    QUERY_MEMORY,
    QUERY_TOKENIZER,
    TITLE_ENCODER,
    TITLE_TOKENIZER,
    TITLES,
    GenerationSpec,
)
from model_store.graphs import Float32, Graph
from model_store.prompts import neutralise
from model_store.tokens import read_tokenizer

__all__ = [  # the names of the files too, which the spec knows since a bundle must list them
    "IDS",
    "LLM",
    "LLM_EMBEDDED",
    "MAX_TEXT_TOKENS",
    "QUERY_ENCODER",
    "QUERY_KEYS",
    "QUERY_MEMORY",
    "QUERY_TOKENIZER",
    "TEXT_SIZE",
    "TITLES",
    "TITLE_ENCODER",
    "TITLE_TOKENIZER",
    "Generation",
    "IdEmbeddings",
    "QueryMemory",
    "TextEncoder",
    "load_ids",
    "load_memory",
    "load_titles",
    "mixup",
    "open_generation",
    "pad_tokens",
    "plain_text",
    "rank_bonus",
    "text_tokens",
    "write_ids",
    "write_memory",
    "write_titles",
]

Rows = NDArray[np.int64]

TEXT_SIZE = 128
"""Components of a title, query or id embedding."""

MAX_TEXT_TOKENS = 48
"""Tokens of a text that its encoder reads; what follows is cut off."""
_BATCH = 256


class TextEncoder(Graph):
    """Texts → embeddings. Graph inputs ``token_ids`` int64 (B, T) and ``lengths`` int32 (B), output ``embedding``."""

    INPUTS: ClassVar[tuple[str, ...]] = ("token_ids", "lengths")
    OUTPUTS: ClassVar[tuple[str, ...]] = ("embedding",)

    def __init__(self, path: Path, tokenizer: Path, threads: int = 1):
        super().__init__(path, threads)
        self._tokenizer = read_tokenizer(tokenizer)

    def encode(self, texts: Sequence[str]) -> Float32:
        """float32 (B, 128), each of length 1. Raises InvalidBundle where the graph cannot take them."""
        embedding = np.zeros((len(texts), TEXT_SIZE), np.float32)
        tokens = [text_tokens(self._tokenizer, text) for text in texts]
        by_length = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        for start in range(0, len(texts), _BATCH):
            rows = by_length[start : start + _BATCH]
            found = self.run(pad_tokens([tokens[row] for row in rows]))[0]
            if found.shape != (len(rows), TEXT_SIZE):
                raise InvalidBundle(
                    f"{self._name} gives {found.shape} for {len(rows)} texts; expected {TEXT_SIZE} wide"
                )
            embedding[rows] = found
        return embedding


def plain_text(text: str) -> str:
    """A title or query as its encoder reads it, neutralised and in lower case: what makes two of them the same."""
    return neutralise(text, 240).casefold()


def text_tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of the plain text of a title or query, 1 … 48 of them."""
    ids: list[int] = tokenizer.encode(plain_text(text), add_special_tokens=False).ids
    return ids[:MAX_TEXT_TOKENS] or [0]


def pad_tokens(tokens: Sequence[Sequence[int]]) -> dict[str, NDArray[np.integer]]:
    """``token_ids`` int64 (B, T), padded with 0 at the end, and ``lengths`` int32 (B)."""
    lengths = np.array([len(each) for each in tokens], np.int32)
    token_ids = np.zeros((len(tokens), int(lengths.max(initial=1))), np.int64)
    for row, each in zip(token_ids, tokens, strict=True):
        row[: len(each)] = each
    return {"token_ids": token_ids, "lengths": lengths}


@dataclass(frozen=True)
class IdEmbeddings:
    """CORE's table: ``embedding`` float32 (M, 128), and ``cold`` float32 (128) for articles unseen in training."""

    row_of: Mapping[str, int]
    embedding: Float32
    cold: Float32

    def knows(self, article_id: str) -> bool:
        """Whether the article was seen in training."""
        return article_id in self.row_of

    def of(self, article_ids: Sequence[str]) -> Float32:
        """float32 (B, 128)."""
        rows = np.array([self.row_of.get(article_id, -1) for article_id in article_ids], np.int64)
        found = np.where((rows >= 0)[:, None], self.embedding[rows] if len(self.embedding) else self.cold, self.cold)
        return np.ascontiguousarray(found, np.float32)


class _MemoryTable(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: list[str]
    article_ids: list[list[str]]


@dataclass(frozen=True)
class QueryMemory:
    """The query-product memory (§4.2): S queries, ``keys`` float32 (S, 128), and each one's articles, best first."""

    queries: Sequence[str]
    keys: Float32
    article_ids: Sequence[Sequence[str]]

    def candidates(
        self, query: Float32, nearest: int, top: int, is_candidate: Callable[[str], bool] = lambda _: True
    ) -> list[str]:
        """Of the ``nearest`` queries to ``query`` float32 (128), each one's ``top`` articles that ``is_candidate``.

        The nearest query's articles come first; none comes twice. Equal distances: in order of the table.
        """
        found: dict[str, None] = {}
        for row in self._nearest(query, nearest):
            allowed = (article_id for article_id in self.article_ids[row] if is_candidate(article_id))
            found.update(dict.fromkeys(islice(allowed, top)))
        return list(found)

    def _nearest(self, query: Float32, nearest: int) -> list[int]:
        """Rows of the ``nearest`` keys by cosine; a partition first, as logs have many queries and few are wanted."""
        if not len(self.keys):
            return []
        cosine = self.keys @ query
        least = np.partition(cosine, -nearest)[-nearest] if nearest < len(cosine) else cosine.min()
        rows = np.flatnonzero(cosine >= least)
        order: list[int] = rows[np.argsort(-cosine[rows], kind="stable")][:nearest].tolist()
        return order


def mixup(by_id: Rows, by_title: Rows, k: int, n: int = 1) -> Rows:
    """Retrieval with mixup (§4.4): the first ``n`` of the id list, then positions n+1 … k of the title list.

    Lists are of articles' rows, int64, best first, none twice in one. The paper leaves open what happens where they
    overlap or one is short. Here no article comes twice, and where that leaves room, the title list goes on behind
    position k; an id list shorter than ``n`` (that of an id of no article is empty) lets the title list begin that much
    earlier.
    """
    head = by_id[:n]
    rest = by_title[len(head) :]
    for row in head.tolist():
        rest = rest[rest != row]
    return np.concatenate([head, rest])[:k]


def rank_bonus(places: int, k: int = MIXUP_LENGTH) -> Float32:
    """What the first places of a mixup list add to a blended score of weight 1: float32 (min(places, k)).

    log((K + 1) / rank) / log(K + 1): 1 for the first, nearly 0 for the K-th (``model_store.bundle.Blend``).
    """
    return _bonuses(k)[:places]


@cache
def _bonuses(k: int) -> Float32:
    bonuses: Float32 = (np.log((k + 1) / np.arange(1, k + 1)) / np.log(k + 1)).astype(np.float32)
    bonuses.flags.writeable = False
    return bonuses


@dataclass(frozen=True)
class Generation:
    """All that is around the language model, opened."""

    spec: GenerationSpec
    title_encoder: TextEncoder
    query_encoder: TextEncoder
    ids: IdEmbeddings
    memory: QueryMemory


def open_generation(folder: Path, spec: GenerationSpec, article_ids: Sequence[str], threads: int = 1) -> Generation:
    """Open the generating half of the bundle in ``folder``; ``article_ids``: its trained catalogue.

    Raises InvalidBundle.
    """
    title_encoder = TextEncoder(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER, threads)
    query_encoder = title_encoder
    if spec.query_encoder != "title":
        query_encoder = TextEncoder(folder / QUERY_ENCODER, folder / QUERY_TOKENIZER, threads)
    return Generation(spec, title_encoder, query_encoder, load_ids(folder, article_ids), load_memory(folder))


def write_titles(folder: Path, embedding: Float32) -> None:
    """Write the trained catalogue's title embeddings, float32 (N, 128), in the order of its articles."""
    save_file({"embedding": np.ascontiguousarray(embedding, np.float32)}, folder / TITLES)


def load_titles(folder: Path, articles: int) -> Float32:
    """What ``write_titles`` wrote of N ``articles``. Raises InvalidBundle."""
    return _unit_rows(folder, TITLES, _arrays(folder, TITLES, "embedding")[0], articles)


def write_ids(folder: Path, embedding: Float32, rows: NDArray[np.int64], cold: Float32) -> None:
    """Write CORE's table: float32 (M, 128) of the articles at ``rows`` int64 (M), and ``cold`` float32 (128)."""
    save_file(
        {
            "embedding": np.ascontiguousarray(embedding, np.float32),
            "rows": np.ascontiguousarray(rows, np.int64),
            "cold": np.ascontiguousarray(cold, np.float32),
        },
        folder / IDS,
    )


def load_ids(folder: Path, article_ids: Sequence[str]) -> IdEmbeddings:
    """What ``write_ids`` wrote. Raises InvalidBundle."""
    embedding, rows, cold = _arrays(folder, IDS, "embedding", "rows", "cold")
    _unit_rows(folder, IDS, embedding, rows.size)
    _unit_rows(folder, IDS, cold[None], 1)
    in_range = rows.dtype == np.int64 and rows.ndim == 1 and ((rows >= 0) & (rows < len(article_ids))).all()
    if not in_range or len(np.unique(rows)) != len(rows):
        raise InvalidBundle(f"{folder / IDS}: rows do not name articles of the bundle, each once")
    return IdEmbeddings({article_ids[row]: place for place, row in enumerate(rows.tolist())}, embedding, cold)


def write_memory(folder: Path, memory: QueryMemory) -> None:
    """Write a query-product memory."""
    table = {"queries": list(memory.queries), "article_ids": [list(each) for each in memory.article_ids]}
    (folder / QUERY_MEMORY).write_bytes(orjson.dumps(table))
    save_file({"keys": np.ascontiguousarray(memory.keys, np.float32)}, folder / QUERY_KEYS)


def load_memory(folder: Path) -> QueryMemory:
    """What ``write_memory`` wrote. Raises InvalidBundle."""
    try:
        table = _MemoryTable.model_validate_json((folder / QUERY_MEMORY).read_bytes())
    except (ValidationError, OSError) as error:
        raise InvalidBundle(f"{folder / QUERY_MEMORY}: cannot be read ({error})") from None
    keys = _unit_rows(folder, QUERY_KEYS, _arrays(folder, QUERY_KEYS, "keys")[0], len(table.queries))
    if len(table.article_ids) != len(table.queries):
        raise InvalidBundle(f"{folder / QUERY_MEMORY}: {len(table.queries)} queries, {len(table.article_ids)} lists")
    return QueryMemory(table.queries, keys, table.article_ids)


def _arrays(folder: Path, name: str, *keys: str) -> list[Any]:
    try:
        arrays = load_file(folder / name)
        return [arrays[key] for key in keys]
    except (SafetensorError, KeyError, OSError) as error:
        raise InvalidBundle(f"{folder / name}: cannot be read ({error})") from None


def _unit_rows(folder: Path, name: str, array: Any, rows: int) -> Float32:
    if array.shape != (rows, TEXT_SIZE) or array.dtype != np.float32:
        raise InvalidBundle(
            f"{folder / name}: holds {array.dtype} {array.shape} instead of float32 ({rows}, {TEXT_SIZE})"
        )
    vectors: Float32 = array
    if rows and not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
        raise InvalidBundle(f"{folder / name}: holds vectors that do not have length 1")
    return vectors
