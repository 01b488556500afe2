"""Recformer's command: what is done stays, the report says what it began with, bad options are told in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from small_runs import make_run, write_shop
from tiny_longformer import tiny_longformer
from tiny_shops import DAY, START

import modiste
from model_store.dataset import DataSet
from offline.baselines import FOLDER, RECFORMER, RECFORMER_QUERY, TEXT, questions, recformer, results, texts
from offline.baselines.asking import ask_with_texts
from offline.baselines.longformers import from_scratch
from offline.baselines.text_training import library, main
from offline.baselines.training import train_all
from offline.evaluation.backtest import Options
from offline.progress import Silent
from offline.run import Run

CUTOFF = START + 20 * DAY
SETTINGS = {"train_batch_size": 8, "tokens": 32, "sentences": 3, "window": 32}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recformer, "EPOCH", 8)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[DataSet, Run]:
    """Eight customers who bought, two of whom searched, and one who only searched so far."""
    bought = [(f"c{who}", "abcdef"[(who + day) % 6], 3.0 * day + who / 10) for who in range(8) for day in range(8)]
    searched = [("c0", "coat", 1.0), ("c1", "hat", 22.0), ("new", "hat", 20.5)]
    data = write_shop(tmp_path / "shop", list("abcdefg"), [*bought, ("new", "a", 21.0)], searches=searched)
    run = make_run(tmp_path / "run", data, CUTOFF)
    asked, words = ask_with_texts(data, run, Options())
    questions.write(asked, run.folder / FOLDER / questions.FOLDER)
    texts.write(words, asked, run.folder / FOLDER / texts.FOLDER)
    return data, run


def train(run: Run, *, seed: int = 0) -> None:
    start = from_scratch()
    start = replace(start, grid=[{"learning_rate": 1e-3, **SETTINGS}])
    folder = run.folder / FOLDER
    ticks = iter(range(10**6))
    train_all(folder, TEXT, 0.1, seed, library(folder, start), lambda: float(next(ticks)), Silent())


def test_both_are_ranked_and_said_to_be_from_scratch(tmp_path: Path, shop: tuple[DataSet, Run]) -> None:
    data, run = shop
    train(run)
    command = ["evaluate", "--data", str(data.folder), "--run", str(run.folder), "--bootstrap", "5", "--report"]
    assert modiste.main([*command, str(tmp_path / "report")]) == 0
    report = orjson.loads((tmp_path / "report" / "report.json").read_bytes())
    assert [one["model"] for one in report["baselines"]] == list(TEXT)
    assert {*TEXT} <= report["tables"]["all"]["models"].keys()
    assert report["baselines_left_out"] == []
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for model in TEXT:
        assert f"| baseline | {model} (from scratch, transformers " in text
    assert "of pre-training" in text
    assert f"| {RECFORMER_QUERY} − {RECFORMER} |" in text


def test_a_second_run_leaves_what_is_done(shop: tuple[DataSet, Run]) -> None:
    _, run = shop
    train(run)
    paths = [run.folder / FOLDER / model / "results.json" for model in TEXT]
    before = [path.stat().st_mtime_ns for path in paths]
    train(run)
    assert [path.stat().st_mtime_ns for path in paths] == before
    train(run, seed=1)
    assert all(path.stat().st_mtime_ns > time for path, time in zip(paths, before, strict=True))


def test_other_searches_train_the_one_anew_that_reads_them(shop: tuple[DataSet, Run]) -> None:
    _, run = shop
    train(run)
    folder = run.folder / FOLDER
    asked = questions.read(folder / questions.FOLDER)
    words = texts.read(folder / texts.FOLDER, asked)
    texts.write(replace(words, queries=["boots" for _ in words.queries]), asked, folder / texts.FOLDER)
    times = {model: (folder / model / "results.json").stat().st_mtime_ns for model in TEXT}
    train(run)
    again = {model: (folder / model / "results.json").stat().st_mtime_ns for model in TEXT}
    assert again[RECFORMER] == times[RECFORMER]
    assert again[RECFORMER_QUERY] > times[RECFORMER_QUERY]


def test_an_interrupted_model_leaves_nothing(shop: tuple[DataSet, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = shop

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recformer.RecformerLearner, "scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert sorted(path.name for path in (run.folder / FOLDER).iterdir()) == [questions.FOLDER, texts.FOLDER]


def test_the_command_trains_a_checkpoint_and_tells_which(tmp_path: Path, shop: tuple[DataSet, Run]) -> None:
    _, run = shop
    tiny_longformer(tmp_path / "tiny-longformer")
    folder = run.folder / FOLDER
    options = ["--models", RECFORMER, "--budget", "0.0001", "--checkpoint", str(tmp_path / "tiny-longformer")]
    assert main([str(folder), *options]) == 0
    found = results.read(folder / RECFORMER)
    assert found is not None
    assert found.recipe.library.startswith("checkpoint tiny-longformer, SHA-256 ")
    assert found.stages == {"pre-training": 1, "stage 1": 0, "stage 2": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "Recformer,CORE"], "--models: there is no 'CORE'; known are Recformer, Recformer+query"),
        (["--budget", "-1"], "--budget: must be more than 0 minutes, not -1"),
        (["--checkpoint", "nowhere"], "--checkpoint: nowhere is no directory; save a Longformer there"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err


def test_without_texts_nothing_is_trained(shop: tuple[DataSet, Run], capsys: pytest.CaptureFixture[str]) -> None:
    _, run = shop
    folder = run.folder / FOLDER / texts.FOLDER
    folder.rename(folder.with_name("elsewhere"))
    assert main([str(run.folder / FOLDER)]) == 1
    assert "holds no texts: 'make baselines' writes them first" in capsys.readouterr().err
