"""How fast `modiste evaluate` is at a shop's full size, and how much memory it takes: a made-up shop, random weights.

    python -m loadtests.evaluation --out evaluation.json                # half an hour, on one core
    python -m loadtests.evaluation --articles 2000 --customers 100 400  # the same steps, in seconds

What is measured is the command itself, in a process of its own: throughput and peak memory are those of its report. As
many customers are asked for as there are in the shop, and each of them has bought before. Purchases follow a power law
of popularity; articles come into stock and go out of it, within the window, too. Speed and memory do not depend on what
a model has learned, so the run was never trained, and what the report says of ranks means nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.article_features import ArticleSpec
from model_store.bundle import Blend
from model_store.dataset import DataSet, DataSetFile, new_data_set, write_data_set_file
from model_store.machine import hardware, versions
from model_store.tables import ARTICLES, AVAILABILITY, EVENTS, TableWriter
from model_store.time_features import TimeSpec
from offline.config import Config
from offline.context import weights
from offline.models.style_lstm import StyleLstmNetwork
from offline.run import Run, Split

DAY = 86_400
CUTOFF = 1_780_012_800  # 2026-05-29, 00:00 UTC
HISTORY_DAYS, VALIDATION_DAYS, WINDOW_DAYS = 365, 7, 7
HISTORY, BOUGHT = 10, 3
"""Purchases of a customer, on average: before the window, and in it."""
NEW, GONE, ENTERING = 0.03, 0.10, 0.02
"""Shares of the articles that are too new to have sold much, that were gone by the window, and that enter during it."""
_CHUNK = 50_000  # rows written at once
_PACKAGES = ("modiste", "numpy", "scipy", "torch", "pyarrow")

Int64 = NDArray[np.int64]


def make_shop(folder: Path, articles: int, customers: int, rng: np.random.Generator) -> DataSet:
    """A data set with so many ``articles`` in stock in the window after the cut-off, in which each customer buys.

    Before the window each has bought, too, of those and of some that are gone.
    """
    articles = round(articles / (1 - GONE))
    names = [f"article-{number:07}" for number in range(articles)]
    shoppers = [f"customer-{number:07}" for number in range(customers)]
    opens, closes = _stock(articles, rng)
    with new_data_set(folder) as stage:
        write_data_set_file(stage, DataSetFile(name="bench", synthetic=True, window_days=WINDOW_DAYS))
        with TableWriter(stage, ARTICLES) as table:
            table.write({"article_id": names, "title": names, "category": ["all"] * articles, "created_at": opens})
        with TableWriter(stage, AVAILABILITY) as table:
            table.write({"article_id": names, "from": opens, "to": closes})
        with TableWriter(stage, EVENTS) as table:
            start = CUTOFF - HISTORY_DAYS * DAY
            old = np.flatnonzero(opens < start)
            _write_purchases(table, names, shoppers, old, (start, CUTOFF), HISTORY, rng)
            sold_then = np.flatnonzero((opens <= CUTOFF) & (closes >= CUTOFF + WINDOW_DAYS * DAY))
            _write_purchases(table, names, shoppers, sold_then, (CUTOFF, CUTOFF + WINDOW_DAYS * DAY), BOUGHT, rng)
    return DataSet.open(folder)


def _stock(articles: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """(N) Unix seconds from which on, and up to which, each article is in stock."""
    kind = rng.permutation(articles) / articles
    opens = np.full(articles, CUTOFF - (HISTORY_DAYS + 30) * DAY)
    opens[kind < NEW] = CUTOFF - rng.integers(0, 30 * DAY, np.count_nonzero(kind < NEW))
    entering = (kind >= NEW) & (kind < NEW + ENTERING)
    opens[entering] = CUTOFF + rng.integers(1, WINDOW_DAYS * DAY, np.count_nonzero(entering))
    closes = np.full(articles, CUTOFF + 365 * DAY)
    closes[kind >= 1 - GONE] = CUTOFF - DAY
    return opens, closes


def _write_purchases(
    table: TableWriter,
    names: list[str],
    shoppers: list[str],
    among: Int64,
    span: tuple[int, int],
    each: int,
    rng: np.random.Generator,
) -> None:
    """From 1 to 60 purchases of each customer, ``each`` on average, of the articles ``among``, in ``span``."""
    lengths = np.minimum(rng.geometric(1 / each, len(shoppers)), 60)
    owners = np.repeat(np.arange(len(shoppers)), lengths)
    popularity = 1.0 / (np.arange(len(among)) + 10.0)
    bought = rng.choice(rng.permutation(among), len(owners), p=popularity / popularity.sum())
    times = rng.integers(*span, len(owners))
    for start in range(0, len(owners), _CHUNK):
        rows = slice(start, start + _CHUNK)
        table.write(
            {
                "event_id": [f"event-{table.rows + number:09}" for number in range(len(owners[rows]))],
                "type": ["purchase"] * len(owners[rows]),
                "customer_id": [shoppers[owner] for owner in owners[rows]],
                "article_id": [names[article] for article in bought[rows]],
                "timestamp": times[rows],
            }
        )


def make_run(folder: Path, data: DataSet, customers: int, rng: np.random.Generator) -> Run:
    """A run of random weights, as complete as an evaluation needs it; every other customer has a static style."""
    config, run = Config(), Run(folder)
    time_spec = TimeSpec(reference=CUTOFF - HISTORY_DAYS * DAY, horizon=CUTOFF)
    spec = ArticleSpec(tags=(), fibres=(), log_price_mean=0.0, log_price_scale=1.0, image_height=16, image_width=16)
    torch.manual_seed(0)
    network = StyleLstmNetwork(time_spec.step_size, popularity=config.fashion_dna.popularity)
    known = [f"customer-{number:07}" for number in range(0, customers, 2)]
    run.save_json("config", config)
    run.save_json(
        "split",
        Split(
            data_set=data.file.name,
            fingerprint=data.fingerprint,
            validation_from=CUTOFF - VALIDATION_DAYS * DAY,
            cutoff=CUTOFF,
        ),
    )
    run.save_json("article_spec", spec)
    run.save_json("time_spec", time_spec)
    run.save_json("popularity", {"half_life_days": 14.0, "newcomer": 0.5})
    run.save_json("blend", Blend(trend=0.5, popularity=0.5, best_sellers=0.5))
    run.save_arrays("fashion_dna", {})
    run.save_arrays("article_dna", {"dna": _random(len(data.article_ids), rng)})
    run.save_arrays("style_lstm", weights(network))
    run.save_arrays("static", {"style": _random(len(known), rng), "bias": np.full(len(known), -9.0, np.float32)})
    run.save_json("static_customers", known)
    return run


def _random(rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal((rows, DNA_SIZE), dtype=np.float32) / np.float32(DNA_SIZE**0.25)


def measure(articles: int, customers: int, samples: int, scratch: Path) -> dict[str, Any]:
    """Evaluate one size in a process of its own: what its report says of size, time and memory."""
    rng = np.random.default_rng(0)
    data = make_shop(scratch / "data", articles, customers, rng)
    make_run(scratch / "run", data, customers, rng)
    places = ("--data", scratch / "data", "--run", scratch / "run", "--report", scratch / "report")
    before = _processor_seconds()
    subprocess.run([sys.executable, "-m", "modiste", "evaluate", *places, "--bootstrap", str(samples)], check=True)
    computed = {"processor_seconds": round(_processor_seconds() - before, 1)}
    report = orjson.loads((scratch / "report" / "report.json").read_bytes())
    asked = {name: report[name] for name in ("customers", "purchases", "bootstrap")}
    size = {"candidates": report["windows"][0]["candidates"], "seconds": report["seconds"]}
    return {**asked, **size, **computed, **report["cost"]}


def _processor_seconds() -> float:
    """Of the processes that have ended: less than what it took where others computed on the same cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="loadtests.evaluation", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--articles", type=int, default=190_000, help="of the shop (default: %(default)s)")
    parser.add_argument(
        "--customers",
        type=int,
        nargs="+",
        default=[2_000, 8_000, 100_000],
        help="to ask for, one measurement after the other (default: 2000 8000 100000)",
    )
    parser.add_argument("--bootstrap", type=int, default=1_000, help="resamples (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON file; standard output if left out")
    options = parser.parse_args(arguments)
    results = []
    for customers in options.customers:
        with tempfile.TemporaryDirectory(prefix="modiste-bench-") as scratch:
            results.append(measure(options.articles, customers, options.bootstrap, Path(scratch)))
    report = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(_PACKAGES),
        "articles": options.articles,
        "results": results,
    }
    text = json.dumps(report, indent=2)
    print(text) if options.out is None else options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
