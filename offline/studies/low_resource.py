"""Trained on a share of the customers (Amazon 2024, §5.4, Figure 6).

Shares are nested and drawn by a seed. A share has all that its customers did, validation window included, and the
result lists of their queries; articles, titles and stock stay whole. Every variant is then asked the same: all
customers of the test, with all that is known of them and of sales at that moment. So it is training that is short of
customers, not the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_store.errors import TrainingError
from offline.evaluation.backtest import dynamic_ranking
from offline.evaluation.rankings import BY_SALES, popularity
from offline.evaluation.ranks import Ranking
from offline.evaluation.tables import fair_tiers
from offline.run import Run
from offline.studies import findings
from offline.studies.comparing import Json, Named, compare, table
from offline.studies.sequences import next_order, writings
from offline.studies.study import Lines, Outcome, Request, Study
from offline.studies.subsets import nested_customers, only_customers
from offline.studies.workshop import FULL

SHARES = (0.01, 0.05, 0.20, 0.50, 1.0)
STYLE, TEXT = "style", "generated"


def name_of(half: str, share: float) -> str:
    """What tables call a half of the model that was trained on a share."""
    return f"{half}, {share:.0%}"


def conduct(request: Request) -> Outcome:
    """Train on each share and ask all the same."""
    workshop, notes = request.workshop, list[str]()
    runs: dict[float, Run] = {}
    sizes = {}
    split = workshop.split()
    chosen = nested_customers(request.data, split.cutoff, SHARES, request.seed)
    for share, customers in zip(SHARES, chosen, strict=True):
        sizes[share] = len(customers)
        try:
            runs[share] = workshop.full() if share == 1 else _trained(request, share, customers)
        except TrainingError as error:
            if share == 1:
                raise
            notes.append(f"{share:.0%} of the customers ({len(customers):,}) is left out: {error}.")
            workshop.progress.say(notes[-1])
    full = runs[1.0]
    task, generating = request.task(full), workshop.config.generation.enabled
    style: list[Ranking] = [popularity(task)]
    style += [Named(name_of(STYLE, share), dynamic_ranking(task, request.data, run)) for share, run in runs.items()]
    halves, found = [STYLE], list[Json]()
    if generating:
        halves.append(TEXT)
        texts, n = writings(request, task), workshop.config.generation.mixup
        both = [*style, *(texts.ranking(run, name_of(TEXT, share), n) for share, run in runs.items())]
        found += compare(
            task, both, [next_order(task, texts)], _pairs(runs, halves), request.sampling, workshop.progress
        )
    tiers, among = fair_tiers(task.stock_tells_sales)
    everything = table("all", f"All purchases{among}", tiers, task, task.targets.candidate >= 0)
    found += compare(task, style, [everything], _pairs(runs, [STYLE]), request.sampling, workshop.progress)
    drawn = [
        Lines(
            one["name"],
            "share of the customers",
            [(f"{share:.0%}", {half: name_of(half, share) for half in rows}) for share in runs],
        )
        for one, rows in zip(found, (halves, [STYLE]) if generating else ([STYLE],), strict=True)
    ]
    notes.append(
        "Customers by share: "
        + ", ".join(f"{share:.0%} {sizes[share]:,}" for share in SHARES)
        + f"; seed {request.seed}."
    )
    names = {_folder(share): f"{share:.0%} of the customers" for share in runs}
    return Outcome(
        found,
        _finding(found[0], list(runs), halves),
        name_of(halves[-1], 1),
        names,
        drawn,
        notes,
    )


def _pairs(shares: Iterable[float], halves: Sequence[str]) -> list[tuple[str, str]]:
    """Each share against all customers and against popularity; both halves against each other."""
    pairs = [(name_of(half, share), name_of(half, 1)) for half in halves for share in shares if share != 1]
    pairs += [(name_of(half, share), BY_SALES) for half in halves for share in shares]
    return pairs + [(name_of(TEXT, share), name_of(STYLE, share)) for share in shares if TEXT in halves]


def _folder(share: float) -> str:
    return FULL if share == 1 else f"share-{round(100 * share)}"


def _trained(request: Request, share: float, customers: frozenset[str]) -> Run:
    out = request.parts / f"{_folder(share)}-seed-{request.seed}"
    part = only_customers(request.data, customers, out, f"{share:.0%} of the customers, seed {request.seed}")
    return request.workshop.run(_folder(share), request.workshop.same_cut(part), part)


def _finding(found: Json, shares: list[float], halves: list[str]) -> str:
    figure = "recall_10"
    parts = []
    for half in halves:
        values = ", ".join(f"{share:.0%} {findings.value(found, name_of(half, share), figure)}" for share in shares)
        behind = [
            share
            for share in shares
            if share != 1 and findings.told_apart(found, name_of(half, share), name_of(half, 1), figure) < 0
        ]
        first = next((share for share in shares if share > max(behind, default=0)), 1.0)
        enough = f"not behind 100% from {first:.0%} on" if first < 1 else "every share is behind 100%"
        parts.append(f"“{half}” {values}; {enough}")
    return f"Recall@10 by share of the customers: {'. '.join(parts)}."


STUDY = Study(
    "low-resource",
    "Few customers to learn from",
    "Amazon 2024, §5.4, Figure 6",
    "How many customers does each half need? In the paper text wins where data are few, and its lead grows with them.",
    conduct,
)
