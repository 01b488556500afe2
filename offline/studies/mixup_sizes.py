"""N of the mixup: how many articles the list of the generated id gives before the title's follows (Amazon 2024, §4.4).

One language model writes once; only the retrieval differs. The paper sets N = 1 for all its experiments.
"""

from __future__ import annotations

from offline.studies import findings
from offline.studies.comparing import against, compare
from offline.studies.sequences import NEXT, next_order, writings
from offline.studies.study import Lines, Outcome, Request, Study
from offline.studies.writing import ONLY_IDS

SIZES = (0, 1, 2, 5, ONLY_IDS)
_CHOICE = "N = 1"


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
        f"{findings.sorted_out(found[0], names[:1] + names[2:], _CHOICE, 'recall_10')}.",
        _CHOICE,
        {"full": {}},
        [Lines(NEXT, "N", points)],
        [
            "N = 0 takes the title list alone, N = K the id list alone; there an id that is of no article finds "
            "nothing. Everything else is one run and one text for each customer."
        ],
    )


STUDY = Study(
    "mixup",
    "How much of the mixup is the id list",
    "Amazon 2024, §4.4",
    "How many articles should the id list give before the title list follows? The paper sets N = 1 and says no more.",
    conduct,
)
