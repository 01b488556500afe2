"""``modiste evaluate``: the paper's Table 1 and Figure 3 for a trained run, with intervals."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.records import parse_timestamp
from offline.evaluation.backtest import Options, run_backtest
from offline.evaluation.report import as_json, headline
from offline.evaluation.reporting.content import document_of
from offline.evaluation.reporting.costs import summary
from offline.evaluation.reporting.markdown import as_markdown, picture_files
from offline.evaluation.reporting.page import as_page
from offline.evaluation.roc import draw_roc
from offline.progress import Console
from offline.run import Run, default_run

HELP = "measure a trained run against popularity on later purchases: report.html, report.md, report.json, roc.png"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set that the run was trained on")
    parser.add_argument("--run", type=Path, metavar="DIR", help="trained run (default: var/runs/<data folder's name>)")
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="folder to write the report into")
    add_window(parser)
    parser.add_argument("--bootstrap", type=int, default=1_000, metavar="N", help="resamples (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the bootstrap (default: 0)")


def add_window(parser: argparse.ArgumentParser) -> None:
    """Options that say what is asked for."""
    parser.add_argument("--until", metavar="DATE", help="end of the window, exclusive (default: end of the data)")
    parser.add_argument(
        "--window-days", type=int, metavar="N", help="length of a window (default: from the cut-off; of several: 7)"
    )
    parser.add_argument("--windows", type=int, default=1, metavar="K", help="pool K windows, end to end (default: 1)")


def main(options: argparse.Namespace) -> None:
    progress, began = Console(), monotonic()
    chosen = _options(options)
    data = DataSet.open(options.data)
    run = Run(options.run or default_run(options.data))
    result = run_backtest(data, run, chosen, progress)
    report = as_json(result, data, run, monotonic() - began)
    page = _write(options.report, report)
    draw_roc(options.report / "roc.png", headline(result), data.file.name)
    run.save_text("evaluation.html", page)
    run.save_json("evaluation", report)
    for model, figures in headline(result).models.items():
        value, low, high = (100 * part for part in figures["auc"])
        progress.say(f"{model:>10}: AUC {value:.2f}% [{low:.2f}, {high:.2f}]")
    progress.say(summary(report))
    progress.say(f"wrote {options.report / 'report.html'}, report.md, report.json and roc.png")


def _write(folder: Path, report: dict[str, Any]) -> str:
    """The report for programs, for people, and for people as text, whose pictures are files of their own.

    What is for people comes back as well.
    """
    document = document_of(report)
    page = as_page(document)
    pictures = {name: svg.encode() for name, svg in picture_files(document).items()}
    files = {
        "report.json": orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE),
        "report.html": page.encode(),
        "report.md": as_markdown(document).encode(),
    }
    for name, content in (pictures | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return page


def _options(options: argparse.Namespace) -> Options:
    _at_least_one("--bootstrap", options.bootstrap)
    if options.seed < 0:
        raise InvalidConfig(f"--seed: must be 0 or more, not {options.seed}")
    return replace(window_options(options), samples=options.bootstrap, seed=options.seed)


def window_options(options: argparse.Namespace) -> Options:
    """What ``add_window`` asked. Raises InvalidConfig where a number or the date is none."""
    _at_least_one("--window-days", options.window_days)
    _at_least_one("--windows", options.windows)
    try:
        until = None if options.until is None else parse_timestamp(options.until)
    except ValueError as error:
        raise InvalidConfig(f"--until: {error}") from None
    return Options(until, options.window_days, options.windows)


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise InvalidConfig(f"{name}: must be 1 or more, not {value}")
