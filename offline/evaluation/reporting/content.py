"""What a report says, out of report.json alone: every figure in it is one of those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from offline.evaluation.rankings import BLENDED
from offline.evaluation.reporting import grids, plots
from offline.evaluation.reporting.costs import cost_section
from offline.evaluation.reporting.document import (
    Block,
    Bullets,
    Document,
    Facts,
    Folded,
    Paragraph,
    Section,
    Span,
    Text,
    Tiles,
    blocks_of,
    code,
    marked,
    plain,
)
from offline.evaluation.reporting.grids import CHIEF, Json
from offline.evaluation.rules import CALIBRATION, FIRST_TEN, LEARNING, SLICED, rules
from offline.evaluation.tables import AGE, HISTORY, POPULARITY, SLICES

_WHAT = {"by_time": "window", "last_order": "last orders", "last_purchase": "last purchases"}
_PROTOCOL = {
    "by_time": "by time: what is bought in a window after training (Zalando 2017, §3)",
    "last_order": "each customer's last order, left out of training (Amazon 2024, §5.1, for orders)",
    "last_purchase": "each customer's last purchase, left out of training",
}
_DRAWN = ("next_order", "first_time")
"""Tables that have bars, beside the headline."""
_ORDER = ("all", "known", "next_order", "first_time", "recent", "new", "new_only")
_BOLD = "In **bold**: the best of a column, where its difference to the next best leaves out zero."
_PLOTTED = {HISTORY: "earlier purchases", AGE: "age of the article", POPULARITY: "popularity decile"}


def document_of(report: Json) -> Document:
    """The whole report, from what ``offline.evaluation.report.as_json`` gives."""
    name = report["data_set"]["name"]
    return Document(f"{name}: backtest of the run “{report['run']}”", _lead(report), list(_sections(report)))


def _sections(report: Json) -> Iterator[Section]:
    yield _data_set(report)
    yield _asked(report)
    yield from _tables(report)
    yield from _slices(report)
    yield _first_ten(report)
    if report["calibration"]:
        yield from _calibration(report)
    if report["learning"]:
        yield Section("Training", [Paragraph(marked(LEARNING)), plots.learning(report["learning"])])
    yield Section("Configuration", [Facts(_flat(report["config"]), short=True)])
    yield cost_section(report)
    yield _how_made(report)
    yield Section("How it was measured", blocks_of(rules(report["protocol"])))


def _lead(report: Json) -> list[Block]:
    table = report["tables"][report["headline"]]
    best = BLENDED if BLENDED in table["models"] else next(reversed(table["models"]))
    tiles = [(f"{best}: {title}", grids.figure(name, table["models"][best][name])) for name, title in CHIEF.items()]
    blocks: list[Block] = [
        Tiles(tiles),
        Paragraph(plain(f"{table['title']}. Brackets: 95% intervals.")),
        Bullets([_lead_line(table, name, title) for name, title in CHIEF.items() if name in table["leads"]]),
    ]
    return [*blocks, *([Paragraph(_caution(report), caution=True)] if report["stock_tells_sales"] else [])]


def _lead_line(table: Json, name: str, title: str) -> Text:
    """Which model is best by a figure, and by how many points."""
    lead = table["leads"][name]
    first, second = (grids.figure(name, table["models"][model][name]) for model in (lead["model"], lead["next"]))
    ahead = grids.difference(name, lead, table["customers"])
    return (
        Span(f"{title}: "),
        Span(lead["model"], strong=True),
        Span(f" {first.text} {first.interval}, next {lead['next']} {second.text} {second.interval}, ahead by "),
        Span(f"{ahead.text} {ahead.interval}".strip(), strong=ahead.strong),
        Span(" points"),
    )


def _caution(report: Json) -> Text:
    bought, new = (_total(report, name) for name in ("new_candidates_bought", "new_candidates"))
    return marked(
        f"**Caution.** {bought:,} of the {new:,} candidates never sold before the window were bought in it: this data "
        "set's stock is known from its sales. In tables that rank new articles among all others, “never sold” tells "
        "the answer. Fair are those of known articles, of recent articles, and of new articles among themselves."
    )


def _total(report: Json, name: str) -> int:
    return sum(window[name] or 0 for window in report["windows"])


def _data_set(report: Json) -> Section:
    about = report["data_set"]
    facts = Facts(
        [
            ("name", plain(f"{about['name']}{' (simulated)' if about['synthetic'] else ''}")),
            ("articles", plain(f"{about['articles']:,}")),
            ("stock", plain(about["stock"] or "as the availability table says")),
            ("fingerprint", code(about["fingerprint"][:12])),
        ]
    )
    description = blocks_of(about["description"])
    return Section("The data set", [facts, *([Folded("What these data are", description)] if description else [])])


def _asked(report: Json) -> Section:
    windows, span = report["windows"], report["window"]
    pooled = f", {len(windows)} of {report['window_days']} days each, pooled" if len(windows) > 1 else ""
    rows = [
        ("protocol", plain(_PROTOCOL[report["protocol"]])),
        (
            _WHAT[report["protocol"]] + ("s" if len(windows) > 1 else ""),
            plain(f"{_time(span['start'])} to {_time(span['until'])}{pooled}"),
        ),
        ("end of training", plain(_time(report["cutoff"]))),
        ("customers", plain(_customers(report))),
        ("purchases", plain(_purchases(report))),
        ("candidates", plain(_candidates(report))),
        *(("baseline", plain(_baseline(one))) for one in report["baselines"]),
        *(("baseline left out", plain(line)) for line in report["baselines_left_out"]),
    ]
    return Section("What was asked", [Facts(rows)])


def _baseline(one: Json) -> str:
    settings = ", ".join(f"{name} {value:g}" for name, value in one["settings"].items())
    stages = ", ".join(f"{epochs} of {stage}" for stage, epochs in one["stages"].items())
    epochs = f"{one['epochs']} epochs" + (f" ({stages})" if len(one["stages"]) > 1 else "")
    return (
        f"{one['model']} ({one['library']}): {settings}, {epochs}, best of {len(one['grid'])} settings; "
        f"{one['seconds']:.0f} s of a budget of {one['budget']:g} minutes, seed {one['seed']}"
    )


def _time(text: str) -> str:
    """2026-01-31T12:00:00Z → 2026-01-31 12:00 UTC."""
    return f"{text[:10]} {text[11:16]} UTC"


def _customers(report: Json) -> str:
    asked, customers = _total(report, "customers"), report["customers"]
    generated = [window["customers_with_generation"] for window in report["windows"]]
    return (
        f"{customers:,}"
        + (f", asked for {asked:,} times" if asked > customers else "")
        + f"; {_total(report, 'customers_without_history'):,} without an earlier purchase, "
        + f"{_total(report, 'customers_unknown_to_static'):,} unknown to the static model"
        + ("" if None in generated else f"; something was generated for {sum(generated):,}")
    )


def _purchases(report: Json) -> str:
    return (
        f"{report['purchases']:,} pairs of customer and article; beyond them "
        f"{_total(report, 'repeated_purchases'):,} repeats and "
        f"{_total(report, 'purchases_out_of_stock'):,} of articles that were not in stock"
    )


def _candidates(report: Json) -> str:
    most = max(report["windows"], key=lambda window: window["candidates"])
    several = "at most " if len(report["windows"]) > 1 else ""
    return f"{several}{most['candidates']:,} articles, {most['new_candidates']:,} of them never sold before"


def _tables(report: Json) -> Iterator[Section]:
    """The headline first, then the others by what they ask."""
    chief = report["headline"]
    known = {name: place for place, name in enumerate((chief, *_ORDER))}
    names = [name for name, table in report["tables"].items() if "slice" not in table]
    for name in sorted(names, key=lambda name: known.get(name, len(known))):
        table = report["tables"][name]
        size = (
            f"{table['purchases']:,} purchases of {table['customers']:,} customers, {table['candidates']:,} candidates."
        )
        blocks: list[Block] = [Paragraph(plain(f"{size} Brackets: 95% intervals."))]
        if name == chief:
            blocks.append(Paragraph(marked(_BOLD)))
        if name == chief or name in _DRAWN:
            blocks.append(plots.bars(f"bars-{name.replace('_', '-')}", table))
        leading = grids.leading_grids(table)
        blocks.append(grids.main_grid(table, report["parameters"]))
        blocks += leading if name == chief else [Folded("Recall and NDCG within the first ranks", leading)]
        if table["differences"]:
            blocks.append(grids.difference_grid(table))
        if name == chief:
            blocks.append(plots.roc(table, report["roc"]))
        yield Section(table["title"], blocks)


def _slices(report: Json) -> Iterator[Section]:
    looks = plots.lines_of(report["tables"][report["headline"]])
    for kind, title in SLICES.items():
        groups = [table for table in report["tables"].values() if table.get("slice") == kind]
        if not groups:
            continue
        first, *others = (grids.slice_grid(groups, figure) for figure in CHIEF)
        whole = [group for group in groups if group["label"] != "1 or more"]
        yield Section(
            f"By {title}",
            [
                Paragraph(marked(SLICED[kind])),
                plots.slices(f"by-{kind}", _PLOTTED[kind], whole, looks),
                first,
                Folded("Recall@10, NDCG@10 and MRR of all models", others),
            ],
        )


def _first_ten(report: Json) -> Section:
    picture = plots.first_ten_bars(report["first_ten"], ())
    words = [Paragraph(marked(part)) for part in FIRST_TEN.strip().split("\n\n")]
    return Section("What is shown first", [*words, picture, grids.first_ten_grid(report["first_ten"])])


def _calibration(report: Json) -> Iterator[Section]:
    found = report["calibration"]
    words: list[Block] = [Paragraph(marked(part)) for part in CALIBRATION.strip().split("\n\n")]
    yield Section("Probabilities of the static model", [*words, plots.calibration(found)])
    for one in found.values():
        ratio = one["ratio"]
        size = (
            f"{one['bought']:,} of {one['pairs']:,} pairs of {one['customers']:,} customers and {one['articles']:,} "
            f"articles were bought: {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] times the sum of "
            "all probabilities."
        )
        yield Section(
            one["title"], [Paragraph(plain(size)), Folded("Tenth by tenth", [grids.calibration_grid(one)])], level=3
        )


def _how_made(report: Json) -> Section:
    machine, config = report["hardware"], report["config"]
    rows = [
        ("seeds", f"training {config['seed']}, bootstrap {report['seed']} ({report['bootstrap']:,} resamples)"),
        ("processor", f"{machine['processor']}; {machine['cores']} cores, {machine['memory_gib']} GiB"),
        ("system", machine["system"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)),
        ("run", f"{report['digest'][:12]}"),
    ]
    return Section("How it was made", [Facts([(name, plain(text)) for name, text in rows])])


def _flat(config: Json, prefix: str = "") -> list[tuple[str, Text]]:
    """Every setting by its full name."""
    rows: list[tuple[str, Text]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, plain(_setting(value)))]
    return rows


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return (
        {None: "not set", "": "not set", True: "yes", False: "no"}.get(value, str(value))
        if not _number(value)
        else f"{value:g}"
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
