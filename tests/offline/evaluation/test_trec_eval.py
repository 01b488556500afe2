"""Our figures against trec_eval's, the measure of information retrieval, on random rankings without ties.

There each purchase is a topic of its own with one relevant document, since our figures are means over purchases.
"""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval

from offline.evaluation.bootstrap import figures
from offline.evaluation.metrics import LEADING, Scorecard
from offline.evaluation.ranks import Targets, rank

CUTS = ",".join(map(str, LEADING))
MEASURES = {f"recall.{CUTS}", f"ndcg_cut.{CUTS}", "recip_rank"}
OURS = {f"ndcg_cut_{n}": f"ndcg_{n}" for n in LEADING} | {f"recall_{n}": f"recall_{n}" for n in LEADING}


class Random:
    """Scores that are all different: a permutation for each customer."""

    name, parameters = "random", None

    def __init__(self, customers: int, candidates: int, rng: np.random.Generator):
        self._scores = np.stack([rng.permutation(candidates) for _ in range(customers)]).astype(np.float32)

    def scores(self, customers: slice) -> np.ndarray:
        return self._scores[customers]


@pytest.mark.parametrize("seed", range(5))
def test_trec_eval_finds_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    customers, candidates = 40, 400
    sizes = rng.integers(1, 6, size=customers)
    bought = np.concatenate([rng.choice(candidates, size, replace=False) for size in sizes])
    targets = Targets.among_all(np.append(0, np.cumsum(sizes)), bought, np.array([100, 250, candidates]))
    ranking = Random(customers, candidates, rng)

    [ranks] = rank(ranking, [targets], lambda _: None)
    ours = figures(Scorecard(ranks.places((0, 1, 2), np.ones(len(bought), bool))), np.ones(customers))

    scores = ranking.scores(slice(None))[targets.customer]
    topics = {f"{row}": {f"{article}": 1} for row, article in enumerate(bought)}
    run = {
        f"{row}": {f"{article}": float(score) for article, score in enumerate(scores[row])}
        for row in range(len(bought))
    }
    found = pytrec_eval.RelevanceEvaluator(topics, MEASURES).evaluate(run).values()
    for theirs, name in (OURS | {"recip_rank": "mrr"}).items():
        assert getattr(ours, name) == pytest.approx(np.mean([one[theirs] for one in found]), abs=1e-9), name
