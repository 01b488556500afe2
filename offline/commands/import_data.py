"""``modiste import hm|rtr FOLDER OUT``: real data in their publisher's layout → a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model_store.errors import InvalidConfig
from offline.importers import IMPORTERS
from offline.importers.base import Importer, import_data
from offline.importers.hm import HmImporter

HELP = "import real data (hm: H&M in Kaggle's layout; rtr: Rent the Runway)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("format", choices=sorted(IMPORTERS), help="whose layout FOLDER is in")
    parser.add_argument("source", metavar="FOLDER", type=Path, help="the folder to import")
    parser.add_argument("out", metavar="OUT", type=Path, help="the data set to write; a new or empty folder")
    parser.add_argument(
        "--window-days",
        metavar="N",
        type=_days,
        help="length of the evaluation window at the end, which no price and no stock may know (hm: 28, rtr: 90)",
    )
    parser.add_argument(
        "--derive-searches",
        action="store_true",
        help="hm: derive searches, clicks and result lists from the catalogue, as it has no real ones; the purchases"
        " stay real, and the data set says what is derived",
    )
    parser.add_argument("--seed", metavar="S", type=_seed, default=0, help="of what is derived (default 0)")


def main(options: argparse.Namespace) -> None:
    """Import, and say what came in."""
    file = import_data(_importer(options), options.source, options.out)
    sys.stdout.write(f"{options.out}: {file.name}. {file.description}\nStock: {file.stock}\n")


def _importer(options: argparse.Namespace) -> Importer:
    if not options.derive_searches:
        return IMPORTERS[options.format](window_days=options.window_days)
    if options.format != "hm":
        raise InvalidConfig(f"--derive-searches: {options.format} has no words to derive searches from; hm has")
    return HmImporter(options.window_days, options.seed)


def _days(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 3_650):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of days from 1 to 3650")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to {2**32 - 1}")
    return int(text)
