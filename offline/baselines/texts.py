"""What models of text read besides the questions, and how it lies on disk: words of articles, and searches.

    about.json        format, and the digest of the questions that it belongs to
    articles.json     attribute → values of all articles, empty where one is unknown
    queries.json      the queries that occur
    training.npz  everything.npz  validation.npz  test-<n>.npz    ``Sequences`` of steps

A step is what a customer did: 0 or more is an article that was bought, by its row in the data set's table; below 0 a
search, −1 − q for query q.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_store.errors import InvalidConfig
from offline.baselines.questions import Asked, Questions, Sequences, load_sequences, save_sequences
from offline.folders import written_aside

FORMAT = 1
FOLDER = "texts"

Attributes = Mapping[str, str]
"""An article's or a query's: what is known of it, by the attribute's name, in the order in which it is read."""


@dataclass(frozen=True)
class TextQuestions(Questions):
    """Questions whose histories are steps, and what their numbers stand for."""

    articles: Sequence[Attributes]
    """(N) all articles of the data set"""
    queries: Sequence[str]
    """(Q) empty where searches are not told"""

    @property
    def digest(self) -> str:
        """SHA-256 of all that answers depend on."""
        digest = hashlib.sha256(super().digest.encode())
        for attributes in self.articles:
            digest.update(json.dumps(attributes).encode())
        digest.update(json.dumps(list(self.queries)).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Texts:
    """Steps of the very customers of the questions, oldest first, and all that is written."""

    articles: Sequence[Attributes]
    """(N)"""
    queries: Sequence[str]
    """(Q)"""
    training: Sequences
    everything: Sequences
    validation: Sequences
    """of the C customers, before their first purchase in the window"""
    tests: Sequence[Sequences]
    """of the K customers, before the moment when their ranking is made"""

    def told(self, asked: Questions, *, searches: bool) -> TextQuestions:
        """The questions for a model of text, with searches or without."""
        if not searches:
            told = (asked.training, asked.everything, asked.validation, asked.tests)
            return TextQuestions(asked.about, *told, self.articles, [])
        tests: list[Asked] = [
            replace(test, histories=steps) for test, steps in zip(asked.tests, self.tests, strict=True)
        ]
        validation = replace(asked.validation, histories=self.validation)
        return TextQuestions(
            asked.about, self.training, self.everything, validation, tests, self.articles, self.queries
        )


def write(texts: Texts, asked: Questions, out: Path) -> None:
    """Write the folder ``out``, which appears whole or not at all."""
    names = list(dict.fromkeys(name for attributes in texts.articles for name in attributes))
    columns = {name: [attributes.get(name, "") for attributes in texts.articles] for name in names}
    with written_aside(out) as folder:
        plain = {"about": {"format": FORMAT, "questions": asked.digest, "articles": len(texts.articles)}}
        for name, content in {**plain, "articles": columns, "queries": list(texts.queries)}.items():
            (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        parts = {"training": texts.training, "everything": texts.everything, "validation": texts.validation}
        parts |= {f"test-{number}": steps for number, steps in enumerate(texts.tests)}
        for name, steps in parts.items():
            save_sequences(folder / f"{name}.npz", steps)


def read(folder: Path, asked: Questions) -> Texts:
    """Read what ``write`` wrote. Raises InvalidConfig where it is missing, or belongs to other questions."""
    try:
        about = json.loads((folder / "about.json").read_bytes())
    except FileNotFoundError:
        raise InvalidConfig(f"{folder} holds no texts: 'make baselines' writes them first") from None
    if (about["format"], about["questions"]) != (FORMAT, asked.digest):
        raise InvalidConfig(f"{folder}: the texts belong to other questions: 'make baselines' writes both anew")
    columns = json.loads((folder / "articles.json").read_bytes())
    articles = [
        {name: values[number] for name, values in columns.items() if values[number]}
        for number in range(about["articles"])
    ]
    training, everything, validation, *tests = (
        load_sequences(folder / f"{name}.npz")
        for name in ("training", "everything", "validation", *(f"test-{number}" for number in range(len(asked.tests))))
    )
    queries = json.loads((folder / "queries.json").read_bytes())
    return Texts(articles, queries, training, everything, validation, tests)
