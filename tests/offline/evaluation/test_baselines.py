"""Baselines in the evaluation: ranked by the scores that lie in the run's folder, where they answer these questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from baseline_learners import Successors
from small_runs import make_run
from tiny_shops import DAY, START, tiny_shop

import modiste
from model_store.dataset import DataSet
from offline.baselines import FOLDER, questions, results
from offline.baselines.asking import ask
from offline.baselines.training import Library, train_all
from offline.evaluation.backtest import Options, Result, run_backtest, tasks
from offline.evaluation.baselines import BaselineRanking, baselines_of
from offline.evaluation.ranks import rank
from offline.hold_out import Protocol, training_data
from offline.progress import Silent
from offline.run import Run

CUTOFF = START + 110 * DAY
WINDOWS = Options(days=3, windows=3, samples=20)


def answered(folder: Path, data: DataSet, protocol: Protocol = "by_time", options: Options | None = None) -> Run:
    """A run with the answers of two baselines to the questions of ``options``."""
    run = make_run(folder, training_data(data, protocol), CUTOFF, hold_out=protocol)
    questions.write(ask(data, run, options or Options()), folder / FOLDER / questions.FOLDER)
    train_all(folder / FOLDER, ["SASRec", "CORE"], 1, 0, Library("by hand", lambda _: Successors), Ticks(), Silent())
    return run


class Ticks:
    """A clock on which everything takes a second."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=40, customers=60, planted=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shop: DataSet) -> Run:
    return answered(tmp_path_factory.mktemp("runs") / "tiny", shop)


def test_ranks_agree_with_counting_by_hand(shop: DataSet, run: Run) -> None:
    """Scores are read from the file by numpy alone; the places are counted over dictionaries."""
    [task] = tasks(shop, run, Options())
    [[_, ranking]] = baselines_of(run, [task]).rankings
    folder = run.folder / FOLDER / "CORE"
    known, table = np.load(folder / "article.npy").tolist(), np.load(folder / "scores-0.npy")
    places = rank(ranking, [task.targets], lambda _: None)[0].places(
        (0, 1, 2), np.ones(len(task.targets.candidate), bool)
    )
    for row, (customer, candidate) in enumerate(zip(task.targets.customer, task.targets.candidate, strict=True)):
        scores = dict(zip(known, table[customer].tolist(), strict=True))
        all_of = [scores.get(article, float("-inf")) for article in task.candidates.tolist()]
        mine = all_of[candidate]
        assert places.above[row] == sum(one > mine for one in all_of)
        assert places.tied[row] == sum(one == mine for one in all_of)


def test_stored_scores_are_read_by_rows_and_not_held(run: Run) -> None:
    folder = run.folder / FOLDER / "CORE"
    whole, stored = np.load(folder / "scores-0.npy"), results.scores(folder, 0)
    assert stored.shape == whole.shape
    part = stored[3:7]
    np.testing.assert_array_equal(part, whole[3:7])
    assert part.base is None  # no view of the file, which would keep it mapped


def test_what_a_model_does_not_know_ties_below_all_that_it_knows() -> None:
    table = np.array([[0.5, -3e8], [2, 2]], np.float32)
    found = BaselineRanking("CORE", 1, table, np.array([-1, 1, 0, -1])).scores(slice(0, 2))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for row, known in zip(found, table, strict=True):
        assert (row[[2, 1]] == known).all()
        assert row[0] == row[3] < known.min()


@pytest.mark.parametrize("protocol", ["by_time", "last_order", "last_purchase"])
def test_baselines_are_ranked_and_compared_in_all_protocols(tmp_path: Path, shop: DataSet, protocol: Protocol) -> None:
    options = WINDOWS if protocol == "by_time" else Options(samples=20)
    result = run_backtest(shop, answered(tmp_path / "run", shop, protocol, options), options, Silent())
    [every] = [one for one in result.tables if one.table.name == "all"]
    assert list(every.models)[-3:] == ["SASRec", "CORE", "blended"]
    assert {("blended", "SASRec"), ("blended", "CORE")} <= every.differences.keys()
    assert result.contests[0].parameters["CORE"] == Successors.parameters
    assert len(result.contests) == (3 if protocol == "by_time" else 1)
    assert result.baselines.left_out == []


def backtest(shop: DataSet, run: Run, options: Options) -> Result:
    return run_backtest(shop, run, replace(options, samples=5), Silent())


def test_answers_to_other_windows_are_left_out(shop: DataSet, run: Run) -> None:
    result = backtest(shop, run, WINDOWS)
    assert not {"SASRec", "CORE"} & result.contests[0].ranks.keys()
    assert result.baselines.left_out == [
        f"{model} is left out: it was not asked for 3 of the 3 windows as they are; 'make baselines' asks it anew"
        for model in ("SASRec", "CORE")
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("fingerprint", "0" * 64), ("cutoff", CUTOFF - DAY), ("hold_out", "last_order"), ("validation_from", 7)],
)
def test_answers_of_another_split_are_left_out(tmp_path: Path, shop: DataSet, field: str, value: str | int) -> None:
    run = answered(tmp_path / "run", shop)
    path = run.folder / FOLDER / "CORE" / "results.json"
    plain = orjson.loads(path.read_bytes())
    plain["about"][field] = value
    path.write_bytes(orjson.dumps(plain))
    found = baselines_of(run, tasks(shop, run, Options()))
    assert [one.recipe.model for one in found.results] == ["SASRec"]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith(f"CORE is left out: its {field} is {value}, the run's ")


def test_answers_for_other_histories_are_left_out(tmp_path: Path, shop: DataSet) -> None:
    """The same split and windows, but one customer was told with another history."""
    run = answered(tmp_path / "run", shop)
    folder = run.folder / FOLDER
    asked = questions.read(folder / questions.FOLDER)
    [test] = asked.tests
    article = test.histories.article.copy()
    article[0] = (article[0] + 1) % len(shop.article_ids)
    changed = replace(test, histories=replace(test.histories, article=article))
    questions.write(replace(asked, tests=[changed]), folder / questions.FOLDER)
    train_all(folder, ["CORE"], 1, 0, Library("by hand", lambda _: Successors), Ticks(), Silent())
    found = baselines_of(run, tasks(shop, run, Options()))
    assert [one.recipe.model for one in found.results] == ["SASRec"]
    assert "not asked for 1 of the 1 windows" in found.left_out[0]


def test_a_run_without_baselines_has_none(tmp_path: Path, shop: DataSet) -> None:
    run = make_run(tmp_path / "run", shop, CUTOFF)
    found = baselines_of(run, tasks(shop, run, Options()))
    assert (found.results, found.rankings, found.left_out) == ([], [[]], [])


def test_the_report_tells_how_baselines_were_trained(
    tmp_path: Path, shop: DataSet, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--data", str(shop.folder), "--run", str(run.folder), "--bootstrap", "5", "--report"]
    assert modiste.main([*command, str(tmp_path / "one")]) == 0
    text = (tmp_path / "one" / "report.md").read_text(encoding="utf-8")
    assert "| baseline | SASRec (by hand): learning_rate 0.001" in text
    assert "budget of 1 minutes, seed 0 |" in text
    assert "| blended − CORE |" in text
    report = orjson.loads((tmp_path / "one" / "report.json").read_bytes())
    assert [one["model"] for one in report["baselines"]] == ["SASRec", "CORE"]
    assert "blended - SASRec" in report["tables"]["all"]["differences"]
    capsys.readouterr()
    assert modiste.main([*command, str(tmp_path / "two"), "--window-days", "2"]) == 0
    line = "CORE is left out: it was not asked for 1 of the 1 windows as they are"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "two" / "report.md").read_text(encoding="utf-8")
    assert results.read(run.folder / FOLDER / "CORE") is not None
