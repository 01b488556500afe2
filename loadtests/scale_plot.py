"""A picture of what `modiste bench --only scale` wrote: where the time of one GET goes, at each size of the shop.

python -m loadtests.scale_plot loadtests/results/2026-11-29-scale.json loadtests/results/2026-11-29-scale.svg
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STAGES = {
    "sockets and HTTP, the client's too": "#9aa5b1",
    "routing and validation": "#c8ced6",
    "reading from Redis": "#d1495b",
    "LSTM step": "#edae49",
    "search and merge": "#00798c",
    "JSON": "#66a182",
}
"""Parts of a request, from the bottom up, and their colours."""
_NAME = "GET (style), one by one: {}"
_FLOOR = "floor of HTTP: an empty FastAPI endpoint, one by one"
_SCAN = "floor of search: every vector (float32) read once"


def draw(measured: Mapping[str, Any]) -> Figure:
    """One panel for catalogues, and one for customers: the parts of a `style` request, stacked, in milliseconds."""
    table: defaultdict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    sizes = [(size["articles"], size["customers"]) for size in measured["conditions"]["sizes"]]
    names = {f"{articles:,} articles, {customers:,} customers": (articles, customers) for articles, customers in sizes}
    for result in measured["results"]:
        size, _, name = result["name"].partition(": ")
        table[names[size]][name] = result["value"] / 1e3
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    ceiling = 1.2 * max(_whole(column) for column in table.values())
    for panel, varied, kept in ((panels[0], 0, 1), (panels[1], 1, 0)):
        of_panel = _most_varied(sizes, kept)
        _panel(panel, [table[size] for size in of_panel], [_short(size[varied]) for size in of_panel], ceiling)
        other = ("articles", "customers")
        panel.set_xlabel(f"{other[varied]} ({_short(of_panel[0][kept])} {other[kept]})")
    panels[0].set_ylabel("ms, one request at a time")
    panels[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, reverse=True)
    return figure


def _most_varied(sizes: list[tuple[int, int]], kept: int) -> list[tuple[int, int]]:
    """The most sizes that have the same at place ``kept``, ascending."""
    groups: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
    for size in sizes:
        groups[size[kept]].add(size)
    most: set[tuple[int, int]] = max(groups.values(), key=len)
    return sorted(most)


def _panel(panel: Any, columns: list[dict[str, float]], labels: list[str], ceiling: float) -> None:
    bottom = [0.0] * len(columns)
    for stage, colour in STAGES.items():
        heights = [column[_NAME.format(stage)] for column in columns]
        panel.bar(labels, heights, bottom=bottom, label=stage, color=colour, width=0.6)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    panel.plot(labels, [column[_FLOOR] for column in columns], "k_", markersize=14, label="an empty endpoint")
    scans = [column[_SCAN] for column in columns]
    panel.plot(labels, scans, "x", color="#00798c", label="all vectors read once")
    panel.set_ylim(0, ceiling)
    for label, scan in zip(labels, scans, strict=True):
        if scan > ceiling:
            panel.annotate(f"↑ {scan:.0f}", (label, 0.95 * ceiling), color="#00798c", fontsize=7, ha="center")
    panel.spines[["top", "right"]].set_visible(False)


def _whole(column: Mapping[str, float]) -> float:
    """All stages together."""
    return sum(column[_NAME.format(stage)] for stage in STAGES)


def _short(count: int) -> str:
    return f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1_000}k" if count >= 1_000 else str(count)


def main() -> None:
    """Draw the first file into the second."""
    source, target = map(Path, sys.argv[1:])
    matplotlib.rcParams.update({"svg.hashsalt": "modiste", "svg.fonttype": "none"})  # small, and the same each time
    draw(json.loads(source.read_text(encoding="utf-8"))).savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
