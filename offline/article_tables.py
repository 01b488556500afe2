"""The catalogue as arrays: the spec of its encoder fitted, all articles encoded, the image embeddings beside them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from model_store.article_features import ArticleEncoder, ArticleFeatures, ArticleSpec, article_tags
from model_store.dataset import DataSet
from offline.config import Config
from offline.models.fashion_dna import FashionDnaNetwork
from offline.models.residual import ResidualNetwork, residual_network_from_folder
from offline.models.style_lstm import StyleLstmNetwork
from offline.progress import Progress
from offline.run import Run
from offline.style_lstm import trained_network

_CHUNK = 4_096
_ENCODE_BATCH = 1_024


@dataclass(frozen=True)
class ArticleTable:
    """All N articles as Fashion DNA's network takes them; memory, 1M articles with 60 tags: about 0.8 GiB.

    ``tag_ids`` int32 (N, L), padded with 0 at the end; ``numeric`` float32 (N, M); ``image_embedding`` float32 (N, E).
    """

    tag_ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    image_embedding: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tag_ids)

    def tensors(self, rows: NDArray[np.int64], device: torch.device) -> tuple[torch.Tensor, ...]:
        """(tag_ids int64 (B, L), numeric (B, M), image_embedding (B, E)) of some articles; L is as small as can be."""
        tag_ids = self.tag_ids[rows]
        longest = max(int((tag_ids > 0).sum(axis=1).max(initial=0)), 1)
        return (
            torch.from_numpy(tag_ids[:, :longest].astype(np.int64)).to(device),
            torch.from_numpy(self.numeric[rows]).to(device),
            torch.from_numpy(self.image_embedding[rows]).to(device),
        )


def fit_article_spec(data: DataSet, config: Config, progress: Progress) -> ArticleSpec:
    """The tags with enough articles, the fibres, and the scale of prices, from the whole catalogue."""
    counts: Counter[str] = Counter()
    fibres: set[str] = set()
    log_prices: list[float] = []
    with progress.bar("counting tags", len(data.article_ids)) as bar:
        for article in data.articles():
            counts.update(set(article_tags(article)))
            fibres.update(fibre.casefold() for fibre in article.materials)
            if article.price is not None:
                log_prices.append(math.log(article.price))
            bar.advance()
    known = [(tag, count) for tag, count in counts.items() if count >= config.fashion_dna.min_tag_count]
    known.sort(key=lambda pair: (-pair[1], pair[0]))
    return ArticleSpec(
        tags=tuple(sorted(tag for tag, _ in known[: config.fashion_dna.max_tags])),
        fibres=tuple(sorted(fibres)),
        log_price_mean=float(np.mean(log_prices)) if log_prices else 0.0,
        log_price_scale=float(np.std(log_prices)) or 1.0 if log_prices else 1.0,
        image_height=config.images.height,
        image_width=config.images.width,
    )


def encode_catalogue(
    data: DataSet, spec: ArticleSpec, embedding: NDArray[np.float32], has_image: NDArray[np.bool_], progress: Progress
) -> ArticleTable:
    """Encode every article, a chunk at a time. ``embedding`` float32 (N, E), ``has_image`` bool (N)."""
    encoder = ArticleEncoder(spec)
    parts: list[ArticleFeatures] = []
    start = 0
    with progress.bar("encoding articles", len(data.article_ids)) as bar:
        articles = data.articles()
        while chunk := list(islice(articles, _CHUNK)):
            features = encoder.encode(chunk, has_image[start : start + len(chunk)].tolist())
            parts.append(ArticleFeatures(features.tag_ids.astype(np.int32), features.numeric))
            start += len(chunk)
            bar.advance(len(chunk))
    tag_ids = np.zeros((len(data.article_ids), max(part.tag_ids.shape[1] for part in parts)), dtype=np.int32)
    row = 0
    for part in parts:
        tag_ids[row : row + len(part.tag_ids), : part.tag_ids.shape[1]] = part.tag_ids
        row += len(part.tag_ids)
    return ArticleTable(tag_ids, np.concatenate([part.numeric for part in parts]), embedding)


def encode_dna(
    network: FashionDnaNetwork, table: ArticleTable, device: torch.device, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Fashion DNA float32 (B, 128) of ``rows``, or of all articles. The network is left in evaluation mode."""
    network.eval()
    rows = np.arange(len(table), dtype=np.int64) if rows is None else rows
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(rows), _ENCODE_BATCH):
            dna = network(*table.tensors(rows[start : start + _ENCODE_BATCH], device))
            parts += [dna.float().cpu().numpy()]
    return np.concatenate(parts) if parts else np.zeros((0, 128), np.float32)


def build_fashion_dna(config: Config, spec: ArticleSpec, image: int) -> FashionDnaNetwork:
    """An untrained network for this configuration and catalogue; ``image`` is E."""
    chosen = config.fashion_dna
    return FashionDnaNetwork(
        len(spec.tags),
        spec.numeric_size,
        image,
        hidden=chosen.hidden,
        dropout=chosen.dropout,
        tag_dropout=chosen.tag_dropout,
        unit_norm=chosen.unit_norm,
        constant=chosen.constant,
        popularity=chosen.popularity,
        ignore_price=chosen.ignore_price,
    )


def load_networks(run: Run) -> tuple[ResidualNetwork, FashionDnaNetwork, StyleLstmNetwork]:
    """The trained networks of a complete run, in evaluation mode, on the CPU."""
    config = run.load_model("config", Config)
    spec = run.load_model("article_spec", ArticleSpec)
    residual = residual_network_from_folder(run.existing("residual/config.json").parent)
    fashion_dna = build_fashion_dna(config, spec, residual.size)
    fashion_dna.load_state_dict(load_file(run.existing("fashion_dna.safetensors")))
    return residual.eval(), fashion_dna.eval(), trained_network(run)
