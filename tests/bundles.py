"""A small real bundle for everybody's tests: untrained networks, but real graphs, tables and golden cases."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from generating_halves import generating_half
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from model_store.article_features import ArticleSpec, article_fingerprint, article_tags
from model_store.bundle import (
    MANIFEST,
    Blend,
    Bundle,
    DataSetCard,
    Manifest,
    current_version,
    open_bundle,
    publishing,
    set_current,
    write_manifest,
)
from model_store.golden import GoldenCases, GoldenCustomer, GoldenPurchase, golden_article
from model_store.popularity import POPULARITY
from model_store.records import Article
from model_store.time_features import TimeSpec
from offline.bundling import Catalogue, Contents, Networks, RawArticle, torch_dna, write_bundle
from offline.models.fashion_dna import FashionDnaNetwork
from offline.models.residual import ResidualNetwork
from offline.models.style_lstm import StyleLstmNetwork

CUTOFF = 1_780_000_000  # 2026-05-28
DAY = 86_400
CATEGORIES = ("dress", "jeans", "sneaker", "coat", "shirt")
BRANDS = ("Aster", "Birch", "Cedar", "Dune")
COLOURS = ("black", "red", "blue", "green")
GENDERS = ("women", "men", "unisex")


def make_bundle(
    folder: Path, *, version: str = "test-1", seed: int = 0, articles: int = 60, generating: bool = False
) -> Bundle:
    """A verified bundle ``<folder>/<version>`` over ``sample_articles(articles, seed)``.

    Another ``seed`` gives other articles and other weights; ``generating``: with a generating half, whose embedded
    language model is a place-holder. CURRENT is set where the store has none yet.
    """
    manifest, files = _files(seed, articles, generating)
    with publishing(folder, version) as stage:
        for name, content in files.items():
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_bytes(content)
        write_manifest(stage, manifest.model_copy(update={"version": version}))
    if current_version(folder) is None:
        set_current(folder, version)
    return open_bundle(folder / version)


def sample_articles(count: int = 60, seed: int = 0) -> list[RawArticle]:
    """``a000``, ``a001``, …: every 5th has no picture, every 7th no price, every 3rd no materials."""
    rng = np.random.default_rng(seed)
    return [_article(index, rng) for index in range(count)]


def _article(index: int, rng: np.random.Generator) -> RawArticle:
    category, brand, colour, gender = (str(rng.choice(values)) for values in (CATEGORIES, BRANDS, COLOURS, GENDERS))
    has_image, cotton = index % 5 != 4, float(rng.integers(0, 101))
    article = Article(
        article_id=f"a{index:03}",
        title=f"{brand} {colour} {category}",
        category=category,
        brand=brand,
        colour=colour,
        gender=gender,
        price=None if index % 7 == 6 else round(float(rng.lognormal(3.5, 0.5)), 2),
        materials={} if index % 3 == 2 else {"cotton": cotton, "wool": 100 - cotton},
        image=f"images/a{index:03}.png" if has_image else None,
    )
    return RawArticle(article, _png(rng) if has_image else None)


def _png(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def sample_networks(spec: ArticleSpec, time_spec: TimeSpec, seed: int = 0, *, popularity: bool = False) -> Networks:
    """Untrained networks, the residual one as small as they come."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", hidden_act="relu")
        )
        residual = ResidualNetwork(backbone)
        fashion_dna = FashionDnaNetwork(
            len(spec.tags), spec.numeric_size, residual.size, hidden=32, popularity=popularity
        )
        style = StyleLstmNetwork(time_spec.step_size, popularity=popularity)
        torch.nn.init.normal_(fashion_dna.bottleneck.weight, std=0.5)
        torch.nn.init.normal_(style.project.weight, std=0.5)
    return Networks(residual.eval(), fashion_dna.eval(), style.eval())


def sample_contents(
    *, seed: int = 0, articles: int = 60, version: str = "sample", popularity: bool = False, offsets: bool = False
) -> Contents:
    """All that a small bundle is made of; with ``popularity``, article i sold i / articles."""
    raw = sample_articles(articles, seed)
    spec = ArticleSpec(
        tags=tuple(sorted({tag for one in raw for tag in article_tags(one.article)})),
        fibres=("cotton", "wool"),
        log_price_mean=3.5,
        log_price_scale=0.5,
        image_height=24,
        image_width=16,
    )
    time_spec = TimeSpec(reference=CUTOFF - 365 * DAY, horizon=CUTOFF)
    networks = sample_networks(spec, time_spec, seed, popularity=popularity)
    dna = torch_dna(networks, spec, raw)
    if popularity:
        dna[:, POPULARITY] = np.arange(articles) / articles
    offset = None
    if offsets:
        offset = np.random.default_rng(seed).normal(size=dna.shape).astype(np.float32)
        offset[:, POPULARITY] = 0.0
        dna += offset
    catalogue = Catalogue(
        [one.article.article_id for one in raw],
        [article_fingerprint(one.article, one.image) for one in raw],
        dna,
        offset,
    )
    card = DataSetCard(name="sample", fingerprint="0" * 64, cutoff=CUTOFF, articles=articles, customers=3, purchases=9)
    manifest = Manifest(
        version=version,
        created="2026-05-28T20:26:40Z",
        data_set=card,
        article_spec=spec,
        time_spec=time_spec,
        blend=Blend(trend=0.5),
        newcomer_popularity=0.25 if popularity else None,
        article_offsets=offsets,
        image_encoder="untrained, for tests",
        config={"seed": seed},
    )
    return Contents(manifest, networks, catalogue, _golden(raw), raw)


def with_generating_half(contents: Contents, folder: Path, seed: int = 0) -> Contents:
    """The same with a generating half, whose files are written into ``folder``."""
    half = generating_half(folder, [one.article for one in contents.probes], seed=seed)
    golden = contents.golden.model_copy(
        update={"sessions": half.sessions, "texts": half.texts, "queries": half.queries}
    )
    blend = Blend(trend=0.5, generated=0.7)
    manifest = contents.manifest.model_copy(update={"generation": half.spec, "blend": blend})
    return replace(contents, manifest=manifest, golden=golden, generating=half)


def _golden(raw: list[RawArticle]) -> GoldenCases:
    def customer(name: str, *bought: tuple[int, int]) -> GoldenCustomer:
        purchases = tuple(
            GoldenPurchase(article_id=raw[index % len(raw)].article.article_id, timestamp=CUTOFF - days * DAY)
            for index, days in bought
        )
        return GoldenCustomer(name=name, purchases=purchases, read_time=CUTOFF)

    return GoldenCases(
        articles=tuple(golden_article(one.article.article_id, one.article, one.image) for one in raw[:7]),
        customers=(
            customer("without purchases"),
            customer("one purchase", (3, 40)),
            customer("two orders", (1, 90), (2, 90), (5, 8)),
        ),
    )


@cache
def _files(seed: int, articles: int, generating: bool) -> tuple[Manifest, dict[str, bytes]]:
    """A bundle's manifest and other files: made once per process, since the exporter takes seconds."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as half:
        contents = sample_contents(seed=seed, articles=articles)
        if generating:
            contents = with_generating_half(contents, Path(half), seed)
        bundle = write_bundle(Path(folder), contents)
        names = (name for name in bundle.manifest.files if name != MANIFEST)
        return bundle.manifest, {name: bundle.path(name).read_bytes() for name in names}
