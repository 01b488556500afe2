"""What a baseline answered, and how it was trained: one folder per model, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from model_store.errors import InvalidConfig
from offline.baselines.questions import About, Int64
from offline.folders import written_aside

Float32 = NDArray[np.float32]
FORMAT = 1
ROWS = 256
"""Customers who are answered at once."""


@dataclass(frozen=True)
class Recipe:
    """All that answers depend on, but for how fast the machine is."""

    model: str
    library: str
    """name and version, PyTorch's too, and where the first weights come from, if from anywhere"""
    grid: Sequence[Mapping[str, float]]
    """the settings that were tried, by RecBole's names; all others are the library's own defaults"""
    budget: float
    """minutes, tuning and training on everything together"""
    seed: int
    questions: str
    """digest of the questions"""


@dataclass(frozen=True)
class Epoch:
    """One epoch of tuning: the mean loss, and figures of the validation window's purchases among its candidates."""

    loss: float
    discounted_gain: float
    """mean of 1 / log2(1 + rank): what is tuned for"""
    ndcg_10: float
    recall_10: float
    stage: str = ""
    """of the training"""


@dataclass(frozen=True)
class Trial:
    """One of the settings that were tried, epoch by epoch."""

    settings: Mapping[str, float]
    epochs: Sequence[Epoch]
    seconds: float


@dataclass(frozen=True)
class AnsweredTest:
    """One window that was answered."""

    start: int
    until: int
    digest: str


@dataclass(frozen=True)
class Results:
    """``results.json``."""

    recipe: Recipe
    about: About
    parameters: int
    settings: Mapping[str, float]
    """the best of those that were tried"""
    epochs: int
    """after which validation was best: so many were trained on everything"""
    tried: Sequence[Trial]
    seconds: float
    tests: Sequence[AnsweredTest]
    stages: Mapping[str, int] = field(default_factory=dict)
    """how the epochs fall on the stages of the training"""
    format: int = field(default=FORMAT)


class Answer(NamedTuple):
    """To one window: ``scores`` gives those of some of its ``customers``, float32 (B, M)."""

    customers: int
    scores: Callable[[slice], Float32]


def write(results: Results, article: Int64, answers: Sequence[Answer], out: Path) -> None:
    """Write a model's folder. ``article`` int64 (M): the articles that it knows, which are the columns of scores."""
    with written_aside(out) as folder:
        np.save(folder / "article.npy", article)
        for number, answer in enumerate(answers):
            shape = (answer.customers, len(article))
            table = open_memmap(folder / f"scores-{number}.npy", "w+", np.float32, shape)
            for start in range(0, answer.customers, ROWS):
                rows = slice(start, min(start + ROWS, answer.customers))
                table[rows] = answer.scores(rows)
            table.flush()
        (folder / "results.json").write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Results | None:
    """What ``write`` wrote, but for the scores; None where there is none, or of another version.

    Raises InvalidConfig where it is damaged.
    """
    path = folder / "results.json"
    try:
        plain = json.loads(path.read_bytes())
        return _results(plain) if plain["format"] == FORMAT else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidConfig(f"{path} is damaged ({error}): remove it; 'make baselines' makes it anew") from None


def _results(plain: dict[str, Any]) -> Results:
    tried = [
        Trial(one["settings"], [Epoch(**epoch) for epoch in one["epochs"]], one["seconds"]) for one in plain["tried"]
    ]
    parts = {"recipe": Recipe(**plain["recipe"]), "about": About(**plain["about"]), "tried": tried}
    return Results(**{**plain, **parts, "tests": [AnsweredTest(**test) for test in plain["tests"]]})


def known_articles(folder: Path) -> Int64:
    """int64 (M)"""
    article: Int64 = np.load(folder / "article.npy", allow_pickle=False)
    return article


class StoredScores:
    """float32 (K, M) in a file. Rows are read when they are asked for, and the file is not held open in between.

    What a process has mapped of a file counts as its memory, and this one is as large as customers times articles.
    """

    def __init__(self, path: Path):
        self._path = path

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, M)"""
        return self._opened().shape

    def __getitem__(self, rows: slice) -> Float32:
        """float32 (B, M)"""
        return np.array(self._opened()[rows])

    def _opened(self) -> Float32:
        table: Float32 = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return table


def scores(folder: Path, number: int) -> StoredScores:
    """Of the window ``number``."""
    return StoredScores(folder / f"scores-{number}.npy")
