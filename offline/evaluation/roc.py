"""Figure 3 of Zalando 2017: the collective ROC R_j / R_z over j / z, with a log-log inset of its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from offline.evaluation.measure import TableResult
from offline.evaluation.metrics import Coverage, Float64
from offline.evaluation.rankings import BLENDED, BY_SALES, DYNAMIC, STATIC

# Colours of Okabe and Ito, told apart with any colour vision; dashes tell the lines apart in print.
_LOOKS: dict[str, dict[str, Any]] = {
    BLENDED: {"color": "#009E73", "linestyle": "-"},
    DYNAMIC: {"color": "#0072B2", "linestyle": (0, (6, 1.5))},
    STATIC: {"color": "#D55E00", "linestyle": (0, (3, 1.2, 1, 1.2))},
    BY_SALES: {"color": "#555555", "linestyle": (0, (1.2, 1.2))},
}
_POINTS = 4_000


def draw_roc(path: Path, one: TableResult, data_set: str) -> None:
    """Write the ROC of all models in one table as PNG."""
    figure = Figure(figsize=(7.6, 8.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    inset = axes.inset_axes((0.57, 0.075, 0.41, 0.36))
    share, curve_of = curves(one, [model for model in _LOOKS if model in one.models])
    for model, found in curve_of.items():
        auc = one.models[model]["auc"]
        label = f"{model}: AUC {100 * auc.value:.1f}% [{100 * auc.low:.1f}, {100 * auc.high:.1f}]"
        axes.plot(share, found, label=label, linewidth=2, **_LOOKS[model])
        inset.plot(share, found, linewidth=1.6, **_LOOKS[model])
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10, handlelength=3.2)
    _finish(axes, f"{data_set}: {one.table.title}\n{one.purchases:,} purchases, {one.candidates:,} candidates")
    _finish_inset(inset, one.candidates, min(found[found > 0].min() for found in curve_of.values()))
    figure.savefig(path, metadata={"Software": None})


def curves(one: TableResult, models: list[str], points: int = _POINTS) -> tuple[Float64, dict[str, Float64]]:
    """Both axes, j / z and by model R_j / R_z, on a grid that is fine at both scales, from j = 1 on: ≤ 2 ``points``."""
    z = one.candidates
    ranks = np.unique(np.concatenate([np.geomspace(1, z, points), np.linspace(1, z, points)]).round())
    found = {}
    for model in models:
        places = one.places(model)
        coverage = Coverage(places.above, places.tied)
        curve = coverage.curve(np.ones(len(places.above)))
        found[model] = np.interp(ranks, coverage.positions, curve) / curve[-1]
    return ranks / z, found


def _finish(axes: Any, title: str) -> None:
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1, zorder=0)
    axes.text(0.3, 0.275, "chance", color="#888888", fontsize=9, rotation=45, ha="center", va="center")
    axes.set(xlim=(0, 1), ylim=(0, 1.003), aspect="equal")
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("share of the articles recommended, $j\\,/\\,z$")
    axes.set_ylabel("share of the purchases found, $R_j\\,/\\,R_z$")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _finish_inset(inset: Any, candidates: int, lowest: float) -> None:
    inset.plot([1 / candidates, 1], [1 / candidates, 1], color="#BBBBBB", linewidth=1, zorder=0)
    inset.set(xscale="log", yscale="log", xlim=(1 / candidates, 1), ylim=(max(lowest / 1.5, 1 / candidates), 1.15))
    inset.set_title("the first ranks (log-log)", fontsize=9)
    inset.tick_params(labelsize=8)
    inset.grid(color="#EEEEEE", linewidth=0.6)
    if candidates > 10:
        inset.axvline(10 / candidates, color="#AAAAAA", linewidth=0.9, linestyle=":")
        inset.annotate(
            "10 articles",
            (10 / candidates, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7.5,
            color="#777777",
        )
