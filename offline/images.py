"""Pictures → embeddings: the residual network below Fashion DNA, and a cache on disk by content (Zalando 2017, §2.2).

The network is any pretrained ``transformers`` ResNet. Without one, the pipeline trains a small one itself, on what the
shop's own catalogue says about each picture: its category, its colour, and its common tags. No purchase is involved.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from model_store.article_features import ArticleSpec, Image8, decode_image
from model_store.dataset import DataSet
from model_store.errors import InvalidData, InvalidRecord
from model_store.records import Article
from offline.config import ImagesConfig
from offline.models.residual import ResidualNetwork, pretrained_residual_network, small_residual_network
from offline.progress import Progress
from offline.training import Fitted, Rows, fit, shuffled_batches
from offline.world import World

_HELD_OUT = 10  # every 10th picture stops the training early
_MOST_TAGS = 64
_EMBED_BATCH = 256
_CACHE_SHARD = 8_192  # embeddings per cache file, so that a kill loses little


@dataclass(frozen=True)
class Pictures:
    """The different pictures of a catalogue: many articles may share one.

    ``of_article`` int32 (N): index of its picture, −1 without one. ``digests`` (Q): SHA-256 of each content.
    ``shown`` (Q): the first article that shows it.
    """

    of_article: NDArray[np.int32]
    digests: list[bytes]
    shown: list[Article]


def find_pictures(data: DataSet, progress: Progress) -> Pictures:
    """Read every picture once and tell the different contents apart."""
    of_article = np.full(len(data.article_ids), -1, dtype=np.int32)
    by_digest: dict[bytes, int] = {}
    by_path: dict[str, int] = {}
    shown: list[Article] = []
    with progress.bar("reading pictures", len(data.article_ids)) as bar:
        for row, article in enumerate(data.articles()):
            bar.advance()
            if article.image is None:
                continue
            if article.image not in by_path:
                digest = hashlib.sha256(_content(data, article)).digest()
                by_path[article.image] = by_digest.setdefault(digest, len(by_digest))
                if len(by_digest) > len(shown):
                    shown.append(article.model_copy(update={"description": None}))
            of_article[row] = by_path[article.image]
    return Pictures(of_article, list(by_digest), shown)


def _content(data: DataSet, article: Article) -> bytes:
    content = data.image(article)
    assert content is not None  # ``article.image`` is set
    return content


def load_picture(data: DataSet, article: Article, spec: ArticleSpec) -> Image8:
    """The decoded picture of an article that has one. Raises InvalidData naming the file where it is unreadable."""
    try:
        return decode_image(_content(data, article), spec)
    except InvalidRecord as error:
        raise InvalidData(f"article '{article.article_id}': {error}", file=article.image) from None


# --- the network ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attributes:
    """What the catalogue says about Q pictures. ``categories`` and ``colours`` int64 (Q): class, −1 for none or rare.

    ``tags`` float32 (Q, G): which common tags are set.
    """

    categories: NDArray[np.int64]
    colours: NDArray[np.int64]
    tags: NDArray[np.float32]


def picture_attributes(shown: Sequence[Article], min_count: int) -> Attributes:
    """Classes with at least ``min_count`` pictures, and tags that neither too few nor nearly all of them have."""
    counts = Counter(tag.casefold() for article in shown for tag in set(article.tags))
    common = [tag for tag, count in counts.most_common() if min_count <= count <= 0.95 * len(shown)][:_MOST_TAGS]
    column = {tag: index for index, tag in enumerate(common)}
    tags = np.zeros((len(shown), len(common)), dtype=np.float32)
    for row, article in enumerate(shown):
        for tag in article.tags:
            if tag.casefold() in column:
                tags[row, column[tag.casefold()]] = 1.0
    return Attributes(
        _classes([article.category for article in shown], min_count),
        _classes([article.colour for article in shown], min_count),
        tags,
    )


def _classes(values: Sequence[str | None], min_count: int) -> NDArray[np.int64]:
    counts = Counter(value.casefold() for value in values if value is not None)
    known = {value: index for index, value in enumerate(sorted(v for v, n in counts.items() if n >= min_count))}
    return np.asarray([-1 if v is None else known.get(v.casefold(), -1) for v in values], dtype=np.int64)


class AttributeNetwork(nn.Module):
    """The small residual network below one head per attribute: cross-entropy of category, colour and tags.

    ``forward`` gives (loss summed over the pictures, number of pictures).
    """

    def __init__(self, residual: ResidualNetwork, attributes: Attributes):
        super().__init__()
        self.residual = residual
        self.category = nn.Linear(residual.size, max(int(attributes.categories.max(initial=0)) + 1, 1))
        self.colour = nn.Linear(residual.size, max(int(attributes.colours.max(initial=0)) + 1, 1))
        self.tags = nn.Linear(residual.size, attributes.tags.shape[1])

    def forward(self, pictures: Tensor, categories: Tensor, colours: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.residual(pictures)  # (B, E)
        loss = _class_loss(self.category(embedding), categories) + _class_loss(self.colour(embedding), colours)
        if tags.shape[1]:
            loss = loss + F.binary_cross_entropy_with_logits(self.tags(embedding), tags, reduction="sum") / (
                tags.shape[1] ** 0.5
            )
        return loss, torch.tensor(float(len(pictures)), device=pictures.device)


def _class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    return F.cross_entropy(logits, classes, ignore_index=-1, reduction="sum")


class AttributeStage:
    """Training of the small residual network; its score is the mean accuracy on held-out pictures."""

    name = "images"

    def __init__(self, pictures: NDArray[np.uint8], attributes: Attributes, config: ImagesConfig, device: torch.device):
        self.network: nn.Module = AttributeNetwork(small_residual_network(), attributes)
        self._pictures, self._attributes, self._config, self._device = pictures, attributes, config, device
        rows = np.arange(len(pictures), dtype=np.int64)
        self._held_out = rows[rows % _HELD_OUT == 0]
        self._training = rows[rows % _HELD_OUT != 0]

    @property
    def residual(self) -> ResidualNetwork:
        """The part that is kept."""
        assert isinstance(self.network, AttributeNetwork)
        return self.network.residual

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        del epoch
        return shuffled_batches(self._training, self._config.batch, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        pictures = self._pictures[rows]
        if rng.random() < 0.5:  # a garment seen in a mirror is the same garment
            pictures = np.ascontiguousarray(pictures[:, :, ::-1])
        wanted = (pictures, self._attributes.categories[rows], self._attributes.colours[rows])
        tensors = [torch.from_numpy(part).to(device) for part in wanted]
        return (*tensors, torch.from_numpy(self._attributes.tags[rows]).to(device))

    def validate(self) -> float:
        assert isinstance(self.network, AttributeNetwork)
        hits: list[float] = []
        for start in range(0, len(self._held_out), _EMBED_BATCH):
            rows = self._held_out[start : start + _EMBED_BATCH]
            embedding = self.network.residual(torch.from_numpy(self._pictures[rows]).to(self._device))
            for head, classes in (
                (self.network.category, self._attributes.categories[rows]),
                (self.network.colour, self._attributes.colours[rows]),
            ):
                guess = head(embedding).argmax(dim=1).cpu().numpy()
                hits += (guess == classes)[classes >= 0].tolist()
        return float(np.mean(hits)) if hits else 0.0


def train_small_network(
    data: DataSet,
    pictures: Pictures,
    spec: ArticleSpec,
    config: ImagesConfig,
    *,
    seed: int,
    checkpoint: Path,
    recipe: str,
    world: World,
    precision: str,
    progress: Progress,
) -> tuple[ResidualNetwork, str, Fitted | None]:
    """(network, where it came from in words, curve). A catalogue without pictures gets an untrained one."""
    if len(pictures.shown) < 2 * _HELD_OUT:
        return small_residual_network().eval(), "small residual network, untrained: the shop has too few pictures", None
    chosen = _spread(len(pictures.shown), config.max_pictures)
    shown = [pictures.shown[index] for index in chosen]
    decoded = np.empty((len(shown), spec.image_height, spec.image_width, 3), dtype=np.uint8)
    with progress.bar("decoding pictures", len(shown)) as bar:
        for row, article in enumerate(shown):
            decoded[row] = load_picture(data, article, spec)
            bar.advance()
    stage = AttributeStage(decoded, picture_attributes(shown, config.min_attribute_count), config, world.device)
    fitted = fit(
        stage,
        config,
        seed=seed,
        checkpoint=checkpoint,
        recipe=recipe,
        world=world,
        precision=precision,
        progress=progress,
    )
    source = (
        f"small residual network, trained by the pipeline on category, colour and tags of {len(shown):,} of the "
        f"shop's own pictures (accuracy {fitted.best_score:.3f} on held-out ones)"
    )
    return stage.residual.eval(), source, fitted


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of ``count`` indices, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def pretrained(config: ImagesConfig) -> tuple[ResidualNetwork, str]:
    """The network that the configuration names, and where it came from, in words without folders."""
    return pretrained_residual_network(
        config.network
    ).eval(), f"pretrained residual network {Path(config.network).name}"


# --- embeddings -----------------------------------------------------------------------------------------------


def network_hash(network: ResidualNetwork, spec: ArticleSpec) -> str:
    """SHA-256 of all that an embedding depends on besides the picture: weights, pixel scale and input size."""
    digest = hashlib.sha256(f"{spec.image_height}x{spec.image_width}".encode())
    scale = {"mean": network.get_buffer("mean"), "std": network.get_buffer("std")}
    for name, tensor in sorted({**network.state_dict(), **scale}.items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Embeddings by content hash, in a folder of one network's own. Files are only ever added, each whole."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            arrays = load_file(path)
            digests = [row.tobytes() for row in arrays["digest"]]
            self._known.update(zip(digests, arrays["embedding"], strict=True))

    def get(self, digest: bytes) -> NDArray[np.float32] | None:
        """The embedding float32 (E) of the picture with this SHA-256, or None."""
        return self._known.get(digest)

    def add(self, digests: Sequence[bytes], embedding: NDArray[np.float32]) -> None:
        """Keep ``embedding`` float32 (B, E) of B contents."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{hashlib.sha256(b''.join(digests)).hexdigest()[:32]}.safetensors"
        aside = path.with_name(f".{path.name}-{os.getpid()}")
        keys = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), -1)
        save_file({"digest": keys, "embedding": np.ascontiguousarray(embedding)}, aside)
        aside.replace(path)
        self._known.update(zip(digests, embedding, strict=True))


def embed_pictures(
    data: DataSet,
    pictures: Pictures,
    network: ResidualNetwork,
    spec: ArticleSpec,
    *,
    cache: EmbeddingCache,
    device: torch.device,
    progress: Progress,
) -> NDArray[np.float32]:
    """Embeddings float32 (Q, E) of the different pictures, each content through the network once at most."""
    missing = [index for index, digest in enumerate(pictures.digests) if cache.get(digest) is None]
    network = network.to(device).eval()
    with progress.bar("embedding pictures", len(pictures.digests), len(pictures.digests) - len(missing)) as bar:
        for start in range(0, len(missing), _CACHE_SHARD):
            shard = missing[start : start + _CACHE_SHARD]
            parts: list[NDArray[np.float32]] = []
            for low in range(0, len(shard), _EMBED_BATCH):
                rows = shard[low : low + _EMBED_BATCH]
                decoded = np.stack([load_picture(data, pictures.shown[row], spec) for row in rows])
                with torch.inference_mode():
                    parts.append(network(torch.from_numpy(decoded).to(device)).cpu().numpy())
                bar.advance(len(rows))
            cache.add([pictures.digests[row] for row in shard], np.concatenate(parts))
    embedding = np.zeros((len(pictures.digests), network.size), dtype=np.float32)
    for index, digest in enumerate(pictures.digests):
        embedding[index] = cache.get(digest)
    return embedding


def embeddings_of_articles(pictures: Pictures, embedding: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """``embedding`` float32 (N, E), zeros without a picture, and ``has_image`` bool (N), as a run keeps them."""
    has_image = pictures.of_article >= 0
    aligned = np.zeros((len(has_image), embedding.shape[1]), dtype=np.float32)
    aligned[has_image] = embedding[pictures.of_article[has_image]]
    return {"embedding": aligned, "has_image": has_image}
