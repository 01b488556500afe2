"""The command ``modiste``: finds the module of a subcommand and hands over. It alone may know every room.

Rooms are imported only once their command is asked for, so that ``modiste serve`` never loads torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from model_store.errors import exit_status

COMMANDS: dict[str, tuple[str, str]] = {
    "shop": ("offline.commands.shop", "write a sample shop: a simulated fashion store with planted structure"),
    "import": ("offline.commands.import_data", "turn H&M's or Rent the Runway's files into a data set"),
    "train": ("offline.commands.train", "train the models on a data set"),
    "export": ("offline.commands.export", "write a trained run as a bundle and make it the live one"),
    "evaluate": ("offline.commands.evaluate", "measure a trained run: tables, curves, intervals"),
    "study": ("offline.commands.study", "conduct one of the papers' studies: losses, ablations, cold start, …"),
    "serve": ("service.commands.serve", "start the service, with an embedded Redis where none is named"),
    "backfill": ("service.commands.backfill", "load a data set's articles and history into Redis"),
    "bench": ("service.commands.bench", "measure speed and memory on this machine"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. A ModisteError becomes one line on stderr, Ctrl-C status 130."""
    chosen = _front_parser().parse_args(argv)
    return exit_status(f"modiste {chosen.command}", lambda: _run(chosen.command, chosen.arguments))


def _front_parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in COMMANDS)
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="modiste",
        description="An online recommender for fashion shops.",
        epilog=f"commands:\n{listing}\n\n'modiste COMMAND --help' lists the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the command takes")
    return parser


def _run(command: str, arguments: Sequence[str]) -> None:
    module: Any = importlib.import_module(COMMANDS[command][0])
    parser = argparse.ArgumentParser(prog=f"modiste {command}", description=module.HELP)
    module.arguments(parser)
    module.main(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
