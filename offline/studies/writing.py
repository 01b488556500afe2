"""What the language models of variants write for the customers of a task, each text once: it is kept in the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.generation_spec import MIXUP_LENGTH
from model_store.prompts import Generated, Prompt
from offline.evaluation.backtest import sessions_of
from offline.evaluation.rankings import GeneratedRanking
from offline.evaluation.ranks import Float32
from offline.evaluation.task import Task
from offline.generating import GeneratingModel, places_among
from offline.generation_stages import mixup_retrieval
from offline.mixup import MixupRetrieval
from offline.progress import Progress
from offline.run import FOLDER, Run
from offline.sequences import Example

KEPT = "written"
"""Folder of a run with what its language model wrote, by what it was asked."""
ONLY_IDS, ONLY_TITLES = MIXUP_LENGTH, 0
"""N of the mixup by which one of both lists alone is taken."""


@dataclass(frozen=True)
class Writings:
    """A task's sessions, and what is found for them by what a run writes."""

    task: Task
    data: DataSet
    actions: int
    progress: Progress

    @cached_property
    def sessions(self) -> list[Example | None]:
        """(K) the session of each customer, None where there is none."""
        return sessions_of(self.task, self.data, self.actions)

    @cached_property
    def has_session(self) -> NDArray[np.bool_]:
        """(P) whether a purchase is one of a customer with a session."""
        asked = np.array([session is not None for session in self.sessions])
        return asked[self.task.targets.customer]

    def prompts(self, run: Run) -> list[Prompt | None]:
        """(K) prompts as the run's own specification writes them."""
        return _model(run, self.data).prompts(self.data, self.sessions)

    def written(self, run: Run) -> list[Generated | None]:
        """(K) what the run's language model writes; read where it was kept before."""
        model = _model(run, self.data)
        prompts = model.prompts(self.data, self.sessions)
        name = f"{KEPT}/{_digest(run, prompts)}"
        if not run.has(f"{name}.json"):
            generated = model.write(prompts, self.progress)
            run.save_json(name, [None if one is None else [one.article_id, one.title] for one in generated])
        return [None if one is None else Generated(*one) for one in run.load_json(name)]

    def ranking(self, run: Run, name: str, n: int, retrieval: MixupRetrieval | None = None) -> GeneratedRanking:
        """What is retrieved for what the run writes, with the first ``n`` of the id list.

        ``retrieval``: over other tables than the run's. With ``ONLY_IDS`` an id that is of no article finds nothing,
        where mixup would go over to the title. Who has no session finds nothing either.
        """
        retrieval = retrieval or mixup_retrieval(run.folder / FOLDER, self.data.article_ids, n)
        written = self.written(run)
        if n == ONLY_IDS:
            known = set(self.data.article_ids)
            written = [one if one is not None and one.article_id in known else None for one in written]
        lists = places_among(self.task.candidates, retrieval, written)
        return GeneratedRanking(lists, Nothing(self.task.targets.candidates), _model(run, self.data).parameters, name)


@dataclass(frozen=True)
class Nothing:
    """A ranking that knows nothing: all ``candidates`` tie."""

    candidates: int
    name: str = "nothing"
    parameters: int | None = None

    def scores(self, customers: slice) -> Float32:
        """float32 (B, N)"""
        return np.zeros((customers.stop - customers.start, self.candidates), np.float32)


def _model(run: Run, data: DataSet) -> GeneratingModel:
    model = GeneratingModel.of_run(run, data)
    assert model is not None  # a study of the generating half trains one
    return model


def _digest(run: Run, prompts: Sequence[Prompt | None]) -> str:
    """Of the language model's training and of all that it is asked."""
    digest = hashlib.sha256(run.existing("stages/language_model.json").read_bytes())
    for prompt in prompts:
        digest.update(b"-" if prompt is None else np.array(prompt.token_ids, np.int64).tobytes())
    return digest.hexdigest()[:32]
