"""``modiste serve``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from model_store.errors import ModisteError
from service import embedded
from service.launcher import Launcher, check
from service.log_lines import configure_logging, tell_failure
from service.settings import Settings

HELP = (
    "Start the service; settings are MODISTE_* variables. Without MODISTE_REDIS_URL, an embedded Redis holds the state."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seed-data", type=Path, metavar="DIR", help="data set to load where the catalogue is empty")
    parser.add_argument(
        "--redis-folder",
        type=Path,
        default=embedded.FOLDER,
        metavar="DIR",
        help="where the embedded Redis keeps its data (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="only look whether settings, port and folders are usable")


def main(options: argparse.Namespace) -> None:
    """Serve until stopped, or only check."""
    configure_logging()
    try:
        settings = Settings.from_environment(os.environ)
        check(settings, options.redis_folder)
        if not options.check:
            Launcher(settings, dict(os.environ), options.redis_folder, options.seed_data).run()
    except ModisteError as error:
        tell_failure("modiste serve", error)
        sys.exit(1)
