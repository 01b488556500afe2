"""A backtest's result as plain values, report.json: all that the report says, in numbers, is in it."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from model_store.dataset import DataSet
from model_store.machine import hardware, peak_memory, versions
from offline.baselines.results import Results
from offline.config import Config
from offline.evaluation.backtest import Result
from offline.evaluation.calibration import Calibration
from offline.evaluation.cost import Cost
from offline.evaluation.first_ten import FirstTenFigures
from offline.evaluation.measure import Contest, TableResult
from offline.evaluation.metrics import Estimate
from offline.evaluation.roc import curves
from offline.evaluation.tables import ALL, KNOWN_ONLY
from offline.evaluation.window import WEEK
from offline.identity import run_digest
from offline.run import Run, Split
from offline.stages import RECORDS, stages_of

PACKAGES = ("modiste", "numpy", "scipy", "torch", "transformers", "onnxruntime", "onnxruntime-genai", "pyarrow")


def headline(result: Result) -> TableResult:
    """The table that speaks for the whole: all purchases, or known articles where stock gives new ones away."""
    names = {one.table.name: one for one in result.tables}
    return names.get(KNOWN_ONLY, names[ALL]) if result.stock_tells_sales else names[ALL]


def as_json(result: Result, data: DataSet, run: Run, seconds: float) -> dict[str, Any]:
    """Everything, as plain values; NaN becomes None. ``seconds``: what the evaluation took."""
    span, options, chief = result.span, result.options, headline(result)
    config = run.load_model("config", Config)
    return {
        "format": 1,
        "data_set": {**data.file.model_dump(), "articles": len(data.article_ids), "fingerprint": data.fingerprint},
        "run": run.folder.resolve().name,
        "digest": run_digest(run),
        "config": config.model_dump(mode="json"),
        "seed": options.seed,
        "bootstrap": options.samples,
        "cutoff": date(run.load_model("split", Split).cutoff),
        "protocol": result.protocol,
        "window": {"start": date(span.start), "until": date(span.until)},
        "window_days": options.days or (WEEK if len(result.contests) > 1 else None),
        "windows": [_window_json(contest) for contest in result.contests],
        "customers": result.customers,
        "purchases": result.total(lambda task: len(task.targets.candidate)),
        "stock_tells_sales": result.stock_tells_sales,
        "headline": chief.table.name,
        "baselines": [_baseline_json(one) for one in result.baselines.results],
        "baselines_left_out": list(result.baselines.left_out),
        "parameters": dict(result.contests[0].parameters),
        "tables": {one.table.name: table_json(one) for one in result.tables},
        "roc": _roc_json(chief),
        "first_ten": {model: _first_ten_json(figures) for model, figures in result.first_ten.items()},
        "calibration": {one.name: _calibration_json(one) for one in result.calibration},
        "learning": _learning(run, config),
        "training": _training(run, config),
        "seconds": round(seconds, 1),
        "cost": _cost_json(result.cost),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
    }


def _window_json(contest: Contest) -> dict[str, Any]:
    task = contest.task
    return {
        "start": date(task.window.start),
        "until": date(task.window.until),
        "customers": task.targets.customers,
        "customers_without_history": int((task.history_sizes == 0).sum()),
        "customers_unknown_to_static": contest.static_unknown,
        "customers_with_generation": contest.generated_for,
        "purchases": len(task.targets.candidate),
        "repeated_purchases": task.repeated,
        "purchases_out_of_stock": task.out_of_stock,
        "candidates": task.targets.candidates,
        "new_candidates": task.new_candidates,
        "new_candidates_bought": task.new_candidates_bought,
        "stock_tells_sales": task.stock_tells_sales,
    }


def _baseline_json(one: Results) -> dict[str, Any]:
    told = {"settings": dict(one.settings), "epochs": one.epochs, "stages": dict(one.stages), "seconds": one.seconds}
    return {**asdict(one.recipe), **told}


def date(time: int) -> str:
    """Unix seconds in ISO 8601."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"


def table_json(one: TableResult) -> dict[str, Any]:
    """One table's figures, differences and leads."""
    group = {"slice": one.table.slice, "label": one.table.label} if one.table.slice else {}
    return {
        "title": one.table.title,
        **group,
        "purchases": one.purchases,
        "customers": one.customers,
        "candidates": one.candidates,
        "models": {model: _figures_json(figures) for model, figures in one.models.items()},
        "differences": {f"{a} - {b}": _figures_json(figures) for (a, b), figures in one.differences.items()},
        "leads": {
            name: {"model": lead.model, "next": lead.next, **_estimate_json(lead.by)}
            for name, lead in one.leads.items()
        },
    }


def _roc_json(one: TableResult) -> dict[str, Any]:
    """Share of the candidates recommended, and by model the share of the purchases found among them."""
    share, found = curves(one, list(one.models), points=80)
    return {
        "share": [round(value, 6) for value in share.tolist()],
        "found": {model: [round(value, 6) for value in curve.tolist()] for model, curve in found.items()},
    }


def _first_ten_json(figures: FirstTenFigures) -> dict[str, Any]:
    return {
        "coverage": figures.coverage,
        "gini": figures.gini,
        "novelty": _estimate_json(figures.novelty),
        "diversity": _estimate_json(figures.diversity),
    }


def _calibration_json(one: Calibration) -> dict[str, Any]:
    return {
        "title": one.title,
        "customers": one.customers,
        "articles": one.articles,
        "pairs": one.pairs,
        "bought": one.bought,
        "ratio": _estimate_json(one.ratio),
        "tenths": [
            {"pairs": tenth.pairs, "predicted": tenth.predicted, "observed": _estimate_json(tenth.observed)}
            for tenth in one.tenths
        ],
    }


def _learning(run: Run, config: Config) -> dict[str, list[dict[str, float]]]:
    """By stage, in order: the records of its training, epoch by epoch."""
    stages = [spec.name for spec in stages_of(config) if run.has(f"{RECORDS}/{spec.name}.json")]
    curves_of = {name: run.load_json(f"{RECORDS}/{name}")["curve"] for name in stages}
    return {name: curve for name, curve in curves_of.items() if curve}


def _training(run: Run, config: Config) -> dict[str, dict[str, Any]]:
    """By stage, in order: what its training took, where that was measured."""
    stages = [spec.name for spec in stages_of(config) if run.has(f"{RECORDS}/{spec.name}.json")]
    costs = {name: run.load_json(f"{RECORDS}/{name}").get("cost") for name in stages}
    return {name: cost for name, cost in costs.items() if cost}


def _cost_json(cost: Cost) -> dict[str, Any]:
    """Seconds, and the memory that the process has held up to now."""
    return {
        "scores": cost.scores,
        "scores_per_second": round(cost.scores_per_second),
        "customers_per_second": round(cost.customers_per_second, 2),
        "peak_memory_mib": peak_memory(),
        "parts": {name: round(seconds, 2) for name, seconds in cost.parts.items()},
        "ranking": {model: round(seconds, 2) for model, seconds in cost.ranking.items()},
    }


def _figures_json(figures: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: _estimate_json(figure) for name, figure in figures.items()}


def _estimate_json(figure: Estimate) -> dict[str, float | None]:
    return {part: None if math.isnan(value) else value for part, value in figure._asdict().items()}
