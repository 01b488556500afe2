"""What training and evaluation took, out of report.json: time, memory, throughput."""

from __future__ import annotations

from offline.evaluation.reporting.document import Block, Cell, Facts, Folded, Grid, Paragraph, Section, plain
from offline.evaluation.reporting.grids import NONE, Json

_STAGES = (
    "Each stage of training: the seconds for which it was at work, those before it was stopped and continued included, "
    "and the most memory that its process had held by its end. Stages may have been trained side by side. What was "
    "trained before stays as it was measured then."
)


def cost_section(report: Json) -> Section:
    """Time and memory, with a table of training where its stages were timed."""
    cost, blocks = report["cost"], list[Block]()
    blocks.append(Facts([(name, plain(text)) for name, text in _facts(report, cost)]))
    if report["training"]:
        blocks += [Paragraph(plain(_STAGES)), _stages(report["training"])]
    return Section("Time and memory", [*blocks, Folded("The evaluation, part by part", _parts(cost))])


def summary(report: Json) -> str:
    """Throughput and memory in one line."""
    cost = report["cost"]
    return f"ranked {_throughput(cost)}; {report['seconds']:,.0f} s in all, {_memory(cost['peak_memory_mib'])}"


def _facts(report: Json, cost: Json) -> list[tuple[str, str]]:
    rows = [
        ("evaluation took", f"{report['seconds']:,.0f} s, {_memory(cost['peak_memory_mib'])}"),
        ("throughput", _throughput(cost)),
    ]
    if report["training"]:
        total = sum(one["seconds"] for one in report["training"].values())
        rows.append(("training took", f"{_seconds(total)} s, all stages together"))
    return rows


def _throughput(cost: Json) -> str:
    return (
        f"{cost['customers_per_second']:,.1f} customers a second by all {len(cost['ranking'])} models, "
        f"{cost['scores_per_second']:,.0f} scores a second"
    )


def _memory(mib: int | None) -> str:
    return "memory unknown" if mib is None else f"at most {mib:,} MiB of memory"


def _stages(training: Json) -> Grid:
    rows = [
        [Cell(name), Cell(_seconds(one["seconds"])), Cell(_or_none(one["peak_memory_mib"]))]
        for name, one in training.items()
    ]
    return Grid(["stage", "seconds", "memory, MiB"], rows)


def _parts(cost: Json) -> list[Block]:
    parts = [[Cell(name), Cell(_seconds(taken))] for name, taken in cost["parts"].items()]
    models = [
        [Cell(model), Cell(_seconds(taken)), Cell(f"{cost['scores'] / max(taken, 1e-9):,.0f}")]
        for model, taken in cost["ranking"].items()
    ]
    return [Grid(["part", "seconds"], parts), Grid(["ranking by", "seconds", "scores a second"], models)]


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f}" if seconds < 100 else f"{seconds:,.0f}"


def _or_none(number: int | None) -> str:
    return NONE if number is None else f"{number:,}"
