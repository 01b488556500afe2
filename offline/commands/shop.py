"""``modiste shop OUT``: write a sample shop, a simulated fashion store with planted structure."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from offline.shop.simulation import DAY, ShopConfig
from offline.shop.writing import write_shop

HELP = "write a sample shop: a simulated fashion store with planted structure"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", metavar="OUT", type=Path, help="the data set to write; a new or empty folder")
    for name, default in (("articles", 2_000), ("customers", 3_000), ("days", 400)):
        parser.add_argument(f"--{name}", metavar="N", type=int, default=default, help=f"default {default:,}")
    parser.add_argument("--seed", metavar="S", type=int, default=7, help="same seed and sizes, same shop (default 7)")
    parser.add_argument(
        "--end", metavar="DATE", type=_date, help="where its data end: 00:00 UTC of a day (default today)"
    )
    parser.add_argument("--shuffled", action="store_true", help="leave nothing to learn: every article drawn at random")
    parser.add_argument(
        "--images", action=argparse.BooleanOptionalAction, default=True, help="draw a picture of every article"
    )


def main(options: argparse.Namespace) -> None:
    """Simulate, and say how much."""
    today = int(time.time()) // DAY * DAY
    config = ShopConfig(
        end=today if options.end is None else options.end,
        articles=options.articles,
        customers=options.customers,
        days=options.days,
        seed=options.seed,
        shuffled=options.shuffled,
        images=options.images,
    )
    begin = time.perf_counter()
    events = write_shop(options.out, config)
    seconds = time.perf_counter() - begin
    sys.stdout.write(
        f"{options.out}: {config.articles:,} articles, {config.customers:,} customers, {events:,} events"
        f" in {seconds:.1f} s ({events / seconds:,.0f} a second)\n"
    )


def _date(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise argparse.ArgumentTypeError("expected a day as YYYY-MM-DD") from None
