"""``modiste export``: a trained run → a bundle in the store, live from then on."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from offline.export import default_version, export
from offline.progress import Console
from offline.run import Run, default_run

HELP = "write a trained run as a bundle and make it the live one"
DEFAULT_STORE = "model_store/bundles"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, metavar="DIR", help="trained run (default: var/runs/<data folder's name>)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="its data set (default: var/data/<run folder's name>)")
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help=f"where bundles lie (default: $MODISTE_STORE or {DEFAULT_STORE})"
    )
    parser.add_argument("--version", metavar="V", help="name of the bundle (default: UTC time and a hash)")


def main(options: argparse.Namespace) -> None:
    now, progress = datetime.now(UTC), Console()
    run, data = _open(options)
    store = options.store or Path(os.environ.get("MODISTE_STORE") or DEFAULT_STORE)
    version = options.version or default_version(run, now)
    bundle = export(run, data, store, version, created=f"{now:%Y-%m-%dT%H:%M:%SZ}", progress=progress)
    worst = max(bundle.manifest.parity.values())
    progress.say(f"published {bundle.folder} (torch and ONNX differ by {worst:.1g} at most); it is live now")


def _open(options: argparse.Namespace) -> tuple[Run, DataSet]:
    """Run and data set; either is found by the other's name."""
    if options.run is None and options.data is None:
        raise InvalidConfig("name the run by --run DIR, its data set by --data DIR, or both")
    run = options.run or default_run(options.data)
    data = options.data or Path("var/data") / run.resolve().name
    return Run(run), DataSet.open(data)
