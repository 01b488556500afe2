"""``modiste study``: one of the papers' studies on a data set: its variants trained, compared, and written down."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import orjson

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from offline.config import load_config
from offline.evaluation.reporting.markdown import as_markdown, picture_files
from offline.evaluation.reporting.page import as_page
from offline.progress import Console
from offline.run import Run, default_run
from offline.world import World, open_world

if TYPE_CHECKING:
    from offline.evaluation.reporting.grids import Json

HELP = "train and compare the variants of one study of the papers: study.json, study.html, study.md"
NAMES = ("losses", "ablations", "cold-start", "zero-shot", "low-resource", "mixup")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the studies' folder: runs, and a folder for each report"
    )
    parser.add_argument("--config", default="default", metavar="TOML", help="of the base run: a file, or a profile")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="trained run to take stages from (default: var/runs/<data folder's name>)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of what is drawn: shares, bootstrap (default: 0)"
    )
    parser.add_argument("--bootstrap", type=int, default=1_000, metavar="N", help="resamples (default: 1000)")
    parser.add_argument("--clip", default="", metavar="DIR", help="ablations: a CLIP directory or hub id")
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME=CATEGORY,…",
        help="zero-shot: a group of categories, the one that is trained on first (default: they are dealt out)",
    )


def main(options: argparse.Namespace) -> None:
    """Conduct the study, or what is left of it."""
    _check(options)
    config = load_config(options.config)
    groups = dict(map(_group, options.group))
    progress, began = Console(), monotonic()
    data = DataSet.open(options.data)
    with open_world(config.device, config.threads) as world:
        if world.size > 1:
            raise InvalidConfig("modiste study: is run by one process, without torchrun")
        found = _conducted(options, data, groups, world, progress, began)
    folder = options.out / options.name
    _write(folder, found)
    progress.say(found["finding"])
    progress.say(f"wrote {folder / 'study.html'}, study.md and study.json")


def _conducted(
    options: argparse.Namespace,
    data: DataSet,
    groups: dict[str, tuple[str, ...]],
    world: World,
    progress: Console,
    began: float,
) -> Json:
    from offline.studies.comparing import Sampling  # noqa: PLC0415 (seconds, which a wrong name need not wait)
    from offline.studies.every import STUDIES  # noqa: PLC0415
    from offline.studies.reporting import as_json  # noqa: PLC0415
    from offline.studies.study import Request  # noqa: PLC0415
    from offline.studies.workshop import Workshop  # noqa: PLC0415

    base = Run(options.run or default_run(options.data))
    workshop = Workshop(options.out, data, load_config(options.config), [base], world, progress)
    request = Request(workshop, Sampling(options.bootstrap, options.seed), options.seed, options.clip, groups)
    study = STUDIES[options.name]
    return as_json(study, request, study.conduct(request), monotonic() - began)


def _check(options: argparse.Namespace) -> None:
    if options.name not in NAMES:
        raise InvalidConfig(f"there is no study '{options.name}'; the studies are {', '.join(NAMES)}")
    if options.seed < 0:
        raise InvalidConfig(f"--seed: must be 0 or more, not {options.seed}")
    if options.bootstrap < 1:
        raise InvalidConfig(f"--bootstrap: must be 1 or more, not {options.bootstrap}")
    if options.clip and options.name != "ablations":
        raise InvalidConfig("--clip: is for 'ablations' alone")
    if options.group and options.name != "zero-shot":
        raise InvalidConfig("--group: is for 'zero-shot' alone")


def _group(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, categories = text.partition("=")
    named = tuple(part.strip() for part in categories.split(",") if part.strip())
    if not equals or not name.strip() or not named:
        raise InvalidConfig(f"--group: expected NAME=CATEGORY,…, not '{text}'")
    return name.strip(), named


def _write(folder: Path, found: Json) -> None:
    from offline.studies.reporting import document_of  # noqa: PLC0415

    document = document_of(found)
    pictures = {name: svg.encode() for name, svg in picture_files(document).items()}
    files = {
        "study.html": as_page(document).encode(),
        "study.md": as_markdown(document).encode(),
        "study.json": orjson.dumps(found, option=orjson.OPT_INDENT_2),
    }
    for name, content in (pictures | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
