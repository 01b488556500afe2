"""From a trained run to a published bundle: gathers what ``offline.bundling`` writes and checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.article_features import ArticleSpec, article_fingerprint
from model_store.bundle import Blend, Bundle, DataSetCard, Manifest, set_current
from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.golden import GoldenArticle, GoldenCases, GoldenCustomer, GoldenPurchase, golden_article
from model_store.purchases import Purchases
from model_store.records import Article
from model_store.time_features import TimeSpec
from offline.article_offsets import trained_offsets
from offline.article_tables import load_networks
from offline.bundling import Catalogue, Contents, Networks, RawArticle, write_bundle
from offline.config import Config
from offline.generation_bundling import GeneratingHalf, gather_generating_half
from offline.hold_out import BY_TIME
from offline.identity import run_digest
from offline.popularity import scored_dna
from offline.progress import Progress
from offline.run import Run, Split

DAY = 86_400
_PROBES = 64  # real articles on which torch, graphs and table are held against each other
_REPORT = "evaluation.html"  # of a run, as its evaluation writes it
_LEFT_OUT = ("roc", "calibration", "learning", "cost")
_GOLDEN_ARTICLES, _GOLDEN_PURCHASES = 4, 20
_GOLDEN_HISTORIES = (1, 2, 5, 100)  # the customers whose number of purchases comes closest to these


def export(run: Run, data: DataSet, store: Path, version: str, *, created: str, progress: Progress) -> Bundle:
    """Publish ``run`` as ``<store>/<version>`` and make it CURRENT; ``created`` is an ISO 8601 time.

    Whatever goes wrong, store and CURRENT stay as they were. Raises InvalidConfig where run and data set do not belong
    together or the run is incomplete, InvalidBundle where graphs and networks disagree.
    """
    contents = gather(run, data, version, created=created, progress=progress)
    progress.say("writing graphs, and checking them against the networks")
    bundle = write_bundle(store, contents)
    set_current(store, version)
    return bundle


def default_version(run: Run, now: datetime) -> str:
    """UTC date and time, and the first digits of the run's digest: ``20261122-081500-3fa9c1``."""
    return f"{now:%Y%m%d-%H%M%S}-{run_digest(run)[:6]}"


def gather(run: Run, data: DataSet, version: str, *, created: str, progress: Progress) -> Contents:
    """All that goes into the bundle of a run."""
    split = run.load_model("split", Split)
    if split.hold_out != BY_TIME:
        raise InvalidConfig(
            "the run was trained without the end of each history, to be evaluated: train one with all for a bundle"
        )
    if split.fingerprint != data.fingerprint:
        raise InvalidConfig(
            f"the run was trained on '{split.data_set}' with other content than {data.folder} has now: train it again"
        )
    offset = trained_offsets(run)
    catalogue = Catalogue(data.article_ids, _fingerprints(data, progress), scored_dna(run), offset)
    purchases = data.purchases(known_at=split.cutoff)
    generating, metrics = gather_generating_half(run, data, split), _metrics(run)
    manifest = Manifest(
        version=version,
        created=created,
        data_set=_card(data, split, purchases),
        article_spec=run.load_model("article_spec", ArticleSpec),
        time_spec=run.load_model("time_spec", TimeSpec),
        blend=run.load_model("blend", Blend),
        newcomer_popularity=_newcomer_popularity(run),
        article_offsets=offset is not None,
        generation=None if generating is None else generating.spec,
        image_encoder=run.existing("residual/source.txt").read_text(encoding="utf-8").strip(),
        parameters=_parameters(run, generating),
        metrics=metrics,
        config=run.load_model("config", Config).model_dump(mode="json"),
    )
    probes = list(_raw_articles(data, _probe_rows(len(data.article_ids))))
    golden = GoldenCases(
        articles=tuple(golden_articles(probes)),
        customers=tuple(golden_customers(data, purchases, split.cutoff)),
        sessions=generating.sessions if generating else (),
        texts=generating.texts if generating else (),
        queries=generating.queries if generating else (),
    )
    report = run.existing(_REPORT).read_text(encoding="utf-8") if metrics and run.has(_REPORT) else None
    return Contents(manifest, Networks(*load_networks(run)), catalogue, golden, probes, generating, report)


def _parameters(run: Run, generating: GeneratingHalf | None) -> dict[str, int]:
    static = {"static": sum(array.size for array in run.load_arrays("static").values())}
    return static if generating is None else static | {"language_model": generating.spec.language_model.parameters}


def _newcomer_popularity(run: Run) -> float | None:
    popular = run.load_model("config", Config).fashion_dna.popularity
    return float(run.load_json("popularity")["newcomer"]) if popular else None


def _card(data: DataSet, split: Split, purchases: Purchases) -> DataSetCard:
    return DataSetCard(
        name=data.file.name,
        fingerprint=data.fingerprint,
        cutoff=split.cutoff,
        articles=len(data.article_ids),
        customers=len(purchases.customer_ids),
        purchases=len(purchases),
    )


def _metrics(run: Run) -> dict[str, Any]:
    """What ``modiste evaluate`` found, unless the run was trained again since.

    Without slices, what is only drawn, and what the evaluation cost part by part, which stay in the run: whoever opens
    a bundle reads all of its manifest.
    """
    evaluation: dict[str, Any] = run.load_json("evaluation") if run.has("evaluation.json") else {}
    if evaluation.get("digest") != run_digest(run):
        return {}
    tables = {name: table for name, table in evaluation["tables"].items() if "slice" not in table}
    return {name: value for name, value in evaluation.items() if name not in _LEFT_OUT} | {"tables": tables}


def _fingerprints(data: DataSet, progress: Progress) -> list[str]:
    fingerprints = []
    with progress.bar("fingerprints of articles", len(data.article_ids)) as bar:
        for article in data.articles():
            fingerprints.append(article_fingerprint(article, data.image(article)))
            bar.advance()
    return fingerprints


def _probe_rows(articles: int) -> list[int]:
    rng = np.random.default_rng(0)
    return sorted(rng.choice(articles, min(_PROBES, articles), replace=False).tolist())


def _raw_articles(data: DataSet, rows: Sequence[int]) -> Iterator[RawArticle]:
    wanted = set(rows)
    for row, article in enumerate(data.articles()):
        if row in wanted:
            yield RawArticle(article, data.image(article))


def golden_articles(probes: Sequence[RawArticle]) -> Iterator[GoldenArticle]:
    """Some articles as they are, and the fullest of them without price, without materials, without picture, bare."""
    fullest = max(probes, key=_completeness)
    chosen = [fullest, *(one for one in probes if one is not fullest)][:_GOLDEN_ARTICLES]
    for one in chosen:
        yield golden_article(one.article.article_id, one.article, one.image)
    article, image, name = fullest.article, fullest.image, fullest.article.article_id
    yield golden_article(f"{name} without price", article.model_copy(update={"price": None}), image)
    yield golden_article(f"{name} without materials", article.model_copy(update={"materials": {}}), image)
    yield golden_article(f"{name} without picture", article.model_copy(update={"image": None}), None)
    bare = Article(article_id=article.article_id, title=article.title, category=article.category)
    yield golden_article(f"{name} bare", bare, None)


def _completeness(one: RawArticle) -> int:
    return (one.image is not None) + (one.article.price is not None) + bool(one.article.materials)


def golden_customers(data: DataSet, purchases: Purchases, read_time: int) -> Iterator[GoldenCustomer]:
    """Somebody without purchases, and histories of several lengths, read at ``read_time``."""
    yield GoldenCustomer(name="without purchases", purchases=(), read_time=read_time)
    sizes = np.diff(purchases.offsets)
    for customer in dict.fromkeys(int(np.argmin(np.abs(sizes - size))) for size in _GOLDEN_HISTORIES if len(sizes)):
        rows = np.arange(purchases.offsets[customer], purchases.offsets[customer + 1])[-_GOLDEN_PURCHASES:]
        yield GoldenCustomer(
            name=f"{len(rows)} purchases", purchases=_golden_purchases(data, purchases, rows), read_time=read_time
        )


def _golden_purchases(data: DataSet, purchases: Purchases, rows: NDArray[np.int64]) -> tuple[GoldenPurchase, ...]:
    return tuple(
        GoldenPurchase(article_id=data.article_ids[article], timestamp=time)
        for article, time in zip(purchases.article[rows].tolist(), purchases.timestamp[rows].tolist(), strict=True)
    )
