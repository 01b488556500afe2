"""The sample shop made, trained on from nothing and evaluated, by the commands themselves: minutes each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]


def modiste(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "modiste.py", *map(str, arguments)], cwd=ROOT, check=True, timeout=900)


def evaluated(folder: Path, *options: str, config: str | Path = "default") -> dict[str, Any]:
    """Tables of the report on a shop of fixed dates, trained from nothing."""
    data, run, report = folder / "shop", folder / "run", folder / "report"
    modiste("shop", data, "--end", "2026-11-01", *options)
    modiste("train", "--data", data, "--run", run, "--config", config)
    modiste("evaluate", "--data", data, "--run", run, "--report", report)
    return orjson.loads((report / "report.json").read_bytes())["tables"]


def auc(table: dict[str, Any], model: str) -> dict[str, float]:
    return table["models"][model]["auc"]
