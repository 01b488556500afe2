"""Trained on a share of the customers (Amazon 2024, §5.4, Figure 6).

Shares are nested and drawn by a seed. A share has all that its customers did, validation window included, and the
result lists of their queries; articles, titles and stock stay whole. Every variant is then asked the same: all
customers of the test, with all that is known of them and of sales at that moment. So it is training that is short of
customers, not the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    runs, notes = _runs(request)
    shares = list(runs)
    found = _measured(request, runs)
    halves = [[half for half in (STYLE, TEXT) if name_of(half, 1) in one["models"]] for one in found]
    drawn = [
        Lines(
            one["name"],
            "share of the customers",
            [(f"{share:.0%}", {half: name_of(half, share) for half in rows}) for share in shares],
        )
        for one, rows in zip(found, halves, strict=True)
    ]
    variants = {_folder(share): f"{share:.0%} of the customers" for share in shares}
    finding = _finding(found[0], shares, halves[0])
    return Outcome(found, finding, name_of(halves[0][-1], 1), variants, drawn, notes)


def _runs(request: Request) -> tuple[dict[float, Run], list[str]]:
    """The run of each share that there is enough of, and what to know of them."""
    workshop, notes, runs = request.workshop, list[str](), dict[float, Run]()
    chosen = nested_customers(request.data, workshop.split().cutoff, SHARES, request.seed)
    for share, customers in zip(SHARES, chosen, strict=True):
        try:
            runs[share] = workshop.full() if share == 1 else _trained(request, share, customers)
        except TrainingError as error:
            if share == 1:
                raise
            notes.append(f"{share:.0%} of the customers is left out: {error}.")
            workshop.progress.say(notes[-1])
    sizes = ", ".join(f"{share:.0%} {len(customers):,}" for share, customers in zip(SHARES, chosen, strict=True))
    return runs, [*notes, f"Customers by share: {sizes}; drawn with seed {request.seed}."]


def _measured(request: Request, runs: Mapping[float, Run]) -> list[Json]:
    """The next order by both halves where there are two, and all purchases by the style half."""
    workshop = request.workshop
    task = request.task(runs[1.0])
    style: list[Ranking] = [popularity(task)]
    style += [Named(name_of(STYLE, share), dynamic_ranking(task, request.data, run)) for share, run in runs.items()]
    tiers, among = fair_tiers(task.stock_tells_sales)
    everything = table("all", f"All purchases{among}", tiers, task, task.targets.candidate >= 0)
    asked = [(style, everything, [STYLE])]
    if workshop.config.generation.enabled:
        texts, n = writings(request, task), workshop.config.generation.mixup
        generated = [texts.ranking(run, name_of(TEXT, share), n) for share, run in runs.items()]
        asked.insert(0, ([*style, *generated], next_order(task, texts), [STYLE, TEXT]))
    return [
        one
        for ranked, chosen, halves in asked
        for one in compare(task, ranked, [chosen], _pairs(runs, halves), request.sampling, workshop.progress)
    ]


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
        enough = f"not behind 100% from {first:.0%} on" if first < 1 else "every smaller share is behind 100%"
        parts.append(f"“{half}” {values}; {enough}")
    return f"Recall@10 by share of the customers: {'. '.join(parts)}."


STUDY = Study(
    "low-resource",
    "Few customers to learn from",
    "Amazon 2024, §5.4, Figure 6",
    "How many customers does each half need? In the paper text wins where data are few, and its lead grows with them.",
    conduct,
)
