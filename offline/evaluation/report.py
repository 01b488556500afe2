"""A backtest's result as JSON and as Markdown: what was measured, on what, and by which rules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from model_store.dataset import DataSet
from offline.baselines.results import Results
from offline.config import Config
from offline.evaluation.backtest import Result
from offline.evaluation.measure import Contest, TableResult
from offline.evaluation.metrics import LEADING, Estimate
from offline.evaluation.rules import rules
from offline.evaluation.tables import ALL, KNOWN_ONLY
from offline.evaluation.window import WEEK
from offline.identity import run_digest
from offline.run import Run, Split

_WHAT = {"by_time": "window", "last_order": "last orders", "last_purchase": "last purchases"}
_WHOLE = {"cover_10", "cover_50", "cover_90"}


def headline(result: Result) -> TableResult:
    """The table that speaks for the whole: all purchases, or known articles where stock gives new ones away."""
    names = {one.table.name: one for one in result.tables}
    return names.get(KNOWN_ONLY, names[ALL]) if result.stock_tells_sales else names[ALL]


def as_json(result: Result, data: DataSet, run: Run) -> dict[str, Any]:
    """Everything, as plain values; NaN becomes None."""
    span, options = result.span, result.options
    return {
        "format": 1,
        "data_set": {**data.file.model_dump(), "fingerprint": data.fingerprint},
        "run": run.folder.resolve().name,
        "digest": run_digest(run),
        "config": run.load_model("config", Config).model_dump(mode="json"),
        "seed": options.seed,
        "bootstrap": options.samples,
        "cutoff": _date(run.load_model("split", Split).cutoff),
        "protocol": result.protocol,
        "window": {"start": _date(span.start), "until": _date(span.until)},
        "windows": [_window_json(contest) for contest in result.contests],
        "customers": result.customers,
        "purchases": result.total(lambda task: len(task.targets.candidate)),
        "stock_tells_sales": result.stock_tells_sales,
        "headline": headline(result).table.name,
        "baselines": [_baseline_json(one) for one in result.baselines.results],
        "baselines_left_out": list(result.baselines.left_out),
        "parameters": dict(result.contests[0].parameters),
        "tables": {one.table.name: _table_json(one) for one in result.tables},
    }


def _window_json(contest: Contest) -> dict[str, Any]:
    task = contest.task
    return {
        "start": _date(task.window.start),
        "until": _date(task.window.until),
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
    return {**asdict(one.recipe), "settings": dict(one.settings), "epochs": one.epochs, "seconds": one.seconds}


def _date(time: int) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _table_json(one: TableResult) -> dict[str, Any]:
    return {
        "title": one.table.title,
        "purchases": one.purchases,
        "customers": one.customers,
        "candidates": one.candidates,
        "models": {model: _figures_json(figures) for model, figures in one.models.items()},
        "differences": {f"{a} - {b}": _figures_json(figures) for (a, b), figures in one.differences.items()},
    }


def _figures_json(figures: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        name: {part: None if math.isnan(value) else value for part, value in figure._asdict().items()}
        for name, figure in figures.items()
    }


def as_markdown(result: Result, data: DataSet, run: Run) -> str:
    """The report that people read; ``roc.png`` lies beside it."""
    return "\n\n".join(
        [
            f"# {data.file.name}: backtest of run `{run.folder.resolve().name}`",
            _summary(result),
            _facts(result, data, run),
            "![ROC of all rankings](roc.png)",
            *(_table_markdown(result, one) for one in result.tables),
            rules(result.protocol),
        ]
    )


def _summary(result: Result) -> str:
    one = headline(result)
    found = ", ".join(f"{model} {_show('auc', figures['auc'])}" for model, figures in one.models.items())
    text = f"**AUC ({one.table.title[0].lower() + one.table.title[1:]}): {found}.**"
    if result.stock_tells_sales:
        bought = result.total(lambda task: task.new_candidates_bought)
        text += (
            f"\n\n> **Caution.** {bought:,} of the {result.total(lambda task: task.new_candidates):,} "
            "candidates never sold before the window were bought in it: this data set's stock is known from its sales. "
            'In tables that rank new articles among all others, "never sold" tells the answer. Fair are those of known '
            "articles, of recent articles, and of new articles among themselves."
        )
    return text


def _facts(result: Result, data: DataSet, run: Run) -> str:
    config, split, span = run.load_model("config", Config), run.load_model("split", Split), result.span
    rows = [
        ("data set", f"{data.file.name}{' (simulated)' if data.file.synthetic else ''}, `{data.fingerprint[:12]}`"),
        ("stock", data.file.stock or "as the availability table says"),
        (
            _WHAT[result.protocol] + ("s" if len(result.contests) > 1 else ""),
            f"{_date(span.start)} to {_date(span.until)}{_pooled(result)}; cut-off of training {_date(split.cutoff)}",
        ),
        ("customers", _customers(result)),
        ("purchases", _purchases(result)),
        ("candidates", _candidates(result)),
        *(("baseline", _baseline(one)) for one in result.baselines.results),
        *(("baseline", line) for line in result.baselines.left_out),
        ("seeds", f"training {config.seed}, bootstrap {result.options.seed} ({result.options.samples:,} resamples)"),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _pooled(result: Result) -> str:
    count = len(result.contests)
    return f", {count} of {result.options.days or WEEK} days each, pooled" if count > 1 else ""


def _baseline(one: Results) -> str:
    recipe, settings = one.recipe, ", ".join(f"{name} {value:g}" for name, value in one.settings.items())
    return (
        f"{recipe.model} ({recipe.library}): {settings}, {one.epochs} epochs, best of {len(one.tried)} settings; "
        f"{one.seconds:.0f} s of a budget of {recipe.budget:g} minutes, seed {recipe.seed}"
    )


def _customers(result: Result) -> str:
    asked = result.total(lambda task: task.targets.customers)
    without = result.total(lambda task: int((task.history_sizes == 0).sum()))
    unknown = sum(contest.static_unknown for contest in result.contests)
    generated = [contest.generated_for for contest in result.contests]
    return (
        f"{result.customers:,}"
        + (f", asked for {asked:,} times" if asked > result.customers else "")
        + f"; {without:,} without an earlier purchase, {unknown:,} unknown to the static model"
        + ("" if None in generated else f"; something was generated for {sum(filter(None, generated)):,}")
    )


def _purchases(result: Result) -> str:
    return (
        f"{result.total(lambda task: len(task.targets.candidate)):,} pairs of customer and article; beyond them "
        f"{result.total(lambda task: task.repeated):,} repeats and "
        f"{result.total(lambda task: task.out_of_stock):,} of articles that were not in stock"
    )


def _candidates(result: Result) -> str:
    tasks = [contest.task for contest in result.contests]
    most = max(tasks, key=lambda task: task.targets.candidates)
    return (
        f"{'at most ' if len(tasks) > 1 else ''}{most.targets.candidates:,} articles, {most.new_candidates:,} of them "
        "never sold before"
    )


def _table_markdown(result: Result, one: TableResult) -> str:
    parameters = result.contests[0].parameters
    figures = [
        [model, *_cells(values), "–" if parameters[model] is None else f"{parameters[model]:,}"]
        for model, values in one.models.items()
    ]
    differences = [
        [f"{a} − {b}", *(_signed(name, values[name]) for name in ("auc", "recall_10", "ndcg_10", "mrr"))]
        for (a, b), values in one.differences.items()
    ]
    heading = f"## {one.table.title}\n\n{one.purchases:,} purchases of {one.customers:,} customers, "
    heading += f"{one.candidates:,} candidates. Brackets: 95% intervals."
    head = ["model", "AUC %", "for 10%", "for 50%", "for 90%", "MRR %", "parameters"]
    leading = [
        [model, *(_show(f"{figure}_{n}", values[f"{figure}_{n}"]) for figure in ("recall", "ndcg") for n in LEADING)]
        for model, values in one.models.items()
    ]
    return "\n\n".join(
        [
            heading,
            _grid(head, figures),
            _grid(["model", *(f"{figure}@{n} %" for figure in ("Recall", "NDCG") for n in LEADING)], leading),
            _grid(["difference in points", "AUC", "Recall@10", "NDCG@10", "MRR"], differences),
        ]
    )


def _cells(values: dict[str, Estimate]) -> list[str]:
    order = ("auc", "cover_10", "cover_50", "cover_90", "mrr")
    return [_show(name, values[name]) for name in order]


def _grid(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show(name: str, figure: Estimate) -> str:
    if math.isnan(figure.value):
        return "–"
    if name in _WHOLE:
        return f"{figure.value:,.0f} [{figure.low:,.0f}, {figure.high:,.0f}]"
    digits = 3 if name == "mrr" else 2
    value, low, high = (100 * part for part in figure)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _signed(name: str, figure: Estimate) -> str:
    """A difference in percentage points; bold where its interval, as printed, leaves out zero."""
    if math.isnan(figure.value):
        return "–"
    digits = 3 if name == "mrr" else 2
    value, low, high = (round(100 * part, digits) + 0.0 for part in figure)  # no −0.00
    text = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
