"""``modiste train``: from a data set to a run, ready to be evaluated and exported."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_store.dataset import DataSet
from offline.config import load_config
from offline.pipeline import train
from offline.progress import Console, Silent
from offline.run import Run, default_run
from offline.world import open_world

HELP = "train the models on a data set"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set")
    parser.add_argument("--run", type=Path, metavar="DIR", help="where the run is kept (default: var/runs/<data set>)")
    parser.add_argument("--config", default="default", metavar="TOML", help="a file, or a profile's name (%(default)s)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--resume", action="store_true", help="go on where training stopped (this is the default)")
    choice.add_argument("--fresh", action="store_true", help="train everything again")


def main(options: argparse.Namespace) -> None:
    """Train, or finish a training that was stopped."""
    config = load_config(options.config)
    with open_world(config.device, config.threads) as world:
        progress = Console() if world.first else Silent()
        run = Run(options.run or default_run(options.data))
        train(DataSet.open(options.data), run, config, progress, fresh=options.fresh, world=world)
        progress.say(f"the run is complete: {run.folder}")
    world.leave()
