"""Small data sets row by row, and complete runs of untrained networks on them: for tests of evaluation and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bundles import sample_networks

from model_store.article_features import ArticleSpec, article_tags
from model_store.bundle import Blend
from model_store.dataset import DataSet, DataSetFile, write_data_set_file
from model_store.tables import ARTICLES, AVAILABILITY, EVENTS, TableWriter
from model_store.time_features import TimeSpec
from offline.article_tables import build_fashion_dna
from offline.bundling import Networks, RawArticle, torch_dna
from offline.config import Config
from offline.hold_out import Protocol
from offline.models.residual import save_residual_network
from offline.popularity import Popularity, RecentSales
from offline.run import Run

DAY = 86_400
HALF_LIFE = 7.0  # days
START = 1_700_006_400  # 2023-11-15, 00:00


def write_shop(
    folder: Path,
    articles: Sequence[str],
    purchases: Sequence[tuple[str, str, float]],
    *,
    returns: Sequence[tuple[str, str, float]] = (),
    searches: Sequence[tuple[str, str, float]] = (),
    stock: Mapping[str, tuple[float, float | None]] | None = None,
    titles: Mapping[str, str] | None = None,
) -> DataSet:
    """A data set from (customer, article, day) rows; ``stock`` maps an article to its days from … to, None: open.

    ``searches``: (customer, query, day) rows.
    """
    titles = titles or {}
    folder.mkdir(parents=True)
    write_data_set_file(folder, DataSetFile(name=folder.name, synthetic=True))
    with TableWriter(folder, ARTICLES) as writer:
        writer.write(
            {
                "article_id": articles,
                "title": [titles.get(name, f"{name} thing") for name in articles],
                "category": ["x"] * len(articles),
            }
        )
    rows = [("purchase", *row) for row in purchases] + [("return", *row) for row in returns]
    rows += [("search", *row) for row in searches]
    with TableWriter(folder, EVENTS) as writer:
        writer.write(
            {
                "event_id": [f"e{index:04}" for index in range(len(rows))],
                "type": [row[0] for row in rows],
                "customer_id": [row[1] for row in rows],
                "article_id": [None if row[0] == "search" else row[2] for row in rows],
                "query": [row[2] if row[0] == "search" else None for row in rows],
                "timestamp": [START + int(row[3] * DAY) for row in rows],
            }
        )
    if stock is not None:
        with TableWriter(folder, AVAILABILITY) as writer:
            writer.write(
                {
                    "article_id": list(stock),
                    "from": [START + int(low * DAY) for low, _ in stock.values()],
                    "to": [None if high is None else START + int(high * DAY) for _, high in stock.values()],
                }
            )
    return DataSet.open(folder)


def make_run(
    folder: Path,
    data: DataSet,
    cutoff: int,
    *,
    seed: int = 0,
    trend: float = 0.5,
    hold_out: Protocol = "by_time",
    popularity: bool = False,
    offsets: bool = False,
) -> Run:
    """A complete run whose networks were never trained; customers of the first half of the data have static styles."""
    raw = [RawArticle(article, data.image(article)) for article in data.articles()]
    spec = ArticleSpec(
        tags=tuple(sorted({tag for one in raw for tag in article_tags(one.article)})),
        fibres=("cotton",),
        log_price_mean=2.5,
        log_price_scale=0.4,
        image_height=16,
        image_width=12,
    )
    time_spec = TimeSpec(reference=cutoff - 100 * DAY, horizon=cutoff)
    config = Config.model_validate({"fashion_dna": {"popularity": popularity}})
    sample = sample_networks(spec, time_spec, seed, popularity=popularity)
    fashion_dna = build_fashion_dna(config, spec, sample.residual.size)
    networks = Networks(sample.residual, fashion_dna.eval(), sample.style)
    customers = data.purchases(known_at=cutoff).customer_ids
    customers = customers[: len(customers) // 2]
    rng = np.random.default_rng(seed)

    run = Run(folder)
    run.save_json("config", config)
    about = {"data_set": data.file.name, "fingerprint": data.fingerprint, "hold_out": hold_out}
    run.save_json("split", {**about, "validation_from": cutoff - 5 * DAY, "cutoff": cutoff})
    run.save_json("article_spec", spec)
    run.save_json("time_spec", time_spec)
    sales = RecentSales(data.purchases(known_at=cutoff), len(raw))
    component = Popularity(sales, data.availability, HALF_LIFE).at(cutoff)
    run.save_arrays("popularity", {"cutoff": component})
    run.save_json("popularity", {"half_life_days": HALF_LIFE, "newcomer": 0.5})
    run.save_json("blend", Blend(trend=trend))
    save_residual_network(networks.residual, run.path("residual/config.json").parent)
    run.path("residual/source.txt").write_text("untrained, for tests\n", encoding="utf-8")
    for name, module in (("fashion_dna", networks.fashion_dna), ("style_lstm", networks.style)):
        run.save_arrays(name, {key: value.numpy() for key, value in module.state_dict().items()})
    run.save_arrays("article_dna", {"dna": torch_dna(networks, spec, raw)})
    if offsets:
        drawn = np.random.default_rng(seed + 1).normal(size=(len(raw), 127)).astype(np.float32)
        run.save_arrays("article_offsets", {"offset": np.pad(drawn, ((0, 0), (0, 1)))})
    style = rng.normal(size=(len(customers), 128)).astype(np.float32)
    run.save_arrays("static", {"style": style, "bias": np.zeros(len(customers), np.float32)})
    run.save_json("static_customers", customers)
    return run
