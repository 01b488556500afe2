"""The generating half of a bundle: the run's folder as it is, and the golden cases that hold serving to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_store.dataset import DataSet
from model_store.generation import LLM, Generation, load_titles, open_generation
from model_store.generation_spec import GenerationSpec
from model_store.golden import GoldenEvent, GoldenQuery, GoldenSession, GoldenText, golden_query, golden_session
from model_store.graphs import Float32
from model_store.records import Article, Event, EventType
from model_store.sessions import latest_query, session_actions
from model_store.tokens import Tokenizer
from offline.run import FOLDER, Run, Split
from offline.sequences import Example, find_examples

_GOLDEN_SESSIONS, _GOLDEN_TEXTS, _GOLDEN_QUERIES = 6, 16, 8
_NOT_SERVED = ("spec.json",)  # the manifest holds it


@dataclass(frozen=True)
class GeneratingHalf:
    """What goes into a bundle: ``folder`` as ``model_store.generation`` lays it out, and golden cases.

    ``text`` float32 (T, 128) and ``query`` float32 (Q, 128): embeddings of the golden texts and queries.
    """

    folder: Path
    spec: GenerationSpec
    sessions: tuple[GoldenSession, ...]
    texts: tuple[GoldenText, ...]
    text: Float32
    queries: tuple[GoldenQuery, ...]
    query: Float32

    def copy_into(self, stage: Path) -> None:
        """Put all its files into a bundle that is being written."""
        shutil.copytree(self.folder, stage, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_SERVED))


def gather_generating_half(run: Run, data: DataSet, split: Split) -> GeneratingHalf | None:
    """The generating half of a run, with cases from its validation window; None where the run has none."""
    if not run.has(f"{FOLDER}/spec.json"):
        return None
    folder, spec = run.folder / FOLDER, run.load_model(f"{FOLDER}/spec", GenerationSpec)
    parts = open_generation(folder, spec, data.article_ids)
    articles = {article.article_id: article for article in data.articles()}
    rng = np.random.default_rng(0)
    examples = find_examples(
        data, split.validation_from, split.cutoff, actions=spec.prompt.actions, most=_GOLDEN_SESSIONS, rng=rng
    )
    texts, text = _texts(data, articles, load_titles(folder, len(data.article_ids)))
    found = [
        (case, key)
        for query, key in _keys(parts, rng)
        if (case := golden_query(query, key, parts.memory, spec)) is not None
    ]
    return GeneratingHalf(
        folder,
        spec,
        tuple(_sessions(examples, articles, parts, Tokenizer.of_model(folder / LLM))),
        texts,
        text,
        tuple(case for case, _ in found),
        np.stack([key for _, key in found]) if found else text[:0],
    )


def _sessions(
    examples: Sequence[Example], articles: dict[str, Article], parts: Generation, tokenizer: Tokenizer
) -> Iterator[GoldenSession]:
    """Somebody who did nothing, and real sessions."""
    yield golden_session("nothing yet", (), (), (), parts.spec.prompt, tokenizer)
    for example in examples:
        query = latest_query(session_actions(example.events, articles.get))
        candidates = (
            []
            if query is None
            else parts.memory.candidates(
                parts.query_encoder.encode([query])[0], parts.spec.nearest_queries, parts.spec.top_articles
            )
        )
        records = {event.article_id: articles[event.article_id] for event in example.events if event.article_id}
        yield golden_session(
            f"{len(example.events)} actions",
            [_golden_event(event) for event in example.events],
            list(records.values()),
            candidates,
            parts.spec.prompt,
            tokenizer,
        )


def _golden_event(event: Event) -> GoldenEvent:
    searched = event.type is EventType.SEARCH
    return GoldenEvent(
        type=event.type,
        article_id=None if searched else event.article_id,
        query=event.query if searched else None,
        timestamp=event.timestamp,
    )


def _texts(data: DataSet, articles: dict[str, Article], titles: Float32) -> tuple[tuple[GoldenText, ...], Float32]:
    """Titles of trained articles with the embeddings that training's own network gave them."""
    rows = np.unique(np.linspace(0, len(data.article_ids) - 1, _GOLDEN_TEXTS, dtype=np.int64))
    names = [data.article_ids[row] for row in rows]
    return tuple(GoldenText(text=articles[name].title, article_id=name) for name in names), titles[rows]


def _keys(parts: Generation, rng: np.random.Generator) -> Iterator[tuple[str, Float32]]:
    """Some of the memory's queries, with the keys that it holds for them."""
    size = len(parts.memory.queries)
    for row in rng.choice(size, min(_GOLDEN_QUERIES, size), replace=False).tolist():
        yield parts.memory.queries[row], parts.memory.keys[row]
