"""``python -m offline.baselines.asking --data DIR``: write what the baselines are asked into a run's folder.

They get what our own models get: training and validation purchases of the run's split, the validation window's
candidates, and for each window of the evaluation who is asked for, when, and what is known of them then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_store.dataset import DataSet
from model_store.errors import exit_status
from model_store.purchases import Purchases
from offline.baselines import FOLDER, questions, texts
from offline.baselines.questions import Questions, Sequences, Validation
from offline.baselines.telling import tell
from offline.baselines.texts import Texts
from offline.commands.evaluate import add_window, window_options
from offline.config import Config
from offline.context import known_purchases
from offline.evaluation.backtest import Options, tasks
from offline.evaluation.baselines import about, asked, histories_of
from offline.hold_out import training_data
from offline.progress import Console
from offline.run import Run, Split, default_run
from offline.style_lstm import customer_index
from offline.validation import Window


def ask(data: DataSet, run: Run, options: Options) -> Questions:
    """Gather the questions. Raises InvalidConfig, InvalidData or TrainingError in one line."""
    return ask_with_texts(data, run, options)[0]


def ask_with_texts(data: DataSet, run: Run, options: Options) -> tuple[Questions, Texts]:
    """The questions, and what models of text are told besides. Raises as ``ask`` does."""
    chosen = tasks(data, run, options)
    split, config = run.load_model("split", Split), run.load_model("config", Config)
    trained_on = training_data(data, split.hold_out)
    known = known_purchases(trained_on, split, config)
    questions = Questions(
        about(split),
        _sequences(known.training),
        _sequences(known.all),
        _validation(known.training, known.window),
        [asked(task) for task in chosen],
    )
    return questions, tell(data, trained_on, split, known, chosen)


def _sequences(purchases: Purchases) -> Sequences:
    """Of all customers, those without a purchase among them left out."""
    offsets = purchases.offsets[[True, *(purchases.offsets[1:] > purchases.offsets[:-1])]]
    return Sequences(offsets, purchases.article.astype("int64"))


def _validation(training: Purchases, window: Window) -> Validation:
    histories = histories_of(training, customer_index(training, window.customers))
    return Validation(histories, window.row, window.candidates[window.target], window.candidates)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. A ModisteError becomes one line, Ctrl-C status 130."""
    parser = argparse.ArgumentParser(prog="python -m offline.baselines.asking", description="ask the baselines")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set that the run was trained on")
    parser.add_argument("--run", type=Path, metavar="DIR", help="trained run (default: var/runs/<data folder's name>)")
    add_window(parser)
    options = parser.parse_args(arguments)
    return exit_status("baselines", lambda: _write(options))


def _write(options: argparse.Namespace) -> None:
    run = Run(options.run or default_run(options.data))
    found, words = ask_with_texts(DataSet.open(options.data), run, window_options(options))
    questions.write(found, run.folder / FOLDER / questions.FOLDER)
    texts.write(words, found, run.folder / FOLDER / texts.FOLDER)
    customers = sum(len(test.customer_ids) for test in found.tests)
    Console().say(
        f"asked for {customers:,} customers in {len(found.tests)} windows; {len(found.training.article):,} purchases "
        f"to train on while tuning, {len(found.everything.article):,} at the end; {len(words.queries):,} queries told"
    )


if __name__ == "__main__":
    sys.exit(main())
