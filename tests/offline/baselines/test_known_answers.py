"""Recformer on shops whose answer is known, asked and ranked by the code of `make baselines` and `modiste evaluate`.

A clock that counts looks at it, so that as many epochs are trained on any machine.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
from small_runs import DAY, START, make_run, write_shop

from model_store.dataset import DataSet
from offline.baselines import FOLDER, RECFORMER, RECFORMER_QUERY, TEXT, questions, texts
from offline.baselines.asking import ask_with_texts
from offline.baselines.longformers import from_scratch
from offline.baselines.text_training import library
from offline.baselines.training import train_all
from offline.evaluation.backtest import Options, run_backtest
from offline.evaluation.metrics import Estimate
from offline.hold_out import LAST_ORDER, training_data
from offline.progress import Silent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

COLOURS = ("red", "blue", "green", "black", "white", "pink")
KINDS = ("dress", "coat", "hat", "skirt", "boots")
ARTICLES, CUSTOMERS, LENGTH = len(COLOURS) * len(KINDS), 150, 7
MINUTES = 0.5


def shop(folder: Path, *, by_words: bool, searched: bool) -> DataSet:
    """Every customer buys an article every fifth day: the next kind of their colour, or else any.

    With ``searched`` they search for its title, turned about, an hour before.
    """
    rng, names = np.random.default_rng(0), [f"a{number:02}" for number in range(ARTICLES)]
    words = [(colour, kind) for colour in COLOURS for kind in KINDS]
    bought, searches = [], []
    for customer in range(CUSTOMERS):
        colour, kind, first = rng.integers(len(COLOURS)), rng.integers(len(KINDS)), rng.integers(5)
        for step in range(LENGTH):
            planted = colour * len(KINDS) + (kind + step) % len(KINDS)
            article = planted if by_words else rng.integers(ARTICLES)
            day = float(first + 5 * step)
            bought.append((f"c{customer:03}", names[article], day))
            if searched:
                searches.append((f"c{customer:03}", " ".join(reversed(words[article])), day - 1 / 24))
    titles = {name: " ".join(pair) for name, pair in zip(names, words, strict=True)}
    return write_shop(folder, names, bought, searches=searches, titles=titles)


def measured(folder: Path, figure: str, *, by_words: bool, searched: bool) -> dict[str, Estimate]:
    """A figure of all models, for each customer's last order."""
    data = shop(folder / "shop", by_words=by_words, searched=searched)
    cutoff = START + 5 * (LENGTH - 1) * DAY  # the orders before the last ones are what validation ranks
    run = make_run(folder / "run", training_data(data, LAST_ORDER), cutoff, hold_out=LAST_ORDER)
    asked, words = ask_with_texts(data, run, Options())
    questions.write(asked, run.folder / FOLDER / questions.FOLDER)
    texts.write(words, asked, run.folder / FOLDER / texts.FOLDER)
    ticks = count()
    recformer = library(run.folder / FOLDER, from_scratch())
    train_all(run.folder / FOLDER, TEXT, MINUTES, 0, recformer, lambda: float(next(ticks)), Silent())
    result = run_backtest(data, run, Options(samples=200), Silent())
    [every] = [one for one in result.tables if one.table.name == "all"]
    assert every.purchases == CUSTOMERS
    return {model: figures[figure] for model, figures in every.models.items()}


def test_where_words_tell_it_both_find_what_follows(tmp_path: Path) -> None:
    found = measured(tmp_path, "recall_1", by_words=True, searched=False)
    assert found["popularity"].high < 0.2
    for model in TEXT:
        assert found[model].low > 0.8


def test_where_only_searches_tell_it_they_are_needed(tmp_path: Path) -> None:
    found = measured(tmp_path, "recall_1", by_words=False, searched=True)
    assert found[RECFORMER_QUERY].low > 0.8
    assert found[RECFORMER].high < 0.2


def test_where_nothing_can_be_learned_nothing_is_found(tmp_path: Path) -> None:
    found = measured(tmp_path, "auc", by_words=False, searched=False)
    for model in TEXT:
        assert found[model].low < 0.5 < found[model].high
