"""A study's outcome as study.json, and as a document: every figure in words or pictures is one of study.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model_store.dataset import DataSet
from model_store.machine import hardware, versions
from offline.evaluation.report import PACKAGES
from offline.evaluation.reporting import grids, plots
from offline.evaluation.reporting.document import (
    Block,
    Bullets,
    Document,
    Facts,
    Paragraph,
    Section,
    blocks_of,
    plain,
)
from offline.evaluation.reporting.grids import Json
from offline.evaluation.reporting.svg import Look
from offline.evaluation.rules import rules
from offline.studies.study import Outcome, Request, Study

FORMAT = 1
_ONCE = (
    "Each variant was trained once, with one seed: intervals say how much customers differ, not how much trainings do. "
    "All rows of a table see the same customers and the same resamples of them."
)
_LOOKS = (Look("#0072B2", "7 2"), Look("#D55E00", "5 2 1.5 2"), Look("#009E73"), Look("#CC79A7", "3 2"))


def as_json(study: Study, request: Request, outcome: Outcome, seconds: float) -> Json:
    """Everything, as plain values."""
    workshop, data = request.workshop, request.data
    return {
        "format": FORMAT,
        "study": study.name,
        "title": study.title,
        "paper": study.paper,
        "question": study.question,
        "finding": outcome.finding,
        "reference": outcome.reference,
        "notes": list(outcome.notes),
        "variants": dict(outcome.variants),
        "tables": list(outcome.tables),
        "lines": [
            {"table": one.table, "title": one.title, "points": [[label, dict(rows)] for label, rows in one.points]}
            for one in outcome.lines
        ],
        "data_set": _about(data),
        "protocol": workshop.config.split.hold_out,
        "config": workshop.config.model_dump(mode="json"),
        "seeds": {"training": workshop.config.seed, "bootstrap": request.sampling.seed, "study": request.seed},
        "bootstrap": request.sampling.samples,
        "seconds": round(seconds, 1),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
    }


def _about(data: DataSet) -> dict[str, Any]:
    return {
        "name": data.file.name,
        "synthetic": data.file.synthetic,
        "articles": len(data.article_ids),
        "fingerprint": data.fingerprint,
    }


def document_of(found: Json) -> Document:
    """The page, out of study.json alone."""
    about = found["data_set"]
    lead: list[Block] = [
        Paragraph(plain(found["finding"])),
        Paragraph(plain(f"{found['question']} ({found['paper']})")),
    ]
    return Document(f"{about['name']}: {found['title'].lower()}", lead, list(_sections(found)))


def _sections(found: Json) -> Iterator[Section]:
    for table in found["tables"]:
        size = (
            f"{table['purchases']:,} purchases of {table['customers']:,} customers, {table['candidates']:,} "
            "candidates. Brackets: 95% intervals. In bold: the best of a column, where its difference to the next best "
            "leaves out zero, and differences that leave it out."
        )
        name = table["name"].replace("_", "-")
        drawn = [_lines(one, table) for one in found["lines"] if one["table"] == table["name"]]
        blocks: list[Block] = [
            Paragraph(plain(size)),
            *(drawn or [plots.bars(f"bars-{name}", table)]),
            grids.chief_grid(table),
            grids.difference_grid(table),
        ]
        yield Section(table["title"], blocks)
    notes = [plain(note) for note in (*found["notes"], _ONCE)]
    yield Section("How it was made", [Facts(_facts(found)), Bullets(notes)])
    yield Section("How it was measured", blocks_of(rules(found["protocol"])))


def _lines(one: Json, table: Json) -> Block:
    """The chief figures over what a study varies."""
    names = list(one["points"][0][1])
    looks = dict(zip(names, _LOOKS, strict=False))
    groups = [
        {
            "label": label,
            "customers": table["customers"],
            "models": {line: table["models"][row] for line, row in rows.items()},
        }
        for label, rows in one["points"]
    ]
    return plots.slices(f"lines-{one['table'].replace('_', '-')}", one["title"], groups, looks)


def _facts(found: Json) -> list[tuple[str, Any]]:
    about, machine, seeds = found["data_set"], found["hardware"], found["seeds"]
    variants = "; ".join(f"{name}: {_setting(settings)}" for name, settings in found["variants"].items())
    rows = [
        ("data set", f"{about['name']}{' (simulated)' if about['synthetic'] else ''}, {about['articles']:,} articles"),
        ("protocol", found["protocol"]),
        ("compared with", found["reference"]),
        ("variants", variants),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())),
        ("bootstrap", f"{found['bootstrap']:,} resamples of the customers"),
        ("this call took", f"{found['seconds']:,.0f} s"),
        ("processor", f"{machine['processor']}; {machine['cores']} cores, {machine['memory_gib']} GiB"),
        ("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)),
    ]
    return [(name, plain(text)) for name, text in rows]


def _setting(settings: Any) -> str:
    if not isinstance(settings, dict):
        return str(settings)
    return ", ".join(f"{key} = {value}" for key, value in settings.items()) or "nothing changed"
