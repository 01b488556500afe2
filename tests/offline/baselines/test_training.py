"""The baselines' process without RecBole: what is done stays, what was interrupted leaves nothing, answers are rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from baseline_learners import CYCLE, Successors, cycle_questions

from model_store.errors import InvalidConfig
from offline.baselines import questions, results
from offline.baselines.questions import Sequences
from offline.baselines.training import Library, main, train_all
from offline.baselines.tuning import Maker, Settings
from offline.progress import Silent

ROOT = Path(__file__).parents[3]
MODELS = ["GRU4Rec", "CORE"]


class Makers:
    """Notes which models were begun, and how long their sequences were."""

    def __init__(self, breaks: str = ""):
        self.begun: list[str] = []
        self.purchases: list[int] = []
        self._breaks = breaks

    def __call__(self, model: str) -> Maker:
        def make(settings: Settings, sequences: Sequences, seed: int) -> Successors:
            self.begun.append(model)
            self.purchases.append(len(sequences.article))
            if model == self._breaks and len(self.begun) > 1:
                raise KeyboardInterrupt
            return Successors(settings, sequences, seed)

        return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    questions.write(cycle_questions(), tmp_path / questions.FOLDER)
    return tmp_path


def train(folder: Path, makers: Makers, *, minutes: float = 1.0, seed: int = 0) -> list[str]:
    steps = iter(range(10**6))
    train_all(folder, MODELS, minutes, seed, Library("by hand", makers), lambda: float(next(steps)), Silent())
    return sorted(set(makers.begun))


def test_a_second_run_leaves_what_is_done(folder: Path) -> None:
    assert train(folder, Makers()) == sorted(MODELS)
    before = (folder / "CORE" / "results.json").read_bytes()
    assert train(folder, Makers()) == []
    assert (folder / "CORE" / "results.json").read_bytes() == before


def test_another_recipe_trains_anew(folder: Path) -> None:
    train(folder, Makers())
    assert train(folder, Makers(), seed=1) == sorted(MODELS)
    assert train(folder, Makers(), seed=1, minutes=2) == sorted(MODELS)
    questions.write(cycle_questions(customers=30), folder / questions.FOLDER)
    assert train(folder, Makers(), seed=1, minutes=2) == sorted(MODELS)


def test_an_interrupted_model_leaves_nothing_and_goes_on_next_time(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder, Makers(breaks="CORE"))
    assert sorted(path.name for path in folder.iterdir()) == ["GRU4Rec", questions.FOLDER]
    assert train(folder, Makers()) == ["CORE"]


def test_an_interruption_while_answers_are_written_leaves_the_old_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(folder, Makers())
    before = (folder / "CORE" / "results.json").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Successors, "scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(folder, Makers(), seed=1)
    assert (folder / "CORE" / "results.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["CORE", "GRU4Rec", questions.FOLDER]


def test_tuning_sees_no_purchase_of_the_validation_window(folder: Path) -> None:
    makers = Makers()
    train(folder, makers)
    asked = cycle_questions()
    tuning, last = len(asked.training.article), len(asked.everything.article)
    assert tuning < last
    assert makers.purchases == [tuning, tuning, last] * len(MODELS)


def test_answers_are_scores_of_what_follows(folder: Path) -> None:
    train(folder, Makers())
    article, scores = results.known_articles(folder / "CORE"), results.scores(folder / "CORE", 0)[:]
    assert article.tolist() == list(range(CYCLE))
    assert (scores.dtype, scores.shape) == (np.float32, (24, CYCLE))
    assert scores.argmax(axis=1).tolist() == [(customer + 6) % CYCLE for customer in range(24)]


def test_on_everything_as_many_epochs_of_each_stage_are_trained(folder: Path) -> None:
    made: list[InStages] = []

    def maker(_: str) -> Maker:
        def make(settings: Settings, sequences: Sequences, seed: int) -> InStages:
            made.append(InStages({**settings, "peak": 3}, sequences, seed))
            return made[-1]

        return make

    steps = iter(range(10**6))
    train_all(folder, ["CORE"], 1e4, 0, Library("by hand", maker), lambda: float(next(steps)), Silent())
    found = results.read(folder / "CORE")
    assert found is not None
    assert (found.epochs, found.stages) == (3, {"one": 3, "two": 0})
    assert (made[-1].epochs, made[-1].stage) == (3, 1)
    assert {epoch.stage for epoch in found.tried[0].epochs} == {"one", "two"}


class InStages(Successors):
    stages = ("one", "two")
    stage = 0

    def next_stage(self) -> None:
        self.stage += 1


def test_what_a_model_is_told_is_in_its_recipe(folder: Path) -> None:
    """But windows are answered as they were asked: by those the evaluation finds answers again."""
    asked = cycle_questions()
    library = Library("by hand", Makers(), told=lambda _, asked: replace(asked, training=asked.everything))
    steps = iter(range(10**6))
    train_all(folder, ["CORE"], 1, 0, library, lambda: float(next(steps)), Silent())
    found = results.read(folder / "CORE")
    assert found is not None
    assert found.recipe.questions == replace(asked, training=asked.everything).digest
    assert [test.digest for test in found.tests] == [test.digest for test in asked.tests]
    assert train(folder, Makers()) == sorted(MODELS)


def test_results_tell_how_the_model_was_trained(folder: Path) -> None:
    train(folder, Makers())
    found = results.read(folder / "CORE")
    assert found is not None
    assert (found.recipe.model, found.recipe.seed, found.recipe.budget) == ("CORE", 0, 1.0)
    assert [trial.settings for trial in found.tried] == list(found.recipe.grid)
    assert found.settings in found.recipe.grid
    assert found.parameters == Successors.parameters
    assert found.about == cycle_questions().about


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "SASRec,Foo"], "--models: there is no 'Foo'; known are GRU4Rec, SASRec"),
        (["--budget", "0"], "--budget: must be more than 0 minutes, not 0"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(folder), *options]) == 1
    assert message in capsys.readouterr().err


def test_without_questions_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="holds no questions: 'make baselines' writes them first"):
        train(tmp_path, Makers())


@pytest.mark.parametrize("damage", [lambda text: text[:100], lambda text: text.replace('"seed"', '"sead"')])
def test_damaged_results_are_told_in_one_line(folder: Path, damage: Callable[[str], str]) -> None:
    train(folder, Makers())
    path = folder / "CORE" / "results.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(InvalidConfig, match=r"CORE/results.json is damaged .*: remove it; 'make baselines' makes"):
        results.read(folder / "CORE")


def test_the_process_needs_numpy_and_a_progress_bar_alone() -> None:
    """Its environment is RecBole's: what else we use is not there, or in another version."""
    lines = "import sys, offline.baselines.training; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {"torch", "pydantic", "pyarrow", "orjson", "scipy", "safetensors", "onnxruntime", "service", "recbole"}
    assert {"numpy", "tqdm"} <= set(found.stdout.split())
    assert not ours & set(found.stdout.split())
