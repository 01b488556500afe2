"""What a run's language model writes for customers at given moments: for the blend's weight and for the evaluation.

With the very model that is served, onnxruntime-genai in 8 bits, and under the same regular expression.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.generation import LLM, LLM_EMBEDDED, QueryMemory, load_titles, open_generation
from model_store.generation_spec import GenerationSpec
from model_store.language_model import EmbeddedLanguageModel
from model_store.prompts import Generated, Prompt, parse_response
from model_store.records import EventType
from model_store.tokens import Tokenizer
from offline.mixup import MixupRetrieval
from offline.progress import Progress
from offline.run import FOLDER, Run
from offline.sequences import Example, Prompts, find_examples
from offline.side_by_side import SideBySide, Work, cores
from offline.validation import candidate_places

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]

WRITERS = 2
"""Processes that write at once, each on a core of its own; each holds the language model, however large."""


@dataclass(frozen=True)
class GeneratingModel:
    """The generating half of a run, ready to be asked. ``encode_query``: B queries → keys, float32 (B, 128)."""

    spec: GenerationSpec
    llm: Path
    """the merged Hugging Face directory, for its tokenizer"""
    embedded: Path
    memory: QueryMemory
    encode_query: Callable[[Sequence[str]], Float32]
    retrieval: MixupRetrieval
    parameters: int

    @classmethod
    def of_run(cls, run: Run, data: DataSet) -> GeneratingModel | None:
        """The generating half of ``run``; None where it was trained without."""
        if not run.has(f"{FOLDER}/spec.json"):
            return None
        folder = run.folder / FOLDER
        spec = run.load_model(f"{FOLDER}/spec", GenerationSpec)
        parts = open_generation(folder, spec, data.article_ids)
        titles = load_titles(folder, len(data.article_ids))
        retrieval = MixupRetrieval(data.article_ids, titles, parts.ids, parts.title_encoder.encode, spec.mixup)
        return cls(
            spec,
            folder / LLM,
            folder / LLM_EMBEDDED,
            parts.memory,
            parts.query_encoder.encode,
            retrieval,
            spec.language_model.parameters,
        )

    def lists(
        self, data: DataSet, examples: Sequence[Example | None], candidates: Rows, progress: Progress
    ) -> list[Rows]:
        """Per example the mixup list of what is written for it: positions in ``candidates`` int64 (A), best first.

        Empty where there is no example.
        """
        return places_among(candidates, self.retrieval, self.write(self.prompts(data, examples), progress))

    def prompts(self, data: DataSet, examples: Sequence[Example | None]) -> list[Prompt | None]:
        """The prompt of each example; None where there is none."""
        prompts = Prompts(data, self.spec, Tokenizer.of_model(self.llm), self.memory, self.encode_query)
        return [None if example is None else prompts.prompt(example) for example in examples]

    def write(self, prompts: Sequence[Prompt | None], progress: Progress) -> list[Generated | None]:
        """What the model writes for each prompt at temperature 0, by ``WRITERS`` processes; None where there is none.

        Raises UnparseableGeneration where a response is none, which the regular expression rules out.
        """
        asked = [_Asked(row, prompt.token_ids) for row, prompt in enumerate(prompts) if prompt is not None]
        generated: list[Generated | None] = [None] * len(prompts)
        opened = partial(_open_writer, self.embedded, self.llm, self.spec.prompt.response_tokens)
        processes: SideBySide[_Asked, Generated]
        with (
            progress.bar("generations", len(asked)) as bar,
            SideBySide(min(WRITERS, cores()), opened, progress) as processes,
        ):
            for one, written in processes.all(asked):
                generated[one.row] = written
                bar.advance()
        return generated


def places_among(candidates: Rows, retrieval: MixupRetrieval, generated: Sequence[Generated | None]) -> list[Rows]:
    """What ``retrieval`` finds for each generation among ``candidates`` int64 (A): positions in it, best first."""
    position = candidate_places(candidates, int(candidates.max(initial=-1)) + 1)
    return [position[rows] for rows in retrieval.lists(generated, lambda _: candidates)]


@dataclass(frozen=True)
class _Asked:
    row: int
    token_ids: tuple[int, ...]

    def __str__(self) -> str:
        return f"generation {self.row + 1}"


def _open_writer(embedded: Path, llm: Path, response_tokens: int, _: Progress) -> Work[_Asked, Generated]:
    model = EmbeddedLanguageModel(embedded, Tokenizer.of_model(llm))  # holds Python's lock: one each, in processes

    def write(asked: _Asked) -> Generated:
        written = model.write(asked.token_ids, max_new_tokens=response_tokens, temperature=0.0, top_p=1.0)
        return parse_response(written.text, cut_off=written.cut_off)

    return write


def sessions_before(
    data: DataSet,
    since: int,
    until: int,
    customers: Sequence[str],
    times: NDArray[np.int64],
    bought: Sequence[Collection[str]],
    actions: int,
) -> list[Example | None]:
    """The session of each of C ``customers`` right before their first purchase in the window, at ``times`` int64 (C).

    ``bought`` (C): ids of what each goes on to buy in it; clicks on those are left out, as the paper leaves them out of
    its data (Amazon 2024, §5.1). None where nothing is left of the session, or there was none.
    """
    found = {
        (example.customer_id, example.time): example
        for example in find_examples(data, since, until, actions=actions, most=None, rng=np.random.default_rng(0))
    }
    sessions: list[Example | None] = []
    for customer_id, time, ids in zip(customers, times.tolist(), bought, strict=True):
        example = found.get((customer_id, time))
        events = tuple(
            event
            for event in (example.events if example else ())
            if event.type is not EventType.CLICK or event.article_id not in ids
        )
        sessions.append(replace(example, events=events) if example and events else None)
    return sessions
