"""What is asked of the baselines, and how it lies on disk: known histories, never what is to be found in a test.

    about.json       ``About``, and start, end and digest of each test
    training.npz     ``Sequences`` up to the validation window;  everything.npz: up to the cut-off
    validation.npz   ``Validation``
    test-<n>.npz     ``Asked``

Articles are numbered by their row in the data set's table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import InvalidConfig
from offline.folders import written_aside

Int64 = NDArray[np.int64]
FORMAT = 1
FOLDER = "questions"


@dataclass(frozen=True)
class Sequences:
    """Purchases of K customers, oldest first: customer k's are ``article[offsets[k]:offsets[k + 1]]``.

    What a model of text is told has searches among them, below 0 (``texts``).
    """

    offsets: Int64
    """(K + 1)"""
    article: Int64
    """(P)"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, customer: int) -> Int64:
        return self.article[self.offsets[customer] : self.offsets[customer + 1]]

    @classmethod
    def of(cls, groups: Iterable[Sequence[int] | Int64]) -> Sequences:
        """Sequences of customers one by one."""
        parts = [np.asarray(group, np.int64) for group in groups]
        offsets = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64)
        return cls(offsets, np.concatenate([np.zeros(0, np.int64), *parts]))


@dataclass(frozen=True)
class Validation:
    """What C customers bought in the validation window, G purchases, to be found among its A candidates."""

    histories: Sequences
    """of the C customers, before the window"""
    row: Int64
    """(G) index into the customers, sorted"""
    target: Int64
    """(G) article"""
    candidates: Int64
    """(A) articles in stock at some moment of the window, all targets among them"""


@dataclass(frozen=True)
class Asked:
    """The customers who are asked for in one window of the evaluation, in its order."""

    start: int
    until: int
    """Unix seconds, exclusive"""
    customer_ids: list[str]
    """(K)"""
    moment: Int64
    """(K) Unix seconds: when the ranking is made"""
    histories: Sequences
    """what is known of each then"""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        names = np.frombuffer(json.dumps(self.customer_ids).encode(), np.uint8)
        window = np.array([self.start, self.until])
        return _digest([window, names, self.moment, self.histories.offsets, self.histories.article])


@dataclass(frozen=True)
class About:
    """Of which data and split the questions are: what ``offline.run.Split`` says."""

    data_set: str
    fingerprint: str
    hold_out: str
    validation_from: int
    cutoff: int


@dataclass(frozen=True)
class Questions:
    """All that the baselines' process is told."""

    about: About
    training: Sequences
    """purchases before the validation window: all that may be trained on while tuning"""
    everything: Sequences
    """purchases before the cut-off"""
    validation: Validation
    tests: Sequence[Asked]

    @property
    def digest(self) -> str:
        """SHA-256 of all that answers depend on."""
        words = json.dumps([asdict(self.about), [test.digest for test in self.tests]])
        arrays = [*_arrays(self.training).values(), *_arrays(self.everything).values()]
        return _digest(
            [np.frombuffer(words.encode(), np.uint8), *arrays, *_validation_arrays(self.validation).values()]
        )


def write(questions: Questions, out: Path) -> None:
    """Write the folder ``out``, which appears whole or not at all."""
    with written_aside(out) as folder:
        tests = [{"start": test.start, "until": test.until} for test in questions.tests]
        about = {"format": FORMAT, **asdict(questions.about), "tests": tests}
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_sequences(folder / "training.npz", questions.training)
        save_sequences(folder / "everything.npz", questions.everything)
        _save(folder / "validation.npz", **_validation_arrays(questions.validation))
        for number, test in enumerate(questions.tests):
            names = np.array(test.customer_ids, dtype=np.str_)
            _save(folder / f"test-{number}.npz", customer=names, moment=test.moment, **_arrays(test.histories))


def save_sequences(path: Path, sequences: Sequences) -> None:
    """Write them into one file."""
    _save(path, **_arrays(sequences))


def load_sequences(path: Path) -> Sequences:
    """Read what ``save_sequences`` wrote."""
    return _sequences(_load(path))


def _save(path: Path, **arrays: NDArray[Any]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def read(folder: Path) -> Questions:
    """Read what ``write`` wrote. Raises InvalidConfig where it is missing or of another version."""
    try:
        about = json.loads((folder / "about.json").read_bytes())
    except FileNotFoundError:
        raise InvalidConfig(f"{folder} holds no questions: 'make baselines' writes them first") from None
    if about.pop("format", None) != FORMAT:
        raise InvalidConfig(f"{folder}: the questions are of another version: 'make baselines' writes them anew")
    tests = [
        _asked(window["start"], window["until"], _load(folder / f"test-{number}.npz"))
        for number, window in enumerate(about.pop("tests"))
    ]
    validation = _load(folder / "validation.npz")
    columns = {name: validation[name] for name in ("row", "target", "candidates")}
    return Questions(
        About(**about),
        load_sequences(folder / "training.npz"),
        load_sequences(folder / "everything.npz"),
        Validation(_sequences(validation), **columns),
        tests,
    )


def _asked(start: int, until: int, arrays: Mapping[str, NDArray[Any]]) -> Asked:
    return Asked(start, until, arrays["customer"].tolist(), arrays["moment"], _sequences(arrays))


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _sequences(arrays: Mapping[str, NDArray[Any]]) -> Sequences:
    return Sequences(arrays["offsets"], arrays["article"])


def _arrays(sequences: Sequences) -> dict[str, Int64]:
    return {"offsets": sequences.offsets, "article": sequences.article}


def _validation_arrays(validation: Validation) -> dict[str, Int64]:
    columns = {"row": validation.row, "target": validation.target, "candidates": validation.candidates}
    return {**_arrays(validation.histories), **columns}


def _digest(arrays: Iterable[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
