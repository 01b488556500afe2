"""The shop that is measured: a catalogue of any size around a real bundle's Fashion DNA, and its customers.

What is measured must not depend on what a model learned, only on shapes: graphs, golden cases and spec are those of the
live bundle, articles are its Fashion DNA with noise, and its title and id embeddings likewise where it has a generating
half; purchases follow a power law of popularity.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.article_features import article_fingerprint
from model_store.article_table import load_articles, write_articles
from model_store.bundle import (
    ARTICLE_DNA,
    ARTICLES,
    MANIFEST,
    Bundle,
    Manifest,
    open_bundle,
    publishing,
    set_current,
    write_manifest,
)
from model_store.dataset import DataSetFile, new_data_set, write_data_set_file
from model_store.generation import IDS, TITLES, load_ids, load_titles, write_ids, write_titles
from model_store.records import Article
from model_store.tables import ARTICLES as ARTICLES_TABLE
from model_store.tables import EVENTS as EVENTS_TABLE
from model_store.tables import TableWriter

DAY = 86_400
HISTORY_DAYS = 365
CATEGORIES, BRANDS, COLOURS, GENDERS = 20, 200, 15, 3
_NOISE = 0.25  # of the components' own spread
_CHUNK = 50_000  # purchases written at once


@dataclass(frozen=True)
class World:
    """A store with one live bundle, and the data set that belongs to it."""

    store: Path
    data: Path
    bundle: Bundle
    articles: list[Article]
    dna: NDArray[np.float32]
    """Fashion DNA of ``articles``, float32 (N, 128)."""
    customer_ids: list[str]
    purchases: int


def make_world(live: Bundle, folder: Path, articles: int, customers: int, now: int, seed: int = 0) -> World:
    """Write ``articles`` articles and ``customers`` histories that end at ``now`` (Unix seconds) into ``folder``."""
    rng = np.random.default_rng(seed)
    records = [_article(number, rng) for number in range(articles)]
    dna = synthetic_dna(load_articles(live)[2], articles, rng)
    bundle = _write_bundle(live, folder / "bundles", records, dna, rng)
    ids = [record.article_id for record in records]
    shoppers = [f"bench-customer-{number}" for number in range(customers)]
    with new_data_set(folder / "data") as stage:
        _write_articles(stage, records)
        purchases = _write_purchases(stage, ids, shoppers, now, rng)
        write_data_set_file(stage, DataSetFile(name="bench", synthetic=True))
    return World(folder / "bundles", folder / "data", bundle, records, dna, shoppers, purchases)


def _article(number: int, rng: np.random.Generator) -> Article:
    category, brand, colour, gender = (int(rng.integers(size)) for size in (CATEGORIES, BRANDS, COLOURS, GENDERS))
    return Article(
        article_id=f"bench-{number:07}",
        title=f"Article {number} of brand {brand}",
        category=f"category {category}",
        brand=f"brand {brand}",
        colour=f"colour {colour}",
        gender=f"gender {gender}",
        price=round(float(rng.lognormal(3.5, 0.6)), 2),
    )


def _write_bundle(
    live: Bundle, store: Path, records: list[Article], dna: NDArray[np.float32], rng: np.random.Generator
) -> Bundle:
    """The live bundle with more articles in its tables; its own stay, since the golden cases name some."""
    version = "bench"
    own_ids, own_fingerprints, own_dna = load_articles(live)
    with publishing(store, version) as stage:
        for name in live.manifest.files:
            if name not in {ARTICLES, ARTICLE_DNA, MANIFEST, TITLES, IDS}:
                _bring(live.path(name), stage / name)
        ids = own_ids + [record.article_id for record in records]
        fingerprints = own_fingerprints + [article_fingerprint(record, None) for record in records]
        write_articles(stage, ids, fingerprints, np.concatenate([own_dna, dna]))
        manifest = live.manifest.model_copy(update={"version": version})
        if manifest.generation is not None:
            _write_embeddings(live, stage, own_ids, len(records), rng)
            manifest = _with_weight(manifest)
        write_manifest(stage, manifest)
    set_current(store, version)
    return open_bundle(store / version)


def _bring(source: Path, target: Path) -> None:
    """A file of the live bundle, without copying gigabytes where both lie on one disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_embeddings(live: Bundle, stage: Path, own_ids: list[str], count: int, rng: np.random.Generator) -> None:
    """Title and id embeddings of ``count`` articles more."""
    titles, ids = load_titles(live.folder, len(own_ids)), load_ids(live.folder, own_ids)
    write_titles(stage, np.concatenate([titles, _unit(synthetic_dna(titles, count, rng))]))
    row_of = {article_id: row for row, article_id in enumerate(own_ids)}
    own_rows = np.array([row_of[name] for name in sorted(ids.row_of, key=ids.row_of.__getitem__)], np.int64)
    rows = np.concatenate([own_rows, np.arange(len(own_ids), len(own_ids) + count)])
    write_ids(stage, np.concatenate([ids.embedding, _unit(synthetic_dna(ids.embedding, count, rng))]), rows, ids.cold)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _with_weight(manifest: Manifest) -> Manifest:
    """Lists count, whether or not this bundle's fit found them worth anything."""
    lists = {name: getattr(manifest.blend, name) or 1.0 for name in ("best_sellers", "generated")}
    return manifest.model_copy(update={"blend": manifest.blend.model_copy(update=lists)})


def synthetic_dna(real: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """float32 (count, 128): rows of ``real`` (N, 128), drawn at random, each with noise of its own."""
    rows = real[rng.integers(len(real), size=count)]
    noise = rng.standard_normal(rows.shape, dtype=np.float32) * real.std(axis=0) * np.float32(_NOISE)
    return np.asarray(rows + noise, np.float32)


def popularity(count: int) -> NDArray[np.float64]:
    """The share of purchases that each of ``count`` articles has: a power law, float64 (count)."""
    weights = 1.0 / (np.arange(count) + 10.0)
    return np.asarray(weights / weights.sum(), np.float64)


def _write_articles(stage: Path, records: list[Article]) -> None:
    with TableWriter(stage, ARTICLES_TABLE) as table:
        names = ("article_id", "title", "category", "brand", "colour", "gender", "price")
        table.write({name: [getattr(record, name) for record in records] for name in names})


def _write_purchases(stage: Path, articles: list[str], customers: list[str], now: int, rng: np.random.Generator) -> int:
    """Histories of 1 to some 60 purchases, 10 on average, in time order of nobody; the number of purchases."""
    lengths = np.minimum(rng.geometric(0.1, size=len(customers)), 60)
    owners = np.repeat(np.arange(len(customers)), lengths)
    rng.shuffle(owners)
    bought = rng.choice(len(articles), size=len(owners), p=popularity(len(articles)))
    times = now - rng.integers(1, HISTORY_DAYS * DAY, size=len(owners))
    with TableWriter(stage, EVENTS_TABLE) as table:
        for start in range(0, len(owners), _CHUNK):
            rows = slice(start, start + _CHUNK)
            table.write(
                {
                    "event_id": [f"bench-event-{number}" for number in range(start, start + len(owners[rows]))],
                    "customer_id": [customers[owner] for owner in owners[rows]],
                    "type": ["purchase"] * len(owners[rows]),
                    "article_id": [articles[article] for article in bought[rows]],
                    "timestamp": times[rows],
                }
            )
    return len(owners)
