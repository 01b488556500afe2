"""The real RecBole, in its environment, on shops whose answer is known: what follows an article is always the same one.

The models are trained and asked by the command of `make baselines`, and ranked by `modiste evaluate`'s own code.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from small_runs import DAY, START, make_run, write_shop

from model_store.dataset import DataSet
from offline.baselines import FOLDER, RECBOLE, questions, results
from offline.baselines.asking import ask
from offline.evaluation.backtest import Options, Result, run_backtest
from offline.hold_out import LAST_ORDER, training_data
from offline.progress import Silent

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-baselines" / "bin" / "python"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ARTICLES, CUSTOMERS, LENGTH = 30, 240, 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.baselines,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} does not exist: `make test-baselines` installs it"),
]


def cycle_shop(folder: Path, *, planted: bool) -> DataSet:
    """Every customer buys an article every fifth day: the next of a cycle, or else any."""
    rng, names = np.random.default_rng(0), [f"a{number:02}" for number in range(ARTICLES)]
    rows = []
    for customer in range(CUSTOMERS):
        start, first = rng.integers(ARTICLES), rng.integers(5)
        bought = start + np.arange(LENGTH) if planted else rng.integers(ARTICLES, size=LENGTH)
        days = first + 5 * np.arange(LENGTH)
        rows += [(f"c{customer:03}", names[one % ARTICLES], float(day)) for one, day in zip(bought, days, strict=True)]
    return write_shop(folder, names, rows)


def trained(folder: Path, *, planted: bool, models: str, minutes: float) -> tuple[Result, Path]:
    """What a run's evaluation finds beside baselines that were asked for each customer's last order."""
    data = cycle_shop(folder / "shop", planted=planted)
    cutoff = START + 5 * (LENGTH - 1) * DAY  # the orders before the last ones are what validation ranks
    run = make_run(folder / "run", training_data(data, LAST_ORDER), cutoff, hold_out=LAST_ORDER)
    questions.write(ask(data, run, Options()), run.folder / FOLDER / questions.FOLDER)
    command = [PYTHON, "-m", "offline.baselines.training", run.folder / FOLDER, "--models", models]
    subprocess.run([*command, "--budget", str(minutes)], cwd=folder, env=ENVIRONMENT, check=True, timeout=800)
    return run_backtest(data, run, Options(samples=200), Silent()), run.folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    return trained(tmp_path_factory.mktemp("planted"), planted=True, models="", minutes=0.8)


@pytest.mark.parametrize("model", RECBOLE)
def test_a_model_finds_what_always_follows(planted: tuple[Result, Path], model: str) -> None:
    result, _ = planted
    [every] = [one for one in result.tables if one.table.name == "all"]
    assert every.purchases == CUSTOMERS
    assert every.models["popularity"]["recall_10"].value < 0.6
    assert every.models[model]["recall_10"].low > every.models["popularity"]["recall_10"].high
    assert every.models[model]["recall_10"].value > 0.8


@pytest.mark.parametrize("model", RECBOLE)
def test_results_tell_versions_weights_and_what_was_tried(planted: tuple[Result, Path], model: str) -> None:
    found = results.read(planted[1] / FOLDER / model)
    assert found is not None
    assert found.recipe.library.startswith("RecBole 1.2.1, torch 2.13.0")
    assert found.parameters > 64 * ARTICLES
    assert len(found.tried) == 2
    assert found.epochs >= 1
    assert results.scores(planted[1] / FOLDER / model, 0).shape == (CUSTOMERS, ARTICLES)


def test_where_nothing_can_be_learned_nothing_is_found(tmp_path: Path) -> None:
    result, _ = trained(tmp_path, planted=False, models="SASRec,CORE", minutes=0.1)
    [every] = [one for one in result.tables if one.table.name == "all"]
    for model in ("SASRec", "CORE"):
        assert every.models[model]["auc"].low < 0.5 < every.models[model]["auc"].high


@pytest.fixture(scope="module")
def probed() -> dict[str, Any]:
    """What ``probe`` finds."""
    probe = Path(__file__).with_name("probe.py")
    found = subprocess.run([PYTHON, probe], env=ENVIRONMENT, capture_output=True, check=True, timeout=280)
    plain: dict[str, Any] = orjson.loads(found.stdout)
    return plain


@pytest.mark.parametrize("model", RECBOLE)
def test_padding_changes_nothing_where_it_is_left_out(probed: dict[str, Any], model: str) -> None:
    found = probed["models"][model]
    assert found["narrower"] == (model != "NextItNet")
    assert found["loss"] < 1e-5
    assert found["scores"] < 1e-4


@pytest.mark.parametrize("model", RECBOLE)
def test_the_whole_of_a_short_history_counts_and_the_latest_of_a_long_one(probed: dict[str, Any], model: str) -> None:
    found = probed["models"][model]
    assert found["first"] > 1e-4
    assert found["latest"] < 1e-4
    assert found["articles"]


def test_a_customer_of_all_articles_is_refused_where_it_would_take_for_ever(probed: dict[str, Any]) -> None:
    assert probed["of_all"] == "BERT4Rec cannot learn where a customer bought all 3 articles: leave it out"


def test_the_same_seed_gives_the_same_scores(probed: dict[str, Any]) -> None:
    assert probed["repeatable"]
