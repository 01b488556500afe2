from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_shops import tiny_shop
from transformers import ResNetConfig, ResNetModel

from model_store.article_features import ArticleSpec
from model_store.errors import InvalidConfig, InvalidData
from model_store.records import Article
from offline.config import ImagesConfig
from offline.images import (
    AttributeStage,
    EmbeddingCache,
    embed_pictures,
    embeddings_of_articles,
    find_pictures,
    load_picture,
    network_hash,
    picture_attributes,
    pretrained,
)
from offline.models.residual import (
    ResidualNetwork,
    residual_network_from_folder,
    save_residual_network,
    small_residual_network,
)
from offline.progress import Silent
from offline.training import fit

SPEC = ArticleSpec(tags=(), fibres=(), log_price_mean=0, log_price_scale=1, image_height=16, image_width=12)
CPU = torch.device("cpu")


class Counting(ResidualNetwork):
    """Counts the pictures that pass through it."""

    seen = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += len(image)
        return super().forward(image)


def test_every_content_is_embedded_once_however_many_articles_show_it(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", articles=20, customers=5, pictures=True)
    (data.folder / "copy.png").write_bytes((data.folder / "red.png").read_bytes())
    pictures = find_pictures(data, Silent())
    assert len(pictures.digests) == 3
    network = Counting(small_residual_network().backbone)
    cache = EmbeddingCache(tmp_path / "cache")
    embedding = embed_pictures(data, pictures, network, SPEC, cache=cache, device=CPU, progress=Silent())
    assert network.seen == 3

    again = EmbeddingCache(tmp_path / "cache")
    kept = embed_pictures(data, pictures, network, SPEC, cache=again, device=CPU, progress=Silent())
    assert network.seen == 3
    np.testing.assert_array_equal(kept, embedding)

    arrays = embeddings_of_articles(pictures, embedding)
    assert arrays["has_image"].all()
    np.testing.assert_array_equal(arrays["embedding"][0], arrays["embedding"][3])  # both are black
    assert (arrays["embedding"][0] != arrays["embedding"][1]).any()


def test_embeddings_are_what_the_network_gives_for_the_decoded_picture(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", articles=16, customers=5, pictures=True)
    pictures = find_pictures(data, Silent())
    network = small_residual_network().eval()
    cache = EmbeddingCache(tmp_path / "cache")
    embedding = embed_pictures(data, pictures, network, SPEC, cache=cache, device=CPU, progress=Silent())
    picture = load_picture(data, pictures.shown[1], SPEC)
    with torch.no_grad():
        alone = network(torch.from_numpy(picture.copy())[None]).numpy()[0]
    np.testing.assert_allclose(embedding[1], alone, atol=1e-5)


def test_an_article_without_a_picture_has_zeros(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", articles=16, customers=5)
    pictures = find_pictures(data, Silent())
    arrays = embeddings_of_articles(pictures, np.zeros((0, 128), np.float32))
    assert arrays["embedding"].shape == (16, 128)
    assert not arrays["has_image"].any()
    assert not arrays["embedding"].any()


def test_an_unreadable_picture_names_article_and_file(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", articles=16, customers=5, pictures=True)
    (data.folder / "red.png").write_bytes(b"no picture")
    with pytest.raises(InvalidData, match=r"red.png.*'a001'.*not a readable picture"):
        load_picture(data, next(data.articles(1, 2)), SPEC)


def test_the_hash_tells_weights_scale_and_size_apart() -> None:
    network = small_residual_network()
    rescaled = ResidualNetwork(network.backbone, mean=(0.5, 0.5, 0.5))
    sized = SPEC.model_copy(update={"image_width": 13})
    hashes = {
        network_hash(network, SPEC),
        network_hash(rescaled, SPEC),
        network_hash(network, sized),
        network_hash(small_residual_network(), SPEC),
    }
    assert len(hashes) == 4
    assert network_hash(network, SPEC) in hashes


def articles(count: int) -> list[Article]:
    colours, kinds = ("black", "red", "blue"), ("dress", "coat")
    return [
        Article(
            article_id=f"a{index}",
            title="thing",
            category=kinds[index % 2],
            colour=colours[index % 3],
            tags=("striped",) if index % 4 == 0 else ("always",),
        )
        for index in range(count)
    ]


def test_attributes_are_classes_with_enough_pictures() -> None:
    shown = [*articles(12), Article(article_id="x", title="x", category="hat", tags=("rare",))]
    attributes = picture_attributes(shown, min_count=3)
    assert attributes.categories.tolist() == [1, 0] * 6 + [-1]
    assert attributes.colours.max() == 2
    assert attributes.colours[-1] == -1
    assert attributes.tags.shape == (13, 2)  # rare has too few
    assert attributes.tags[0].sum() == 1.0


def test_the_small_network_learns_what_pictures_show_and_its_score_is_accuracy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shown = articles(120)
    pixels = {"black": 20, "red": 120, "blue": 220}
    pictures = np.stack([np.full((16, 12, 3), pixels[a.colour or ""]) for a in shown]).astype(np.float32)
    for index, article in enumerate(shown):
        if article.category == "coat":
            pictures[index, :, ::3] = 255 - pictures[index, :, ::3]
    noisy = np.clip(pictures + rng.normal(0, 5, pictures.shape), 0, 255).astype(np.uint8)
    config = ImagesConfig(batch=16, epochs=6, lr=3e-3)
    stage = AttributeStage(noisy, picture_attributes(shown, 3), config, CPU)
    fitted = fit(stage, config, seed=0, checkpoint=tmp_path / "images.pt")
    assert fitted.best_score > 0.85


def test_a_pretrained_directory_is_taken_and_only_its_name_is_told(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "my-resnet")
    network, source = pretrained(ImagesConfig(network=str(tmp_path / "my-resnet")))
    assert network.size == 16
    assert source == "pretrained residual network my-resnet"
    with pytest.raises(InvalidConfig, match=r"images\.network.*cannot be loaded"):
        pretrained(ImagesConfig(network=str(tmp_path)))


def test_a_saved_network_computes_the_same(tmp_path: Path) -> None:
    network = ResidualNetwork(small_residual_network().backbone, mean=(0.5, 0.4, 0.3)).eval()
    save_residual_network(network, tmp_path)
    content = io.BytesIO()
    Image.new("RGB", (12, 16), (9, 90, 200)).save(content, "PNG")
    picture = torch.randint(0, 256, (2, 16, 12, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(residual_network_from_folder(tmp_path).eval()(picture), network(picture))
