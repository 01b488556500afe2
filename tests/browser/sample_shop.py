"""The shop that the page is tested in: small, but drawn, trained, evaluated and exported by the commands themselves.

300 articles, all with pictures, and 400 customers (half of them with 10 purchases or more), with searches and clicks,
up to today; the bundle has a generating half, whose language model knows titles of this shop, and a report.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from house.serving import Service
from whole_trainings import ROOT, modiste

from model_store.dataset import DataSet
from model_store.records import Article

CONFIG = Path(__file__).with_name("shop.toml")
SIZES = ("--articles", "300", "--customers", "400", "--days", "200")
KEY = "key-of-the-browser-tests"
"""What a guarded shop asks for."""
KEPT = ROOT / "var" / "browser"


@dataclass(frozen=True)
class Shop:
    """A service that runs, and what its catalogue and histories began with. Tests share both, and what they change."""

    service: Service
    data: DataSet

    @property
    def url(self) -> str:
        return self.service.url

    @cached_property
    def articles(self) -> dict[str, Article]:
        return {article.article_id: article for article in self.data.articles()}

    @cached_property
    def customers(self) -> list[str]:
        """Everybody who bought something, those with most purchases first."""
        purchases = self.data.purchases()
        order = np.argsort(-np.diff(purchases.offsets), kind="stable")
        return [purchases.customer_ids[index] for index in order]

    @cached_property
    def queries(self) -> list[str]:
        """What is searched for, most frequent first."""
        counts: Counter[str] = Counter()
        for batch in self.data.events():
            counts.update(query for query in batch.column("query").to_pylist() if query)
        return [query for query, _ in counts.most_common()]


def trained_shop() -> Path:
    """A folder with the data set ``shop`` and the bundles ``store``.

    Made in about a minute of two cores, then kept until the day, the sizes or any code that made it changes.
    """
    kept = KEPT / _fingerprint()
    if not kept.exists():
        shutil.rmtree(KEPT, ignore_errors=True)
        _make(KEPT / "unfinished")
        (KEPT / "unfinished").rename(kept)
    return kept


def _make(folder: Path) -> None:
    data, run, report = folder / "shop", folder / "run", folder / "report"
    modiste("shop", data, *SIZES)
    modiste("train", "--data", data, "--run", run, "--config", CONFIG)
    modiste("evaluate", "--data", data, "--run", run, "--report", report, "--bootstrap", "50")
    modiste("export", "--data", data, "--run", run, "--store", folder / "store")


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{datetime.now(UTC):%Y-%m-%d} {SIZES}".encode())
    code = (path for room in ("model_store", "offline") for path in (ROOT / room).rglob("*.py"))
    for path in sorted([*code, *(ROOT / "requirements").glob("*.txt"), CONFIG]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
