"""Run in RecBole's environment: what padding does to each model. Prints JSON that ``test_recbole`` reads."""

from __future__ import annotations

import copy
import json
import sys

import numpy as np
import torch

from model_store.errors import TrainingError
from offline.baselines import RECBOLE
from offline.baselines.questions import Sequences
from offline.baselines.recbole_models import RecBoleLearner

ARTICLES = 12
SEQUENCES = Sequences.of([[(first + step) % ARTICLES for step in range(2 + first)] for first in range(9)])
HISTORIES = [np.array(one) for one in ([3], [1, 2], [5, 2], [2, 5, 2], list(range(9)) * 8)]


def probe(model: str) -> dict[str, float | bool | int]:
    """How much losses and scores differ with and without padding, and what of a history counts."""
    learner = RecBoleLearner(model, {"learning_rate": 1e-3, "train_batch_size": 16}, SEQUENCES, 0)
    learner.train_epoch(lambda _: None)
    network = learner.network.eval()
    losses, widths = [], []
    for batch in learner.loader:
        short = learner.cropped(copy.deepcopy(batch))
        widths.append(short["item_id_list"].shape[1])
        with torch.no_grad():
            losses.append(abs(float(network.calculate_loss(batch) - network.calculate_loss(short))))
    together = learner.scores(HISTORIES)
    alone = np.concatenate([learner.scores([history]) for history in HISTORIES])
    return {
        "loss": max(losses),
        "narrower": max(widths) < learner.longest,
        "scores": float(np.abs(together - alone).max()),
        "first": float(np.abs(together[1] - together[2]).max()),
        "latest": float(np.abs(together[4] - learner.scores([HISTORIES[4][9:]])[0]).max()),
        "articles": learner.article.tolist() == list(range(ARTICLES)) and together.shape[1] == ARTICLES,
        "weights": learner.parameters,
    }


def repeatable() -> bool:
    """Whether the same seed gives the same scores, and another one others."""
    found = []
    for seed in (0, 0, 1):
        learner = RecBoleLearner("GRU4Rec", {"learning_rate": 1e-3, "train_batch_size": 16}, SEQUENCES, seed)
        learner.train_epoch(lambda _: None)
        found.append(learner.scores(HISTORIES))
    return bool((found[0] == found[1]).all() and (found[0] != found[2]).any())


def of_all_articles() -> str:
    """What is said where a customer bought every article."""
    try:
        RecBoleLearner("BERT4Rec", {"learning_rate": 1e-3, "train_batch_size": 16}, Sequences.of([[0, 1, 2, 0]]), 0)
    except TrainingError as error:
        return str(error)
    return ""


found = {"of_all": of_all_articles(), "repeatable": repeatable(), "models": {model: probe(model) for model in RECBOLE}}
json.dump(found, sys.stdout)
