"""Golden cases: raw records with the Fashion DNA and styles that training's own networks computed for them.

Whoever opens a bundle recomputes them through the encoders and graphs that it will serve with. A difference means that
this release reads articles, times or graphs otherwise than training did; the bundle is then refused.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model_store import DNA_SIZE
from model_store.article_features import ArticleEncoder, article_fingerprint, decode_image
from model_store.bundle import GOLDEN_ARRAYS, GOLDEN_CASES, Bundle, load_articles
from model_store.errors import InvalidBundle, InvalidRecord
from model_store.graphs import Float32, Graphs, Memory, StyleLstm, encode_articles, open_graphs
from model_store.records import Article, Identifier, Timestamp
from model_store.time_features import encode_history

TOLERANCE = 1e-4
"""Largest difference allowed in any component of Fashion DNA or style."""


class GoldenArticle(BaseModel):
    """A raw article and the file of its picture (base64 in JSON), or None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    article: Article
    image: Base64Bytes | None = None


class GoldenPurchase(BaseModel):
    """One purchase of a trained article, at Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    article_id: Identifier
    timestamp: Timestamp


class GoldenCustomer(BaseModel):
    """A history, oldest first (perhaps empty), and the time at which the style is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    purchases: tuple[GoldenPurchase, ...]
    read_time: Timestamp


class GoldenCases(BaseModel):
    """A articles and C customers; ``golden.safetensors`` holds ``dna`` (A, 128) and ``style`` (C, 128)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    articles: Annotated[tuple[GoldenArticle, ...], Field(min_length=1)]
    customers: Annotated[tuple[GoldenCustomer, ...], Field(min_length=1)]


def golden_article(name: str, article: Article, image: bytes | None) -> GoldenArticle:
    """A case from a record and its picture's bytes."""
    return GoldenArticle(name=name, article=article, image=None if image is None else base64.b64encode(image))


def write_golden(stage: Path, cases: GoldenCases, dna: Float32, style: Float32) -> None:
    """Write the cases with what they must give: ``dna`` float32 (A, 128) and ``style`` float32 (C, 128)."""
    (stage / GOLDEN_CASES).write_text(cases.model_dump_json(exclude_defaults=True), encoding="utf-8")
    save_file({"dna": np.ascontiguousarray(dna), "style": np.ascontiguousarray(style)}, stage / GOLDEN_ARRAYS)


@dataclass(frozen=True)
class _Trained:
    """The trained catalogue: row of each article, its fingerprint and Fashion DNA."""

    row_of: dict[str, int]
    fingerprints: list[str]
    dna: Float32


def check(bundle: Bundle, graphs: Graphs | None = None) -> None:
    """Recompute every golden case. Raises InvalidBundle that names the first which differs by more than 1e-4.

    ``graphs``: the bundle's, where they are open already.
    """
    cases, dna, style = _load(bundle)
    ids, fingerprints, table = load_articles(bundle)
    trained = _Trained({article_id: row for row, article_id in enumerate(ids)}, fingerprints, table)
    graphs = graphs or open_graphs(bundle)
    _check_articles(bundle, graphs, cases.articles, dna, trained)
    _check_customers(bundle, graphs.style_lstm, cases.customers, style, trained)


def _load(bundle: Bundle) -> tuple[GoldenCases, Float32, Float32]:
    try:
        cases = GoldenCases.model_validate_json(bundle.path(GOLDEN_CASES).read_bytes())
        arrays = load_file(bundle.path(GOLDEN_ARRAYS))
        dna, style = arrays["dna"], arrays["style"]
    except (ValidationError, SafetensorError, KeyError, OSError) as error:
        raise InvalidBundle(f"{bundle.folder}: {GOLDEN_CASES} or {GOLDEN_ARRAYS} cannot be read ({error})") from None
    if dna.shape != (len(cases.articles), DNA_SIZE) or style.shape != (len(cases.customers), DNA_SIZE):
        raise InvalidBundle(f"{bundle.folder}: {GOLDEN_ARRAYS} does not fit the cases of {GOLDEN_CASES}")
    return cases, dna, style


def _check_articles(
    bundle: Bundle, graphs: Graphs, cases: Sequence[GoldenArticle], expected: Float32, trained: _Trained
) -> None:
    """Records give the expected Fashion DNA, and so does the trained table where it holds the very same record."""
    spec = bundle.manifest.article_spec
    try:
        images = [None if case.image is None else decode_image(case.image, spec) for case in cases]
    except InvalidRecord as error:
        raise InvalidBundle(f"{bundle.folder}: {GOLDEN_CASES}: {error}") from None
    found = encode_articles(graphs, ArticleEncoder(spec), [case.article for case in cases], images)
    for index, case in enumerate(cases):
        what = f"{bundle.folder}: golden article '{case.name}'"
        _compare(f"{what}: Fashion DNA from its record", found[index], expected[index])
        row = trained.row_of.get(case.article.article_id)
        if row is not None and trained.fingerprints[row] == article_fingerprint(case.article, case.image):
            _compare(f"{what}: Fashion DNA in the trained table", trained.dna[row], expected[index])


def _check_customers(
    bundle: Bundle, graph: StyleLstm, cases: Sequence[GoldenCustomer], expected: Float32, trained: _Trained
) -> None:
    """Histories give the expected style, replayed together in one padded batch and step by step."""
    histories = [_steps(bundle, case, trained) for case in cases]
    replayed = _replay(graph, histories)
    for index, (case, steps) in enumerate(zip(cases, histories, strict=True)):
        what = f"{bundle.folder}: golden customer '{case.name}'"
        _compare(f"{what}: style by replay", replayed[index], expected[index])
        _compare(f"{what}: style step by step", _walk(graph, steps), expected[index])


def _steps(bundle: Bundle, case: GoldenCustomer, trained: _Trained) -> Float32:
    try:
        rows = [trained.row_of[purchase.article_id] for purchase in case.purchases]
    except KeyError as error:
        raise InvalidBundle(
            f"{bundle.folder}: golden customer '{case.name}' bought {error}, which was never trained"
        ) from None
    times = np.asarray([purchase.timestamp for purchase in case.purchases], np.int64)
    return encode_history(bundle.manifest.time_spec, trained.dna[rows].reshape(-1, DNA_SIZE), times, case.read_time)


def _replay(graph: StyleLstm, histories: Sequence[Float32]) -> Float32:
    lengths = np.asarray([len(steps) for steps in histories], np.int32)
    padded = np.zeros((len(histories), lengths.max(), histories[0].shape[1]), np.float32)
    for row, steps in zip(padded, histories, strict=True):
        row[: len(steps)] = steps
    styles, _ = graph.run_steps(padded, lengths, Memory.zeros(len(histories)))
    last: Float32 = styles[np.arange(len(histories)), lengths - 1]
    return last


def _walk(graph: StyleLstm, steps: Float32) -> Float32:
    memory, style = Memory.zeros(1), np.zeros((1, DNA_SIZE), np.float32)
    for step in steps:
        style, memory = graph.step(step[None], memory)
    last: Float32 = style[0]
    return last


def _compare(what: str, found: Float32, expected: Float32) -> None:
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # NaN is a difference too
        raise InvalidBundle(f"{what} differs by {difference:.2g} from what training computed")
