"""report.json's figures as cells and grids: how numbers are written, in which order models stand, what is bold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offline.evaluation.metrics import LEADING
from offline.evaluation.rankings import BLENDED, DYNAMIC, GENERATED, STATIC
from offline.evaluation.reporting.document import Cell, Grid

Json = dict[str, Any]
NONE = "–"
CHIEF = {"auc": "AUC %", "recall_10": "Recall@10 %", "ndcg_10": "NDCG@10 %", "mrr": "MRR %"}
"""The figures that are drawn and compared, and their names."""
ENOUGH = 10
"""Customers from whom on an interval means something: of fewer, nothing is bold and no slice is drawn."""
_MAIN = {"auc": "AUC %", "cover_10": "for 10%", "cover_50": "for 50%", "cover_90": "for 90%", "mrr": "MRR %"}
_LEADING = [
    {f"{figure}_{n}": f"{name}@{n} %" for n in LEADING} for figure, name in (("recall", "Recall"), ("ndcg", "NDCG"))
]
_SINGLE = (STATIC, DYNAMIC, GENERATED)


def in_order(models: Iterable[str]) -> list[str]:
    """Baselines as they come, then single models, then the blend."""
    place = {model: index for index, model in enumerate((*_SINGLE, BLENDED), 1)}
    return sorted(models, key=lambda model: place.get(model, 0))


def baselines(models: Iterable[str]) -> list[str]:
    """Those that are neither a model of ours nor the blend."""
    return [model for model in models if model not in (*_SINGLE, BLENDED)]


def main_grid(table: Json, parameters: Mapping[str, int | None]) -> Grid:
    """The paper's Table 1: AUC, recommendations needed, and weights."""
    rows = [
        [*row, Cell(NONE if parameters[row[0].text] is None else f"{parameters[row[0].text]:,}")]
        for row in _rows(table, _MAIN)
    ]
    return Grid(["model", *_MAIN.values(), "parameters"], rows)


def chief_grid(table: Json) -> Grid:
    """The chief figures of all rows, in the table's own order."""
    rows = [[Cell(model), *(_figure(table, model, name) for name in CHIEF)] for model in table["models"]]
    return Grid(["variant", *CHIEF.values()], rows)


def leading_grids(table: Json) -> list[Grid]:
    """Recall, and NDCG, within several first ranks."""
    return [Grid(["model", *names.values()], list(_rows(table, names))) for names in _LEADING]


def difference_grid(table: Json) -> Grid:
    """Differences in percentage points, bold where the interval, as printed, leaves out zero."""
    rows = [
        [Cell(pair.replace(" - ", " − ")), *(difference(name, figures[name], table["customers"]) for name in CHIEF)]
        for pair, figures in table["differences"].items()
    ]
    return Grid(["difference in points", *(name.removesuffix(" %") for name in CHIEF.values())], rows)


def slice_grid(groups: Sequence[Json], name: str) -> Grid:
    """One figure of all models by group."""
    sizes = [Cell("purchases"), *(Cell(f"{group['purchases']:,}") for group in groups)]
    models = in_order(groups[0]["models"])
    rows = [[Cell(model), *(_figure(group, model, name) for group in groups)] for model in models]
    return Grid([CHIEF[name], *(group["label"] for group in groups)], [sizes, *rows])


def first_ten_grid(first_ten: Json) -> Grid:
    """What is shown first."""
    rows = [
        [
            Cell(model),
            Cell(f"{100 * first_ten[model]['coverage']:.1f}"),
            Cell(f"{first_ten[model]['gini']:.3f}"),
            *(_bracketed(first_ten[model][name], 1, 3) for name in ("novelty", "diversity")),
        ]
        for model in in_order(first_ten)
    ]
    return Grid(["model", "coverage %", "Gini index", "novelty, bits", "diversity"], rows)


def calibration_grid(calibration: Json) -> Grid:
    """Each tenth: what was predicted and what was observed, in percent."""
    rows = [
        [
            Cell(f"{number}"),
            Cell(f"{tenth['pairs']:,}"),
            Cell(share(tenth["predicted"])),
            _observed(tenth["observed"]),
        ]
        for number, tenth in enumerate(calibration["tenths"], 1)
    ]
    return Grid(["tenth", "pairs", "predicted %", "bought %"], rows)


def share(value: float) -> str:
    """A small share in percent, to three digits."""
    return f"{100 * value:.3g}" if 100 * value >= 1e-3 or not value else f"{100 * value:.1e}"


def _observed(figure: Json) -> Cell:
    return Cell(share(figure["value"]), f"[{share(figure['low'])}, {share(figure['high'])}]")


def _rows(table: Json, names: Iterable[str]) -> Iterable[list[Cell]]:
    for model in in_order(table["models"]):
        yield [Cell(model), *(_figure(table, model, name) for name in names)]


def _figure(table: Json, model: str, name: str) -> Cell:
    cell = figure(name, table["models"][model][name])
    return cell._replace(strong=leads(table, model, name))


def leads(table: Json, model: str, name: str) -> bool:
    """Whether a model is the best of its column, by a difference to the next that leaves out zero."""
    lead = table["leads"].get(name)
    enough = table["customers"] >= ENOUGH
    return enough and lead is not None and lead["model"] == model and lead["low"] is not None and lead["low"] > 0


def figure(name: str, estimate: Json) -> Cell:
    """One figure of a table with its interval: a number of recommendations, or percent."""
    if name.startswith("cover_"):
        return _bracketed(estimate, 1, 0)
    return _bracketed(estimate, 100, 3 if name == "mrr" else 2)


def _bracketed(estimate: Json, scale: float, digits: int) -> Cell:
    if estimate["value"] is None:
        return Cell(NONE)
    value, *ends = (f"{scale * estimate[part]:,.{digits}f}" for part in ("value", "low", "high"))
    return Cell(value, f"[{', '.join(ends)}]")


def difference(name: str, estimate: Json, customers: int) -> Cell:
    """A difference in percentage points; strong where its interval, as printed, leaves out zero."""
    if estimate["value"] is None:
        return Cell(NONE)
    digits = 3 if name == "mrr" else 2
    value, low, high = (round(100 * estimate[part], digits) + 0.0 for part in ("value", "low", "high"))  # no −0.00
    text, *ends = (f"{part:+.{digits}f}".replace("-", "−") for part in (value, low, high))
    return Cell(text, f"[{', '.join(ends)}]", customers >= ENOUGH and (low > 0 or high < 0))
