"""One small real bundle for the tests of this room."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from bundles import make_bundle, sample_articles

from model_store.bundle import Bundle
from service.catalogue.encoder import CatalogueEncoder, prepare
from service.catalogue.records import StoredArticle

_FOLDER = tempfile.TemporaryDirectory(prefix="modiste-bundles-")


def bundle(version: str = "one", seed: int = 0) -> Bundle:
    return _bundle(version, seed)


@cache
def _bundle(version: str, seed: int) -> Bundle:
    return make_bundle(Path(_FOLDER.name), version=version, seed=seed, articles=20)


def encoder(version: str = "one", seed: int = 0) -> CatalogueEncoder:
    return _encoder(version, seed)


@cache
def _encoder(version: str, seed: int) -> CatalogueEncoder:
    return CatalogueEncoder(bundle(version, seed))


def prepared() -> list[StoredArticle]:
    """The articles that bundle ``one`` was trained on, as they are kept."""
    return [prepare(raw.article, raw.image) for raw in sample_articles(20, seed=0)]
