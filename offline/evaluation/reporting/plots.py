"""The pictures of a report, each of panels as wide as a phone. Colours of Okabe and Ito, told apart with any vision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from offline.evaluation.rankings import BLENDED, BY_SALES, DYNAMIC, GENERATED, STATIC
from offline.evaluation.reporting.document import Panel, Picture, Text
from offline.evaluation.reporting.grids import CHIEF, ENOUGH, Json, baselines, in_order
from offline.evaluation.reporting.svg import (
    CHANCE,
    GRID,
    INK,
    Drawing,
    Look,
    Point,
    Scale,
    cut,
    decades,
    linear,
    logarithmic,
    ticks,
    wrapped,
)

LOOKS = {
    BLENDED: Look("#009E73"),
    DYNAMIC: Look("#0072B2", "7 2"),
    STATIC: Look("#D55E00", "5 2 1.5 2"),
    GENERATED: Look("#CC79A7", "3 2"),
    BY_SALES: Look("#555555", "1.5 2"),
}
_BEST_BASELINE, _OTHER = Look("#E69F00", "9 2 2 2"), Look("#c8c8c8", width=1.0)
_BASELINE_BAR = "#8c8c8c"
_THIN, _AXIS, _RULE = Look(INK, width=1.2), Look("#777777", width=1.0), Look(GRID, width=1.0)
_DIAGONAL = Look(CHANCE, "2 3", 1.0)
WIDTH = 360.0


class Frame(NamedTuple):
    """Where a panel's curves are: from ``left``, ``top`` to ``right``, ``bottom``."""

    left: float
    top: float
    right: float
    bottom: float


def lines_of(table: Json) -> dict[str, Look]:
    """The models that are drawn as lines: ours, popularity, and whichever other baseline has the best AUC here."""
    models = in_order(table["models"])
    others = [model for model in baselines(models) if model != BY_SALES]
    best = max(others, key=lambda model: table["models"][model]["auc"]["value"] or 0.0, default=None)
    looks = LOOKS | ({best: _BEST_BASELINE} if best else {})
    return {model: looks[model] for model in models if model in looks}


def bars(name: str, table: Json, caption: Text = ()) -> Picture:
    """Bars of the chief figures of all models, with intervals; of AUC from chance, 50%."""
    models = in_order(table["models"])
    panels = [
        _bar_panel(
            title,
            [(model, _percent(table["models"][model][figure])) for model in models],
            base=50.0 if figure == "auc" else 0.0,
        )
        for figure, title in CHIEF.items()
    ]
    return Picture(name, panels, caption)


def first_ten_bars(first_ten: Json, caption: Text) -> Picture:
    """What is shown first: a panel for each figure."""
    models = in_order(first_ten)
    whole = {"coverage": ("Coverage %", 100.0), "gini": ("Gini index", 1.0)}
    panels = [
        _bar_panel(title, [(model, (scale * first_ten[model][name],) * 3) for model in models])
        for name, (title, scale) in whole.items()
    ]
    panels += [
        _bar_panel(title, [(model, _parts(first_ten[model][name])) for model in models])
        for name, title in (("novelty", "Novelty, bits"), ("diversity", "Diversity within the ten"))
    ]
    return Picture("first-ten", panels, caption)


Parts = tuple[float, float, float]
"""Value, low, high."""


def _parts(estimate: Json, scale: float = 1.0) -> Parts | None:
    if estimate["value"] is None:
        return None
    value, low, high = (scale * estimate[part] for part in ("value", "low", "high"))
    return value, low, high


def _percent(estimate: Json) -> Parts | None:
    return _parts(estimate, 100.0)


def _bar_panel(title: str, rows: Sequence[tuple[str, Parts | None]], base: float = 0.0) -> Panel:
    """One bar for each row, from ``base`` on, which may be in the middle."""
    drawing = Drawing(WIDTH, 44 + 19 * len(rows))
    ends = [base, *(part for _, parts in rows if parts for part in parts)]
    low, high = min(ends), max(ends)
    left, right = 128.0, WIDTH - 52
    scale = linear(low, high, left, right)
    bottom = drawing.height - 18
    drawing.words((0, 14), title, colour=INK, size=13, bold=True)
    for tick in ticks(low, high, 5):
        drawing.line((scale(tick), 24), (scale(tick), bottom), _RULE)
        drawing.words((scale(tick), bottom + 13), _number(tick), size=10, anchor="middle")
    for index, (label, parts) in enumerate(rows):
        y = 27.0 + 19 * index
        colour = LOOKS[label].colour if label in LOOKS and label != BY_SALES else _BASELINE_BAR
        drawing.words((left - 6, y + 11), cut(label, 21), colour=INK, anchor="end")
        if parts is None:
            drawing.words((scale(base) + 4, y + 11), "–")
            continue
        value, under, over = parts
        start, end = sorted((scale(base), scale(value)))
        drawing.bar((start, y + 1), (max(end - start, 0.5), 13), colour)
        if over > under:
            _whisker(drawing, (scale(under), y + 7.5), (scale(over), y + 7.5), _THIN)
        drawing.words((WIDTH, y + 11), _written(value), colour=INK, anchor="end")
    drawing.line((scale(base), 24), (scale(base), bottom), _AXIS)
    told = ", ".join(f"{label} {_written(parts[0])}" for label, parts in rows if parts)
    return Panel(title, drawing.svg(f"{title}: {told}"))


def _whisker(drawing: Drawing, start: Point, end: Point, look: Look) -> None:
    """An interval, level or upright, with ends."""
    x, y = (2.5, 0.0) if start[0] == end[0] else (0.0, 2.5)
    drawing.line(start, end, look)
    for at in (start, end):
        drawing.line((at[0] - x, at[1] - y), (at[0] + x, at[1] + y), look)


def roc(table: Json, curves: Json) -> Picture:
    """Share of the purchases found over share of the candidates recommended, as it is and where both are small."""
    looks, size = lines_of(table), table["candidates"]
    share = curves["share"]
    points = {model: list(zip(share, curves["found"][model], strict=True)) for model in in_order(curves["found"])}
    frame = Frame(40, 26, WIDTH - 18, 330)
    whole = Drawing(WIDTH, 364)
    _axes(whole, frame, linear(0, 1, frame.left, frame.right), linear(0, 1, frame.bottom, frame.top), _FIFTHS, _FIFTHS)
    lowest = min(found for curve in points.values() for _, found in curve if found > 0)
    low = (1 / size, max(lowest / 1.3, 1 / size))
    first = Drawing(WIDTH, 364)
    x, y = logarithmic(low[0], 1, frame.left, frame.right), logarithmic(low[1], 1, frame.bottom, frame.top)
    _axes(first, frame, x, y, decades(low[0], 1), decades(low[1], 1))
    if 10 / size < 1:
        first.line((x(10 / size), frame.top), (x(10 / size), frame.bottom), _DIAGONAL)
        first.words((x(10 / size) + 4, frame.bottom - 6), "10 articles", size=10)
    for drawing, scales in ((whole, _unit_scales(frame)), (first, (x, y))):
        _chance(drawing, scales, low[0] if drawing is first else 0.0, low[1] if drawing is first else 0.0)
        for model in sorted(points, key=lambda model: model in looks):  # what is grey lies below
            drawn = [point for point in points[model] if drawing is whole or point[1] >= low[1]]
            drawing.path([(scales[0](a), scales[1](b)) for a, b in drawn], looks.get(model, _OTHER))
        drawing.words((frame.right, frame.bottom + 30), "share of the candidates recommended", size=10, anchor="end")
    whole.words((0, 14), "Share of the purchases found", colour=INK, size=13, bold=True)
    first.words((0, 14), "The first ranks (log-log)", colour=INK, size=13, bold=True)
    titles = ("ROC: share of the purchases found", "The same, log-log")
    return Picture(
        "roc", [*(Panel(t, d.svg(t)) for t, d in zip(titles, (whole, first), strict=True)), legend(looks, points)]
    )


_FIFTHS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def _unit_scales(frame: Frame) -> tuple[Scale, Scale]:
    return linear(0, 1, frame.left, frame.right), linear(0, 1, frame.bottom, frame.top)


def _chance(drawing: Drawing, scales: tuple[Scale, Scale], left: float, bottom: float) -> None:
    start = max(left, bottom)
    drawing.line((scales[0](start), scales[1](start)), (scales[0](1), scales[1](1)), _DIAGONAL)


def _axes(drawing: Drawing, frame: Frame, x: Scale, y: Scale, across: Iterable[float], upward: Iterable[float]) -> None:
    """Grid lines with their numbers, in percent."""
    for tick in across:
        drawing.line((x(tick), frame.top), (x(tick), frame.bottom), _RULE)
        drawing.words((x(tick), frame.bottom + 14), f"{_number(100 * tick)}%", size=10, anchor="middle")
    for tick in upward:
        drawing.line((frame.left, y(tick)), (frame.right, y(tick)), _RULE)
        drawing.words((frame.left - 4, y(tick) + 3.5), f"{_number(100 * tick)}%", size=10, anchor="end")


def legend(looks: Mapping[str, Look], drawn: Iterable[str]) -> Panel:
    """What each line is; one grey line for all that have no look of their own."""
    rows = [*looks.items()]
    if any(model not in looks for model in drawn):
        rows.append(("all others", _OTHER))
    drawing = Drawing(WIDTH, 6 + 18 * ((len(rows) + 1) // 2))
    for index, (model, look) in enumerate(rows):
        x, y = (index % 2) * WIDTH / 2, 12.0 + 18 * (index // 2)
        drawing.line((x, y - 4), (x + 28, y - 4), look)
        drawing.words((x + 34, y), cut(model, 24), colour=INK)
    return Panel("Legend", drawing.svg("Legend: " + ", ".join(model for model, _ in rows)))


def slices(name: str, title: str, groups: Sequence[Json], looks: Mapping[str, Look]) -> Picture:
    """The chief figures by group, for the models that have a look."""
    panels = [_slice_panel(f"{words} by {title}", groups, figure, looks) for figure, words in CHIEF.items()]
    return Picture(name, [*panels, legend(looks, looks)])


def _slice_panel(title: str, groups: Sequence[Json], figure: str, looks: Mapping[str, Look]) -> Panel:
    found = {
        model: [_percent(group["models"][model][figure]) if group["customers"] >= ENOUGH else None for group in groups]
        for model in looks
    }
    ends = [part for parts in found.values() for one in parts if one for part in one]
    low, high = _roomy(min(ends, default=0.0), max(ends, default=1.0))
    heading = wrapped(title, 50)
    top = 14.0 + 15 * len(heading)
    labels = [wrapped(group["label"], 52 // max(len(groups), 1)) for group in groups]
    drawing = Drawing(WIDTH, top + 190 + 12 * max(map(len, labels)))
    frame = Frame(36, top, WIDTH - 6, top + 176)
    step = (frame.right - frame.left) / len(groups)
    y = linear(low, high, frame.bottom, frame.top)
    for index, line in enumerate(heading):
        drawing.words((0, 14 + 15 * index), line, colour=INK, size=13, bold=True)
    for tick in ticks(low, high, 5):
        drawing.line((frame.left, y(tick)), (frame.right, y(tick)), _RULE)
        drawing.words((frame.left - 4, y(tick) + 3.5), _number(tick), size=10, anchor="end")
    for index, label in enumerate(labels):
        for row, line in enumerate(label):
            at = (frame.left + (index + 0.5) * step, frame.bottom + 15 + 12 * row)
            drawing.words(at, line, size=10, anchor="middle")
    for place, (model, look) in enumerate(looks.items()):
        shift = (place - (len(looks) - 1) / 2) * min(5.0, 0.7 * step / len(looks))
        xs = [frame.left + (index + 0.5) * step + shift for index in range(len(groups))]
        drawn = [(x, one) for x, one in zip(xs, found[model], strict=True) if one]
        drawing.path([(x, y(one[0])) for x, one in drawn], look)
        for x, (value, under, over) in drawn:
            _whisker(drawing, (x, y(under)), (x, y(over)), Look(look.colour, width=1.0))
            drawing.dot((x, y(value)), look.colour, radius=3 if len(groups) < 8 else 2)
    return Panel(title, drawing.svg(title))


def _roomy(low: float, high: float) -> tuple[float, float]:
    """Ends that leave some room, and do not cut a scale off that begins at 0 nearly."""
    room = 0.05 * (high - low) or 1.0
    return (0.0 if low < 0.3 * high else low - room), high + room


def calibration(found: Json) -> Picture:
    """Bought over predicted by tenths, log-log: training as it is, later purchases after one factor for all."""
    panels = []
    later = {name: one for name, one in found.items() if name != "training"}
    if "training" in found:
        panels.append(_reliability("Training: as predicted", {"training": found["training"]}, scaled=False))
    if later:
        panels.append(_reliability("Later purchases: times one factor", later, scaled=True))
    return Picture("calibration", panels)


_SMALLEST = 1e-8  # of what is predicted most: smaller shares stand at the edge
_OF_PAIRS = {"training": Look("#555555"), "validation": Look("#0072B2", "6 2"), "evaluated": Look("#009E73")}


def _reliability(title: str, found: Mapping[str, Json], *, scaled: bool) -> Panel:
    series = {
        name: [
            (tenth["predicted"] * (one["ratio"]["value"] if scaled else 1.0), _parts(tenth["observed"]) or (0.0,) * 3)
            for tenth in one["tenths"]
        ]
        for name, one in found.items()
    }
    positive = [value for points in series.values() for at, observed in points for value in (at, *observed) if value]
    high = max(positive) * 1.6
    low = max(min(positive) / 1.6, high * _SMALLEST)
    frame = Frame(54, 26, WIDTH - 18, 310)
    x, y = logarithmic(low, high, frame.left, frame.right), logarithmic(low, high, frame.bottom, frame.top)
    drawing = Drawing(WIDTH, 344 + 16 * len(series))
    marks = decades(low, high)
    few = marks[:: 1 + len(marks) // 6]
    _axes(drawing, frame, x, y, few, few)
    drawing.line((x(low), y(low)), (x(high), y(high)), _DIAGONAL)
    drawing.words((0, 14), f"{title}, share bought", colour=INK, size=13, bold=True)
    drawing.words(
        (frame.right, frame.bottom + 29), f"predicted{', times the factor' if scaled else ''}", size=10, anchor="end"
    )
    for row, (name, points) in enumerate(series.items()):
        look, at_least = _OF_PAIRS[name], partial(max, low)
        drawing.path(
            [(x(at_least(at)), y(at_least(one[0]))) for at, one in points if one[0]],
            Look(look.colour, look.dashes, 1.4),
        )
        for at, (value, under, over) in points:
            if over:
                ends = [(x(at_least(at)), y(at_least(end))) for end in (under, over)]
                _whisker(drawing, ends[0], ends[1], Look(look.colour, width=1.0))
            drawing.dot((x(at_least(at)), y(at_least(value))), look.colour, hollow=not value)
        at_y = frame.bottom + 46 + 16 * row
        drawing.line((frame.left, at_y - 4), (frame.left + 28, at_y - 4), look)
        factor = f", factor {found[name]['ratio']['value']:.3g}" if scaled else ""
        drawing.words((frame.left + 34, at_y), f"{found[name]['title']}{factor}", colour=INK)
    return Panel(title, drawing.svg(f"{title}: {', '.join(found[name]['title'] for name in series)}"))


_WEIGHTS = ("popularity", "trend", "best_sellers", "bought_before", "generated")
"""Of the blend, as ``offline.blend`` fits them."""
_NO_CURVE = {"epoch", "lr", "stage", *_WEIGHTS}
"""What a record of training tells beside its figures."""


def learning(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Picture:
    """Each stage's figures, record by record: a panel for each stage."""
    return Picture("learning", [_learning_panel(stage, records) for stage, records in curves.items()])


def _learning_panel(stage: str, records: Sequence[Mapping[str, float]]) -> Panel:
    names = [name for name in dict.fromkeys(key for record in records for key in record) if name not in _NO_CURVE]
    height = 78.0
    drawing = Drawing(WIDTH, 40 + height * len(names))
    drawing.words((0, 14), stage, colour=INK, size=13, bold=True)
    looks = [Look(colour) for colour in ("#0072B2", "#D55E00", "#009E73", "#CC79A7")]
    last = max(len(records), 2)
    x = linear(1, last, 96, WIDTH - 10)
    for row, name in enumerate(names):
        values = [(index, record[name]) for index, record in enumerate(records, 1) if name in record]
        top = 26 + height * row
        low, high = min(value for _, value in values), max(value for _, value in values)
        y = linear(low, high, top + height - 16, top + 6)
        for level in dict.fromkeys((low, high)):
            drawing.line((96, y(level)), (WIDTH - 10, y(level)), _RULE)
            drawing.words((90, y(level) + 3.5), f"{level:.4g}".replace("-", "−"), size=10, anchor="end")
        drawing.words((0, top + height / 2), name.replace("_", " "), colour=INK)
        look = looks[row % len(looks)]
        for _, part in groupby(values, key=lambda point: _searched(records[point[0] - 1])):
            drawing.path([(x(index), y(value)) for index, value in part], look)
        for index, value in values:
            drawing.dot((x(index), y(value)), look.colour)
    for tick in [tick for tick in ticks(1, last, 6) if tick == int(tick)] if len(records) > 1 else [1]:
        drawing.words((x(tick), drawing.height - 4), f"{tick:.0f}", size=10, anchor="middle")
    drawing.words((0, drawing.height - 4), _counted(records), size=10)
    return Panel(f"Training of {stage}", drawing.svg(f"Training of {stage}: {', '.join(names)} by step"))


def _searched(record: Mapping[str, float]) -> str:
    """Which weight of the blend a record has tried, where it is one of those: a line ends with each search."""
    return next((name for name in _WEIGHTS if name in record), "")


def _counted(records: Sequence[Mapping[str, float]]) -> str:
    """What the records are."""
    one_each = all(record.get("epoch") == index for index, record in enumerate(records, 1))
    return "epoch" if one_each else "record"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _written(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
