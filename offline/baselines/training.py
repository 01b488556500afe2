"""``python -m offline.baselines.training FOLDER``: train, tune and ask the baselines, in the environment of RecBole.

FOLDER is a run's folder ``baselines``, with the questions in it. A model whose results are there already, by the same
recipe, is left as it is; an interrupted one leaves nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from model_store.errors import InvalidConfig, exit_status
from offline.baselines import MODELS, questions, results
from offline.baselines.questions import Asked, Questions
from offline.baselines.results import Answer, AnsweredTest, Recipe, Results
from offline.baselines.tuning import Answering, Budget, Clock, Maker, train_epoch, tune
from offline.progress import Console, Progress

BATCH = 128
"""Larger ones take longer on a CPU."""
GRID = tuple({"learning_rate": rate, "train_batch_size": BATCH} for rate in (1e-3, 3e-3))


def train_all(
    folder: Path,
    models: Sequence[str],
    minutes: float,
    seed: int,
    maker: Callable[[str], Maker],
    library: str,
    clock: Clock,
    progress: Progress,
) -> None:
    """Train each of ``models`` that has no results by this recipe. Raises TrainingError or InvalidConfig."""
    asked = questions.read(folder / questions.FOLDER)
    digest = asked.digest
    for model in models:
        recipe = Recipe(model, library, list(GRID), minutes, seed, digest)
        before = results.read(folder / model)
        if before is not None and before.recipe == recipe:
            progress.say(f"{model}: trained already, by this recipe and for these questions")
            continue
        progress.say(f"{model}: {minutes:g} minutes, seed {seed}")
        _train(recipe, asked, maker(model), folder / model, clock, progress)


def _train(recipe: Recipe, asked: Questions, make: Maker, out: Path, clock: Clock, progress: Progress) -> None:
    budget = Budget(60 * recipe.budget, clock, clock())
    tuned = tune(make, recipe.grid, asked, budget, recipe.seed, progress)
    learner = make(tuned.settings, asked.everything, recipe.seed)
    for epoch in range(1, tuned.epochs + 1):
        train_epoch(learner, f"{recipe.model} on everything, epoch {epoch}/{tuned.epochs}", progress)
    seconds = recipe.budget * 60 - budget.left
    answering = Answering(learner, asked.everything)
    tests = [AnsweredTest(test.start, test.until, test.digest) for test in asked.tests]
    settled = Results(
        recipe, asked.about, learner.parameters, tuned.settings, tuned.epochs, tuned.tried, round(seconds, 1), tests
    )
    results.write(settled, answering.article, [_answer(answering, test) for test in asked.tests], out)
    progress.say(f"{recipe.model}: {tuned.epochs} epochs, {seconds:.0f} s")


def _answer(answering: Answering, test: Asked) -> Answer:
    histories = test.histories
    return Answer(
        len(histories),
        lambda rows: answering.scores([histories[customer] for customer in range(rows.start, rows.stop)]),
    )


def _models(text: str) -> list[str]:
    """Raises InvalidConfig where one does not exist."""
    names = text.replace(",", " ").split() or list(MODELS)
    for name in names:
        if name not in MODELS:
            raise InvalidConfig(f"--models: there is no '{name}'; known are {', '.join(MODELS)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. A ModisteError becomes one line, Ctrl-C status 130."""
    parser = argparse.ArgumentParser(prog="python -m offline.baselines.training", description="train the baselines")
    parser.add_argument("folder", type=Path, help="a run's folder 'baselines', with questions")
    parser.add_argument("--models", default="", help=f"which, separated by commas (default: {','.join(MODELS)})")
    parser.add_argument("--budget", type=float, default=10.0, metavar="MINUTES", help="for each model (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return exit_status("baselines", lambda: _train_as_told(options))


def _train_as_told(options: argparse.Namespace) -> None:
    if not options.budget > 0:
        raise InvalidConfig(f"--budget: must be more than 0 minutes, not {options.budget:g}")
    models = _models(options.models)
    from offline.baselines.recbole_models import LIBRARY, maker  # noqa: PLC0415 (other environments lack it)

    train_all(options.folder, models, options.budget, options.seed, maker, LIBRARY, time.monotonic, Console())


if __name__ == "__main__":
    sys.exit(main())
