from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_shops import DAY, START, tiny_shop

import modiste
from model_store.bundle import Blend
from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, TrainingError
from model_store.popularity import POPULARITY
from model_store.time_features import TimeSpec
from offline.article_tables import load_networks
from offline.config import Config
from offline.context import make_split
from offline.fashion_dna import static_styles
from offline.hold_out import HeldOut
from offline.identity import run_digest
from offline.models.residual import ResidualNetwork
from offline.pipeline import train
from offline.popularity import scored_dna
from offline.progress import Silent
from offline.run import Run, Split
from offline.stages import Keeper, stages_of
from offline.style_lstm import customer_index, styles_at, trained_network
from offline.trainers import TRAIN
from offline.validation import auc, held_out_window, make_window, ranks
from offline.world import World

SETTINGS: dict[str, Any] = {
    "seed": 1,
    "images": {"height": 16, "width": 12, "epochs": 1, "min_attribute_count": 2},
    "fashion_dna": {"epochs": 25, "batch": 16, "lr": 5e-3, "hidden": 32, "min_tag_count": 1, "dropout": 0.0},
    "style_lstm": {"epochs": 4, "batch": 16, "lr": 5e-3, "clip_norm": 1.0},
}


def settings(**changes: dict[str, Any]) -> Config:
    sections = {key: {**SETTINGS.get(key, {}), **value} for key, value in changes.items()}
    return Config.model_validate({**SETTINGS, **sections})


class Lines(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def about(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSet, Run]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("planted")
    data, run = tiny_shop(folder / "shop", pictures=True), Run(folder / "run")
    train(data, run, settings())
    return data, run


def copy(run: Run, to: Path) -> Run:
    shutil.copytree(run.folder, to)
    return Run(to)


def areas(data: DataSet, run: Run) -> tuple[float, float]:
    """AUC of (static, dynamic) over the days after the cut-off, which training never saw."""
    split = run.load_model("split", Split)
    end = data.last_event + 1
    window = make_window(data.purchases(end), data.availability, split.cutoff, end, name="test")
    dna, history = run.load_arrays("article_dna")["dna"], data.purchases(split.cutoff)
    network, spec = load_networks(run)[2], run.load_model("time_spec", TimeSpec)
    dynamic = styles_at(network, spec, dna, history, customer_index(history, window.customers), window.times)
    static = static_styles(run.load_arrays("static"), run.load_json("static_customers"), window.customers)
    return auc(window, ranks(window, dna, static)), auc(window, ranks(window, scored_dna(run), dynamic))


# --- known answers ------------------------------------------------------------------------------------------


def test_planted_taste_is_found_and_its_drift_by_the_dynamic_model(planted: tuple[DataSet, Run]) -> None:
    static, dynamic = areas(*planted)
    assert static > 0.6  # half of a customer's purchases are of the taste before
    assert dynamic > 0.8
    assert dynamic > static + 0.1


def test_where_nothing_is_planted_nothing_is_found(tmp_path: Path) -> None:
    data, run = tiny_shop(tmp_path / "shop", planted=False), Run(tmp_path / "run")
    train(data, run, settings())
    static, dynamic = areas(data, run)
    noise = 4 * 0.29 / np.sqrt(200)  # four standard errors of the mean of some 200 uniform ranks
    assert abs(static - 0.5) < noise
    assert abs(dynamic - 0.5) < noise


def test_where_last_orders_are_held_out_the_style_half_finds_taste_by_the_orders_before(
    planted: tuple[DataSet, Run], tmp_path: Path
) -> None:
    data, _ = planted
    run, told = Run(tmp_path / "run"), Lines()
    train(data, run, settings(split={"hold_out": "last_order"}), told)
    split, held = run.load_model("split", Split), HeldOut.of(data, "last_order")
    assert held is not None
    assert split.cutoff == data.last_event // DAY * DAY + DAY
    spec = run.load_model("time_spec", TimeSpec)
    assert spec.horizon == split.cutoff  # training reaches to the end, not to the last days but one
    (known,) = told.about("purchases by")
    twice = HeldOut.of(held.left_out_of(data), "last_order")
    assert twice is not None
    left = len(data.purchases()) - len(held.rows) - len(twice.rows)
    assert f"{left:,} purchases" in known
    window = held_out_window(held, len(data.article_ids))
    history, dna = held.left_out_of(data).purchases(), scored_dna(run)
    styles = styles_at(
        trained_network(run), spec, dna, history, customer_index(history, window.customers), window.times
    )
    assert len(window.customers) > 100
    assert auc(window, ranks(window, dna, styles)) > 0.8


# --- what a run holds ---------------------------------------------------------------------------------------


def test_a_run_holds_what_its_page_says(planted: tuple[DataSet, Run]) -> None:
    data, run = planted
    count, customers = len(data.article_ids), len(run.load_json("static_customers"))
    dna = run.load_arrays("article_dna")["dna"]
    images = run.load_arrays("image_embeddings")
    static = run.load_arrays("static")
    assert dna.shape == (count, 128)
    assert dna.dtype == np.float32
    assert images["embedding"].shape[0] == len(images["has_image"]) == count
    assert static["style"].shape == (customers, 128)
    assert static["bias"].shape == (customers,)
    assert run.load_model("config", Config) == settings()
    assert run.load_model("blend", Blend).trend >= 0
    assert {path.stem for path in (run.folder / "stages").iterdir()} == {
        "images",
        "fashion_dna",
        "popularity",
        "style_lstm",
        "blend",
    }
    costs = [run.load_json(f"stages/{spec.name}")["cost"] for spec in stages_of(settings())]
    assert all(cost["seconds"] >= 0 and cost["peak_memory_mib"] != 0 for cost in costs)  # some take milliseconds
    assert sum(cost["seconds"] for cost in costs) > 0
    assert (run.folder / "residual" / "source.txt").read_text().startswith("small residual network")
    assert not list((run.folder / "checkpoints").iterdir())
    assert not list(run.folder.rglob(".*"))


def test_the_networks_come_back_as_they_were(planted: tuple[DataSet, Run]) -> None:
    _, run = planted
    residual, fashion_dna, style_lstm = load_networks(run)
    assert isinstance(residual, ResidualNetwork)
    assert not any(module.training for module in (residual, fashion_dna, style_lstm))
    assert style_lstm.lstm.input_size == run.load_model("time_spec", TimeSpec).step_size


def test_a_run_that_is_not_complete_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="train it"):
        load_networks(Run(tmp_path))


# --- doing it again -----------------------------------------------------------------------------------------


def test_what_is_trained_already_is_not_trained_again(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, run = planted
    again, lines = copy(run, tmp_path / "run"), Lines()
    kept = [path for path in again.folder.rglob("*") if path.suffix == ".safetensors" or path.parent.name == "stages"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    train(data, again, settings(), lines)
    assert len(lines.about("trained already")) == 5
    assert before == {path: path.stat().st_mtime_ns for path in kept}


def test_a_changed_configuration_retrains_from_there_on_and_says_why(
    planted: tuple[DataSet, Run], tmp_path: Path
) -> None:
    data, run = planted
    again, lines = copy(run, tmp_path / "run"), Lines()
    train(data, again, settings(style_lstm={"epochs": 1}), lines)
    assert [line.split(":")[0] for line in lines.about("trained already")] == ["images", "fashion_dna", "popularity"]
    assert lines.about("style_lstm: training again, because style_lstm.epochs changed")
    assert len(again.load_json("stages/style_lstm")["curve"]) == 1
    assert again.load_model("config", Config).style_lstm.epochs == 1


def test_popularity_is_trained_jointly_and_ranks_with_the_style(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, run = planted
    again = copy(run, tmp_path / "run")
    train(data, again, settings(fashion_dna={"popularity": True}))
    cutoff = scored_dna(again)
    assert cutoff[:, POPULARITY].any()
    assert (cutoff[:, POPULARITY] == again.load_arrays("popularity")["cutoff"]).all()
    assert not again.load_arrays("article_dna")["dna"][:, POPULARITY].any()
    assert not load_networks(again)[2].lstm.get_parameter("weight_ih_l0")[:, POPULARITY].any()
    assert areas(data, again)[1] > 0.8


def test_offsets_of_articles_are_kept_and_go_with_the_style_that_learned_them(
    planted: tuple[DataSet, Run], tmp_path: Path
) -> None:
    data, run = planted
    again, lines = copy(run, tmp_path / "run"), Lines()
    train(data, again, settings(style_lstm={"article_offsets": True}), lines)
    assert "images" in {line.split(":")[0] for line in lines.about("trained already")}
    offset = again.load_arrays("article_offsets")["offset"]
    sold = np.bincount(data.purchases(again.load_model("split", Split).cutoff).article, minlength=len(offset)) > 0
    assert np.abs(offset[sold]).mean() > 0
    np.testing.assert_array_equal(scored_dna(again), again.load_arrays("article_dna")["dna"] + offset)
    train(data, again, settings())
    assert not again.has("article_offsets.safetensors")


def test_fresh_trains_everything_again_to_the_same_weights(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, run = planted
    again, lines = copy(run, tmp_path / "run"), Lines()
    train(data, again, settings(), lines, fresh=True)
    assert not lines.about("trained already")
    for name in ("fashion_dna", "style_lstm", "article_dna", "static"):
        for key, value in run.load_arrays(name).items():
            np.testing.assert_array_equal(again.load_arrays(name)[key], value)


def test_what_a_stage_took_says_nothing_of_what_it_made(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    """A run whose stages took longer is the same run: nothing is trained again, and its digest stays."""
    data, run = planted
    slow, lines = copy(run, tmp_path / "run"), Lines()
    for spec in stages_of(settings()):
        record = slow.load_json(f"stages/{spec.name}")
        slow.save_json(f"stages/{spec.name}", {**record, "cost": {"seconds": 1e6, "peak_memory_mib": None}})
    train(data, slow, settings(), lines)
    assert len(lines.about("trained already")) == 5
    assert run_digest(slow) == run_digest(run)


def test_a_stage_that_fails_leaves_the_run_as_it_was(
    planted: tuple[DataSet, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = planted
    again = copy(run, tmp_path / "run")
    kept = {path: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()}

    def not_a_number(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        return positive * float("nan")

    monkeypatch.setitem(__import__("offline.style_lstm", fromlist=["LOSSES"]).LOSSES, "rank", not_a_number)
    with pytest.raises(TrainingError, match=r"style_lstm: the loss became nan in epoch 1, step 1"):
        train(data, again, settings(style_lstm={"epochs": 2}))
    assert kept == {path: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()}


def test_a_stage_that_replaces_its_result_takes_with_it_what_was_made_from_the_old_one(
    planted: tuple[DataSet, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = planted
    again = copy(run, tmp_path / "run")

    def killed(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(TRAIN, "style_lstm", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data, again, settings(fashion_dna={"epochs": 1}))
    assert again.has("fashion_dna.safetensors")
    with pytest.raises(InvalidConfig, match=r"does not exist: the run is not complete"):
        load_networks(again)


def test_a_refit_learns_from_the_validation_window_too(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, run = planted
    again = copy(run, tmp_path / "run")
    train(data, again, settings(style_lstm={"refit_epochs": 2}))
    assert [row["epoch"] for row in again.load_json("stages/style_lstm")["curve"]] == [1, 2, 3, 4, 1, 2]
    assert again.load_model("time_spec", TimeSpec).horizon == again.load_model("split", Split).cutoff
    assert areas(data, again)[1] > 0.8


@pytest.mark.slow
def test_two_processes_train_a_whole_run(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, _ = planted
    config = _write_toml(tmp_path / "tiny.toml")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "--", modiste.__file__, "train", "--data", str(data.folder)]
    command += ["--run", str(tmp_path / "run"), "--config", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("the run is complete") == 1
    assert areas(data, Run(tmp_path / "run"))[1] > 0.8


def test_no_process_trains_before_all_have_looked_what_is_trained_already(
    planted: tuple[DataSet, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who comes late takes for complete what the first one has trained meanwhile, and waits for ever."""
    happened: list[str] = []

    class Telling(World):
        def wait(self) -> None:
            happened.append("wait")

    for name in stages_of(settings()):
        monkeypatch.setitem(TRAIN, name.name, lambda _: happened.append("train"))
    monkeypatch.setattr(Keeper, "complete", lambda *_: happened.append("look"))
    train(planted[0], Run(tmp_path / "run"), settings(), world=Telling())
    assert happened == ["wait", *["look", "wait", "train", "wait"] * 5, "wait"]


# --- time ---------------------------------------------------------------------------------------------------


def test_time_is_cut_into_whole_days_from_the_end(planted: tuple[DataSet, Run]) -> None:
    data, _ = planted
    end = START + 120 * DAY
    assert data.last_event // DAY * DAY + DAY == end
    split = make_split(data, settings())
    assert (split.validation_from, split.cutoff) == (end - 20 * DAY, end - 10 * DAY)
    split = make_split(data, settings(split={"validation_days": 5, "test_days": 0}))
    assert (split.validation_from, split.cutoff) == (end - 5 * DAY, end)


def test_nothing_at_or_after_the_cutoff_matters(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, run = planted
    shorter = tmp_path / "shop"
    shutil.copytree(data.folder, shorter)
    _drop_test_events(shorter, run.load_model("split", Split).cutoff)
    train(DataSet.open(shorter), Run(tmp_path / "run"), settings(split={"validation_days": 10, "test_days": 0}))
    for name in ("article_dna", "style_lstm"):
        for key, value in run.load_arrays(name).items():
            np.testing.assert_array_equal(Run(tmp_path / "run").load_arrays(name)[key], value)
    assert Run(tmp_path / "run").load_json("blend") == run.load_json("blend")


def _drop_test_events(folder: Path, cutoff: int) -> None:
    table = pq.read_table(folder / "events.parquet")
    kept = np.asarray(table["timestamp"].cast(pa.timestamp("s", "UTC")).cast("int64")) < cutoff
    pq.write_table(table.filter(pa.array(kept)), folder / "events.parquet")


def _write_toml(path: Path) -> Path:
    lines = [f"seed = {SETTINGS['seed']}", "threads = 1", 'device = "cpu"']
    for section in ("images", "fashion_dna", "style_lstm"):
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in SETTINGS[section].items())]
    path.write_text("\n".join(lines))
    return path


def test_windows_without_purchases_are_named(planted: tuple[DataSet, Run], tmp_path: Path) -> None:
    data, _ = planted
    with pytest.raises(TrainingError, match=r"there is no purchase before the validation window"):
        train(data, Run(tmp_path), settings(split={"validation_days": 115, "test_days": 10}))


def test_the_command_trains_and_tells_faults_in_one_line(
    planted: tuple[DataSet, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = planted
    again = copy(run, tmp_path / "run")
    config = tmp_path / "tiny.toml"
    config.write_text('seed = 1\nthreads = 1\n[style_lstm]\nlos = "rank"\n')
    command = ["train", "--data", str(data.folder), "--run", str(again.folder), "--config", str(config)]
    assert modiste.main(command) == 1
    assert capsys.readouterr().err.strip().count("\n") == 0
    _write_toml(config)
    assert modiste.main(command) == 0
    assert "trained already" in capsys.readouterr().out
