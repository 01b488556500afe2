"""Three losses × numbers of negatives of the style LSTM (Zalando 2017, §2.4).

Fashion DNA, popularity and pictures are one and the same for all; only the LSTM is trained anew, by the schedule of the
base run. The paper takes Lrank with n = 20, which is the reference here.
"""

from __future__ import annotations

import numpy as np

from offline.config import Config
from offline.evaluation.backtest import dynamic_ranking, static_ranking
from offline.evaluation.rankings import BY_SALES, STATIC, popularity
from offline.evaluation.ranks import Ranking
from offline.evaluation.tables import fair_tiers
from offline.evaluation.task import NEW
from offline.studies import findings
from offline.studies.comparing import Json, Named, against, compare, table
from offline.studies.study import Lines, Outcome, Request, Study

LOSSES, NEGATIVES = ("rank", "sigmoid", "softmax"), (5, 20, 50)
_STYLE_HALF = {"generation.enabled": False}
_CHOICE = "rank, n = 20"


def name_of(loss: str, negatives: int) -> str:
    """What tables call a variant."""
    return f"{loss}, n = {negatives}"


def conduct(request: Request) -> Outcome:
    """Train and rank all of them."""
    workshop = request.workshop
    variants = {
        name_of(loss, n): {**_STYLE_HALF, "style_lstm.loss": loss, "style_lstm.negatives": n}
        for loss in LOSSES
        for n in NEGATIVES
    }
    runs = {name: workshop.run(_folder(name), settings) for name, settings in variants.items()}
    task = request.task(runs[_CHOICE])
    ranked = [Named(name, dynamic_ranking(task, request.data, run)) for name, run in runs.items()]
    yardsticks: list[Ranking] = [popularity(task), static_ranking(task, runs[_CHOICE])[0]]
    tiers, among = fair_tiers(task.stock_tells_sales)
    everything = np.ones(len(task.targets.candidate), bool)
    tables = [
        table("all", f"All purchases{among}", tiers, task, everything),
        table("new", "Purchases of articles never sold before", tiers, task, task.targets.tier == NEW),
    ]
    others = [name for name in (*variants, BY_SALES, STATIC) if name != _CHOICE]
    pairs = [*against(_CHOICE, others), *_neighbours()]
    found = compare(task, [*yardsticks, *ranked], tables, pairs, request.sampling, workshop.progress)
    points = [(f"{n}", {loss: name_of(loss, n) for loss in LOSSES}) for n in NEGATIVES]
    epochs = [f"{name}: {_epochs(run.load_json('stages/style_lstm')['curve'])}" for name, run in runs.items()]
    return Outcome(
        found,
        _finding(found[0]),
        _CHOICE,
        {_folder(name): settings for name, settings in variants.items()},
        [Lines("all", "number of negatives", points)],
        [
            "All variants share pictures, Fashion DNA and popularity, and are trained by the base run's schedule.",
            f"Epoch with the best validation score, of those trained. {'; '.join(epochs)}.",
            *_unlike_the_paper(workshop.config),
        ],
    )


def _finding(found: Json) -> str:
    """The three losses, with as many negatives as the paper took."""
    others = [name_of(loss, 20) for loss in LOSSES[1:]]
    return ". ".join(findings.sorted_out(found, others, _CHOICE, figure) for figure in ("auc", "recall_10")) + "."


def _neighbours() -> list[tuple[str, str]]:
    """More negatives against fewer, for each loss."""
    return [(name_of(loss, n), name_of(loss, 20)) for loss in LOSSES[1:] for n in NEGATIVES if n != 20]


def _folder(name: str) -> str:
    return f"loss-{name.replace(', n = ', '-')}"


def _epochs(curve: list[dict[str, float]]) -> str:
    scored = [row for row in curve if "score" in row]
    best = max(scored, key=lambda row: row["score"], default={"epoch": 0})
    return f"{best['epoch']:.0f} of {len(scored)}"


def _unlike_the_paper(config: Config) -> list[str]:
    if not config.fashion_dna.popularity:
        return []
    return [
        "Unlike the paper's, Fashion DNA here has a component for what an article sold, with which the LSTM is trained "
        "jointly ([fashion_dna] popularity); false leaves it out."
    ]


STUDY = Study(
    "losses",
    "Losses and numbers of negatives",
    "Zalando 2017, §2.4, §3.3",
    "Which loss trains the style LSTM best, and with how many negatives? The paper found Lσ and Lrank comparable, "
    "Lsmax significantly worse, and no benefit of more than 50 negatives.",
    conduct,
)
