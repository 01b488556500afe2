"""N of the mixup: how many articles the list of the generated id gives before the title's follows (Amazon 2024, §4.4).

One language model writes once; only the retrieval differs. The paper sets N = 1 for all its experiments.
"""

from __future__ import annotations

from offline.studies import findings
from offline.studies.comparing import Json, against, compare
from offline.studies.sequences import NEXT, next_order, writings
from offline.studies.study import Lines, Outcome, Request, Study
from offline.studies.writing import ONLY_IDS

SIZES = (0, 1, 2, 5, ONLY_IDS)
_CHOICE = "N = 1"
_FIGURES = ("recall_10", "ndcg_10")


def name_of(n: int) -> str:
    """What tables call a variant."""
    return f"N = {n}" if n != ONLY_IDS else f"N = K = {n}"


def conduct(request: Request) -> Outcome:
    """Retrieve by each N for what one model writes."""
    workshop = request.workshop
    workshop.needs_generation("mixup")
    run = workshop.full()
    task = request.task(run)
    texts = writings(request, task)
    ranked = [texts.ranking(run, name_of(n), n) for n in SIZES]
    names = [one.name for one in ranked]
    table, pairs = next_order(task, texts), against(_CHOICE, names)
    found = compare(task, ranked, [table], pairs, request.sampling, workshop.progress)
    points = [(f"{n}" if n != ONLY_IDS else f"K = {n}", {"mixup": name}) for n, name in zip(SIZES, names, strict=True)]
    return Outcome(
        found,
        _finding(found[0], names),
        _CHOICE,
        {"full": {}},
        [Lines(NEXT, "N", points)],
        [
            "N = 0 takes the title list alone, N = K the id list alone; there an id that is of no article finds "
            "nothing. Everything else is one run and one text for each customer."
        ],
    )


def _finding(found: Json, names: list[str]) -> str:
    ends = "; ".join(findings.against(found, name, _CHOICE, "recall_10") for name in (names[0], names[-1]))
    chosen = {figure: findings.best(found, names, figure) for figure in _FIGURES}
    best = "; ".join(
        f"best {title} is “{chosen[figure]}” with {findings.value(found, chosen[figure], figure)}"
        + ("" if chosen[figure] == _CHOICE else f", {findings.against(found, chosen[figure], _CHOICE, figure)}")
        for figure, title in zip(_FIGURES, ("Recall@10", "NDCG@10"), strict=True)
    )
    return f"“{_CHOICE}” has Recall@10 {findings.value(found, _CHOICE, 'recall_10')}; {ends}; {best}."


STUDY = Study(
    "mixup",
    "How much of the mixup is the id list",
    "Amazon 2024, §4.4",
    "How many articles should the id list give before the title list follows? The paper sets N = 1 and says no more.",
    conduct,
)
