"""Articles that training never saw (Amazon 2024, §5.4, Figure 4; Zalando 2017, §3.4).

Unseen is what nobody had bought before the ranking is made and, where there is a generating half, what CORE has no
embedding of: nobody clicked on it either in training. All that is in stock is ranked, unless stock gives new articles
away; then unseen ones are ranked among themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.errors import InvalidData
from model_store.generation import load_ids
from offline.evaluation.backtest import dynamic_ranking, static_ranking
from offline.evaluation.counting import CO_PURCHASE, co_purchase, markov
from offline.evaluation.rankings import BY_SALES, DYNAMIC, popularity
from offline.evaluation.ranks import Ranking
from offline.evaluation.tables import fair_tiers
from offline.evaluation.task import NEW, Task
from offline.hold_out import BY_TIME
from offline.run import FOLDER, Run
from offline.studies import findings
from offline.studies.comparing import Json, against, compare, table
from offline.studies.sequences import writings
from offline.studies.study import Outcome, Request, Study
from offline.studies.writing import ONLY_IDS, ONLY_TITLES, Writings

MIXUP, BY_ID, BY_TITLE = "generated, mixup", "generated, id list", "generated, title list"


def conduct(request: Request) -> Outcome:
    """Rank by each half of one run, and by what counts."""
    workshop = request.workshop
    run = workshop.full()
    task, generating = request.task(run), workshop.config.generation.enabled
    texts = writings(request, task) if generating else None
    articles = len(request.data.article_ids)
    ranked: list[Ranking] = [
        popularity(task),
        co_purchase(task, articles),
        markov(task, articles),
        static_ranking(task, run)[0],
        dynamic_ranking(task, request.data, run),
        *(_generated(texts, run, workshop.config.generation.mixup) if texts else ()),
    ]
    reference = MIXUP if generating else DYNAMIC
    names = [one.name for one in ranked]
    pairs = [*against(reference, names), (BY_TITLE, BY_ID), (DYNAMIC, BY_SALES), (DYNAMIC, CO_PURCHASE)]
    pairs = [pair for pair in dict.fromkeys(pairs) if set(pair) <= set(names)]
    asked = task.first_order & texts.has_session if texts else np.ones(len(task.targets.candidate), bool)
    unseen = _unseen(task, run, request, generating)
    if not (asked & unseen).any():
        raise InvalidData("cold-start: nothing was bought that training had not seen; choose a longer window")
    tiers, _ = fair_tiers(task.stock_tells_sales)
    together, everything = NEW in tiers, "all in stock" if task.protocol == BY_TIME else "all articles"
    whose = "in the next order of customers with a session, " if texts else ""
    cold = f"Unseen articles, {whose}among {everything if together else 'such articles alone'}"
    warm = f"All other articles, {whose}among {everything if together else 'those alone'}"
    tables = [
        table("cold", cold, tiers if together else (NEW,), task, asked & unseen),
        table("warm", warm, tiers, task, asked & ~unseen),
    ]
    found = compare(task, ranked, tables, pairs, request.sampling, workshop.progress)
    return Outcome(found, _finding(found[0], reference), reference, {"full": {}})


def _generated(texts: Writings, run: Run, n: int) -> list[Ranking]:
    sizes = {MIXUP: n, BY_ID: ONLY_IDS, BY_TITLE: ONLY_TITLES}
    return [texts.ranking(run, name, size) for name, size in sizes.items()]


def _unseen(task: Task, run: Run, request: Request, generating: bool) -> NDArray[np.bool_]:
    """(P) whether nobody bought the article before, nor clicked on it in training."""
    new: NDArray[np.bool_] = task.targets.tier == NEW
    if not generating:
        return new
    ids = load_ids(run.folder / FOLDER, request.data.article_ids)
    rows = task.candidates[task.targets.candidate].tolist()
    known = np.array([ids.knows(request.data.article_ids[row]) for row in rows], bool)
    return np.asarray(new & ~known)


def _finding(found: Json, reference: str) -> str:
    size = f"{found['purchases']:,} purchases of unseen articles by {found['customers']:,} customers"
    if reference == DYNAMIC:
        told = "; ".join(findings.against(found, DYNAMIC, other, "auc") for other in (BY_SALES, CO_PURCHASE))
        return f"{size}: AUC of “{DYNAMIC}” {findings.value(found, DYNAMIC, 'auc')}; {told}."
    values = ", ".join(
        f"{name} {findings.value(found, name, 'recall_10')}" for name in (BY_TITLE, BY_ID, MIXUP, DYNAMIC, CO_PURCHASE)
    )
    return f"{size}, Recall@10: {values}; {findings.against(found, BY_TITLE, BY_ID, 'recall_10')}."


STUDY = Study(
    "cold-start",
    "Articles that training never saw",
    "Amazon 2024, §5.4, Figure 4; Zalando 2017, §3.4",
    "What finds new articles? In the papers texts and Fashion DNA do, ids and sales do not.",
    conduct,
)
