"""Putting a bundle together: graphs from networks, checked against them, the article table and the golden cases.

Knows nothing of runs and data sets; ``offline.export`` gathers from those what is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_store import DNA_SIZE, golden
from model_store.article_features import ArticleEncoder, ArticleFeatures, ArticleSpec, Image8, decode_image
from model_store.article_table import write_articles
from model_store.bundle import (
    FASHION_DNA,
    IMAGE_ENCODER,
    REPORT,
    STYLE_LSTM,
    Bundle,
    Manifest,
    open_bundle,
    publishing,
    write_manifest,
)
from model_store.errors import InvalidBundle
from model_store.golden import GoldenCases, GoldenCustomer
from model_store.graphs import Float32, Graphs, Memory, StyleLstm, encode_articles, open_graphs
from model_store.records import Article
from model_store.time_features import TimeSpec, encode_history
from offline import onnx_graphs
from offline.generation_bundling import GeneratingHalf
from offline.models.fashion_dna import FashionDnaNetwork
from offline.models.residual import ResidualNetwork
from offline.models.style_lstm import StyleLstmNetwork

PARITY_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Networks:
    """The trained torch modules, in eval mode and on the CPU."""

    residual: ResidualNetwork
    fashion_dna: FashionDnaNetwork
    style: StyleLstmNetwork

    def parameters(self) -> dict[str, int]:
        """Number of weights of each."""
        modules = {"image_encoder": self.residual, "fashion_dna": self.fashion_dna, "style_lstm": self.style}
        return {name: sum(weight.numel() for weight in module.parameters()) for name, module in modules.items()}


@dataclass(frozen=True)
class RawArticle:
    """A record and its picture's bytes, as an article arrives at the service."""

    article: Article
    image: bytes | None


@dataclass(frozen=True)
class Catalogue:
    """The trained articles: N ids, fingerprints and Fashion DNA, float32 (N, 128).

    ``offset`` float32 (N, 128), where there is one: what ``dna`` holds beyond records, popularity left out.
    """

    article_ids: Sequence[str]
    fingerprints: Sequence[str]
    dna: Float32
    offset: Float32 | None = None

    def dna_of(self, article_ids: Sequence[str]) -> Float32:
        """Fashion DNA of trained articles, float32 (n, 128)."""
        return self.dna[self._rows(article_ids)].reshape(-1, DNA_SIZE)

    def told_of(self, article_ids: Sequence[str]) -> Float32:
        """``dna_of`` without offsets: what their records tell, and what they sold."""
        dna = self.dna_of(article_ids)
        return dna if self.offset is None else dna - self.offset[self._rows(article_ids)].reshape(-1, DNA_SIZE)

    def _rows(self, article_ids: Sequence[str]) -> list[int]:
        row_of = {article_id: row for row, article_id in enumerate(self.article_ids)}
        return [row_of[article_id] for article_id in article_ids]


@dataclass(frozen=True)
class Contents:
    """All that goes into a bundle. ``probes`` are real articles on which graphs, torch and table must agree.

    ``manifest`` comes without files, parity and parameters: they are filled in by ``write_bundle``.
    """

    manifest: Manifest
    networks: Networks
    catalogue: Catalogue
    golden: GoldenCases
    probes: Sequence[RawArticle]
    generating: GeneratingHalf | None = None
    report: str | None = None
    """the evaluation's report, one HTML page"""


def write_bundle(store: Path, contents: Contents) -> Bundle:
    """Write, check and publish a bundle; where a check fails or the process dies, the store stays as it was.

    Raises InvalidBundle where graphs and networks differ by more than 1e-4, or a golden case is not met.
    """
    manifest = contents.manifest
    with publishing(store, manifest.version) as stage:
        _write_graphs(stage, contents)
        staged = Bundle(stage, manifest)
        graphs = open_graphs(staged)
        parity = _parity(contents, graphs)
        _refuse_difference(parity)
        if contents.generating is not None:
            contents.generating.copy_into(stage)
        _write_tables(stage, contents)
        if contents.report is not None:
            (stage / REPORT).write_text(contents.report, encoding="utf-8")
        golden.check(staged, graphs)
        update = {"parity": parity, "parameters": {**manifest.parameters, **contents.networks.parameters()}}
        write_manifest(stage, manifest.model_copy(update=update))
    return open_bundle(store / manifest.version)


def _write_graphs(stage: Path, contents: Contents) -> None:
    spec, networks = contents.manifest.article_spec, contents.networks
    onnx_graphs.write_image_encoder(stage / IMAGE_ENCODER, networks.residual, spec.image_height, spec.image_width)
    onnx_graphs.write_fashion_dna(stage / FASHION_DNA, networks.fashion_dna, spec.numeric_size, networks.residual.size)
    onnx_graphs.write_style_lstm(stage / STYLE_LSTM, networks.style)


def _write_tables(stage: Path, contents: Contents) -> None:
    manifest, catalogue, cases = contents.manifest, contents.catalogue, contents.golden
    write_articles(stage, catalogue.article_ids, catalogue.fingerprints, catalogue.dna, catalogue.offset)
    raw = [RawArticle(case.article, case.image) for case in cases.articles]
    dna = torch_dna(contents.networks, manifest.article_spec, raw)
    style = np.stack(
        [
            torch_styles(contents.networks, golden_steps(manifest.time_spec, catalogue, case))[-1]
            for case in cases.customers
        ]
    )
    generating = contents.generating
    text, query = (None, None) if generating is None else (generating.text, generating.query)
    golden.write_golden(stage, cases, dna, style, text, query)


def golden_steps(spec: TimeSpec, catalogue: Catalogue, case: GoldenCustomer) -> Float32:
    """Step inputs, float32 (n + 1, D), of a golden customer with n purchases."""
    times = np.asarray([purchase.timestamp for purchase in case.purchases], np.int64)
    dna = catalogue.dna_of([purchase.article_id for purchase in case.purchases])
    return encode_history(spec, dna, times, case.read_time)


@torch.no_grad()
def torch_embedding(networks: Networks, images: Sequence[Image8 | None]) -> Float32:
    """Image embeddings, float32 (B, E), by torch; zeros where there is no picture."""
    embedding = np.zeros((len(images), networks.residual.size), np.float32)
    rows = [row for row, image in enumerate(images) if image is not None]
    if rows:
        pictures = np.stack([image for image in images if image is not None])
        embedding[rows] = networks.residual(torch.from_numpy(pictures)).numpy()
    return embedding


@torch.no_grad()
def torch_dna(networks: Networks, spec: ArticleSpec, raw: Sequence[RawArticle]) -> Float32:
    """Fashion DNA, float32 (B, 128), of raw articles by torch."""
    images = _decode(raw, spec)
    features = ArticleEncoder(spec).encode([one.article for one in raw], [image is not None for image in images])
    return _torch_dna(networks, features, torch_embedding(networks, images))


@torch.no_grad()
def _torch_dna(networks: Networks, features: ArticleFeatures, embedding: Float32) -> Float32:
    inputs = (features.tag_ids, features.numeric, embedding)
    dna: Float32 = networks.fashion_dna(*(torch.from_numpy(value) for value in inputs)).numpy()
    return dna


@torch.no_grad()
def torch_styles(networks: Networks, steps: Float32) -> Float32:
    """Styles, float32 (T, 128), along one history's step inputs, float32 (T, D), by torch."""
    styles: Float32 = networks.style(torch.from_numpy(steps)[None])[0][0].numpy()
    return styles


def _decode(raw: Sequence[RawArticle], spec: ArticleSpec) -> list[Image8 | None]:
    return [None if one.image is None else decode_image(one.image, spec) for one in raw]


def _parity(contents: Contents, graphs: Graphs) -> dict[str, float]:
    """Largest absolute differences torch ↔ ONNX, per graph and, on real articles, against the trained table."""
    rng = np.random.default_rng(0)
    return {
        "image_encoder": _image_parity(contents, graphs, rng),
        "fashion_dna": _dna_parity(contents, graphs, rng),
        "style_lstm": _style_parity(contents, graphs.style_lstm, rng),
        "article_table": _table_parity(contents, graphs),
    }


def _image_parity(contents: Contents, graphs: Graphs, rng: np.random.Generator) -> float:
    spec = contents.manifest.article_spec
    real = [image for image in _decode(contents.probes, spec) if image is not None]
    noise = rng.integers(0, 256, (3, spec.image_height, spec.image_width, 3), dtype=np.uint8)
    batches = [noise, noise[:1], *([np.stack(real)] if real else [])]
    return max(
        _difference(graphs.image_encoder.encode(images), torch_embedding(contents.networks, list(images)))
        for images in batches
    )


def _dna_parity(contents: Contents, graphs: Graphs, rng: np.random.Generator) -> float:
    spec, size = contents.manifest.article_spec, contents.networks.residual.size
    differences = []
    for batch, tags in ((1, 1), (2, 5), (7, 40)):
        tag_ids = rng.integers(0, len(spec.tags) + 1, (batch, tags))
        features = ArticleFeatures(tag_ids, rng.normal(size=(batch, spec.numeric_size)).astype(np.float32))
        embedding = rng.normal(size=(batch, size)).astype(np.float32)
        expected = _torch_dna(contents.networks, features, embedding)
        differences.append(_difference(graphs.fashion_dna.encode(features, embedding), expected))
    found = _graph_dna(contents, graphs)
    return max(*differences, _difference(found, torch_dna(contents.networks, spec, contents.probes)))


def _graph_dna(contents: Contents, graphs: Graphs) -> Float32:
    spec, probes = contents.manifest.article_spec, contents.probes
    return encode_articles(graphs, ArticleEncoder(spec), [one.article for one in probes], _decode(probes, spec))


def _style_parity(contents: Contents, graph: StyleLstm, rng: np.random.Generator) -> float:
    """Padded batches of random and of real histories against torch, one history at a time."""
    spec = contents.manifest.time_spec
    random = [rng.normal(size=(length, spec.step_size)).astype(np.float32) for length in (1, 9, 4, 30)]
    real = [golden_steps(spec, contents.catalogue, case) for case in contents.golden.customers]
    return max(_replay_parity(contents.networks, graph, histories) for histories in (random, real, random[:1]))


def _replay_parity(networks: Networks, graph: StyleLstm, histories: Sequence[Float32]) -> float:
    lengths = np.asarray([len(steps) for steps in histories], np.int32)
    padded = np.zeros((len(histories), lengths.max(), histories[0].shape[1]), np.float32)
    for row, steps in zip(padded, histories, strict=True):
        row[: len(steps)] = steps
    styles, _ = graph.run_steps(padded, lengths, Memory.zeros(len(histories)))
    return max(
        _difference(style[: len(steps)], torch_styles(networks, steps))
        for style, steps in zip(styles, histories, strict=True)
    )


def _table_parity(contents: Contents, graphs: Graphs) -> float:
    """The table holds what serving would compute from the raw record: no skew between training and serving.

    But for what purchases tell of an article, which no record does.
    """
    table = contents.catalogue.told_of([one.article.article_id for one in contents.probes])
    told = contents.manifest.told_by_records
    return _difference(_graph_dna(contents, graphs)[:, told], table[:, told])


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max())


def _refuse_difference(parity: dict[str, float]) -> None:
    for name, difference in parity.items():
        if not difference <= PARITY_TOLERANCE:  # NaN is a difference too
            raise InvalidBundle(
                f"{name}: torch and ONNX differ by {difference:.2g}, over {PARITY_TOLERANCE:g}; nothing is published"
            )
