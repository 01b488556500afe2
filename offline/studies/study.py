"""What a study is asked, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_store.dataset import DataSet
from offline.evaluation.backtest import Options, tasks
from offline.evaluation.task import Task
from offline.run import Run
from offline.studies.comparing import Json, Sampling
from offline.studies.workshop import Workshop


@dataclass(frozen=True)
class Request:
    """All that a study may be told."""

    workshop: Workshop
    sampling: Sampling
    seed: int
    """of what is drawn: which customers a share has"""
    clip: str = ""
    """a CLIP directory or hub id; empty: without"""
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """categories by name of a group, the one that is trained on first; empty: they are dealt out"""

    def task(self, run: Run) -> Task:
        """What evaluation asks of the base run: one window, or the ends of all histories."""
        return tasks(self.workshop.data, run, Options())[0]

    @property
    def data(self) -> DataSet:
        """The whole data set."""
        return self.workshop.data

    @property
    def parts(self) -> Path:
        """Where parts of the data set are written."""
        return self.workshop.folder / "data" / self.data.fingerprint[:12]


@dataclass(frozen=True)
class Lines:
    """How a table is drawn as lines: ``points`` of (label, name of a row by line), over ``title``."""

    table: str
    title: str
    points: Sequence[tuple[str, Mapping[str, str]]]


@dataclass(frozen=True)
class Outcome:
    """What a study found. ``tables`` as report.json has them, the chief one first."""

    tables: Sequence[Json]
    finding: str
    """one line, of figures of the tables"""
    reference: str
    """what all others are compared with"""
    variants: Mapping[str, Any]
    """by run, what is set otherwise than in the base run, or which part of the data it had"""
    lines: Sequence[Lines] = ()
    notes: Sequence[str] = ()
    """what to know when reading it"""


@dataclass(frozen=True)
class Study:
    """``conduct`` trains what is missing and measures. ``question`` and ``paper``: what is asked, and where from."""

    name: str
    title: str
    paper: str
    question: str
    conduct: Callable[[Request], Outcome]
