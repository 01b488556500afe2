"""``python -m offline.baselines.training FOLDER``: train, tune and ask the baselines, in the environment of RecBole.

FOLDER is a run's folder ``baselines``, with the questions in it. A model whose results are there already, by the same
recipe, is left as it is; an interrupted one leaves nothing. ``text_training`` does the same with models of text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import InvalidConfig, exit_status
from offline.baselines import RECBOLE, questions, results
from offline.baselines.questions import Asked, Questions
from offline.baselines.results import Answer, AnsweredTest, Recipe, Results
from offline.baselines.tuning import Answering, Budget, Clock, Learner, Maker, Settings, Tuned, train_epoch, tune
from offline.progress import Console, Progress

BATCH = 128
"""Larger ones take longer on a CPU."""
GRID: tuple[Settings, ...] = tuple({"learning_rate": rate, "train_batch_size": BATCH} for rate in (1e-3, 3e-3))


@dataclass(frozen=True)
class Library:
    """Where models come from."""

    name: str
    """as ``Recipe.library``"""
    maker: Callable[[str], Maker]
    """by the model's name"""
    grid: Sequence[Settings] = GRID
    told: Callable[[str, Questions], Questions] = lambda _, asked: asked
    """what a model is told, by its name, of the questions as they are asked"""


def train_all(
    folder: Path,
    models: Sequence[str],
    minutes: float,
    seed: int,
    library: Library,
    clock: Clock,
    progress: Progress,
) -> None:
    """Train each of ``models`` that has no results by this recipe. Raises TrainingError or InvalidConfig."""
    asked = questions.read(folder / questions.FOLDER)
    for model in models:
        told = library.told(model, asked)
        recipe = Recipe(model, library.name, list(library.grid), minutes, seed, told.digest)
        before = results.read(folder / model)
        if before is not None and before.recipe == recipe:
            progress.say(f"{model}: trained already, by this recipe and for these questions")
            continue
        progress.say(f"{model} ({library.name}): {minutes:g} minutes, seed {seed}")
        tests = [AnsweredTest(test.start, test.until, test.digest) for test in asked.tests]
        _train(recipe, told, tests, library.maker(model), folder / model, clock, progress)


def _train(
    recipe: Recipe,
    told: Questions,
    tests: Sequence[AnsweredTest],
    make: Maker,
    out: Path,
    clock: Clock,
    progress: Progress,
) -> None:
    budget = Budget(60 * recipe.budget, clock, clock())
    tuned = tune(make, recipe.grid, told, budget, recipe.seed, progress)
    learner = make(tuned.settings, told.everything, recipe.seed)
    _train_on_everything(learner, tuned, recipe.model, progress)
    seconds = recipe.budget * 60 - budget.left
    answering = Answering(learner, told.everything)
    settled = Results(
        recipe,
        told.about,
        learner.parameters,
        tuned.settings,
        tuned.epochs,
        tuned.tried,
        round(seconds, 1),
        tests,
        dict(zip(learner.stages, tuned.schedule, strict=False)),
    )
    results.write(settled, answering.article, [_answer(answering, test) for test in told.tests], out)
    progress.say(f"{recipe.model}: {tuned.epochs} epochs, {seconds:.0f} s")


def _train_on_everything(learner: Learner, tuned: Tuned, model: str, progress: Progress) -> None:
    """As many epochs of each stage as were best."""
    done = 0
    for stage, epochs in enumerate(tuned.schedule):
        if stage:
            learner.next_stage()
        for _ in range(epochs):
            done += 1
            train_epoch(learner, f"{model} on everything, epoch {done}/{tuned.epochs}", progress)


def _answer(answering: Answering, test: Asked) -> Answer:
    histories = test.histories
    return Answer(
        len(histories),
        lambda rows: answering.scores([histories[customer] for customer in range(rows.start, rows.stop)]),
    )


# --- the commands -------------------------------------------------------------------------------------------------


def command(name: str, known: Sequence[str]) -> argparse.ArgumentParser:
    """The options of a command ``name`` that trains ``known`` models."""
    parser = argparse.ArgumentParser(prog=f"python -m offline.baselines.{name}", description="train the baselines")
    parser.add_argument("folder", type=Path, help="a run's folder 'baselines', with questions")
    parser.add_argument("--models", default="", help=f"which, separated by commas (default: {','.join(known)})")
    parser.add_argument("--budget", type=float, default=10.0, metavar="MINUTES", help="for each model (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def train_as_told(options: argparse.Namespace, known: Sequence[str], library: Callable[[], Library]) -> None:
    """Do what ``command`` was told; ``library`` is opened once the options are found good. Raises a ModisteError."""
    if not options.budget > 0:
        raise InvalidConfig(f"--budget: must be more than 0 minutes, not {options.budget:g}")
    models = _models(options.models, known)
    train_all(options.folder, models, options.budget, options.seed, library(), time.monotonic, Console())


def _models(text: str, known: Sequence[str]) -> list[str]:
    """Raises InvalidConfig where one does not exist."""
    names = text.replace(",", " ").split() or list(known)
    for name in names:
        if name not in known:
            raise InvalidConfig(f"--models: there is no '{name}'; known are {', '.join(known)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. A ModisteError becomes one line, Ctrl-C status 130."""
    options = command("training", RECBOLE).parse_args(arguments)
    return exit_status("baselines", lambda: train_as_told(options, RECBOLE, _recbole))


def _recbole() -> Library:
    from offline.baselines.recbole_models import LIBRARY, maker  # noqa: PLC0415 (other environments lack it)

    return Library(LIBRARY, maker)


if __name__ == "__main__":
    sys.exit(main())
