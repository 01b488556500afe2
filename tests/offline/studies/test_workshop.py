from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_shops import STYLE, workshop
from tiny_shops import tiny_shop

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from offline.config import Config
from offline.progress import Silent
from offline.run import Run
from offline.studies.losses import LOSSES, NEGATIVES
from offline.studies.subsets import nested_customers, only_customers
from offline.studies.workshop import changed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=40, customers=60)


def inode(run: Run, name: str) -> int:
    return (run.folder / name).stat().st_ino


def test_a_setting_is_changed_and_no_other() -> None:
    config = Config.model_validate(STYLE)
    other = changed(config, {"style_lstm.loss": "sigmoid", "generation.prompts.attributes": ["brand"]})
    assert other.style_lstm == config.style_lstm.model_copy(update={"loss": "sigmoid"})
    assert other.generation.prompts.attributes == ("brand",)
    assert other.model_copy(update={"style_lstm": config.style_lstm, "generation": config.generation}) == config
    with pytest.raises(InvalidConfig, match=r"the variant: style_lstm\.loss"):
        changed(config, {"style_lstm.loss": "hinge"})


def test_what_variants_have_in_common_is_trained_once(data: DataSet, tmp_path: Path) -> None:
    shop = workshop(tmp_path, data, STYLE)
    first = shop.run("first", {"style_lstm.loss": "rank"})
    second = shop.run("second", {"style_lstm.loss": "sigmoid"})
    for name in ("article_dna.safetensors", "popularity.safetensors", "static.safetensors"):
        assert inode(first, name) == inode(second, name)
    weights = {run.existing("style_lstm.safetensors").read_bytes() for run in (first, second)}
    assert len(weights) == 2
    assert second.load_model("config", Config).style_lstm.loss == "sigmoid"
    assert first.load_model("config", Config).style_lstm.loss == "rank"


def test_a_base_run_is_taken_over_and_a_complete_run_left_alone(data: DataSet, tmp_path: Path) -> None:
    base = workshop(tmp_path / "one", data, STYLE).full()
    shop = workshop(tmp_path / "two", data, STYLE, (base,))
    run = shop.full()
    assert inode(run, "style_lstm.safetensors") == inode(base, "style_lstm.safetensors")
    trained = run.existing("stages/style_lstm.json").stat().st_mtime_ns
    assert shop.full().existing("stages/style_lstm.json").stat().st_mtime_ns == trained


class StoppedAt(Silent):
    """Ctrl-C when a line with these words is said."""

    def __init__(self, words: str):
        self._words = words

    def say(self, line: str) -> None:
        if self._words in line:
            raise KeyboardInterrupt


def test_a_study_that_was_stopped_goes_on_where_it_was(data: DataSet, tmp_path: Path) -> None:
    whole = workshop(tmp_path, data, STYLE)
    with pytest.raises(KeyboardInterrupt):
        replace(whole, progress=StoppedAt("style_lstm: epoch 1")).full()
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/full/stages").iterdir()}
    assert {path.stem for path in records} == {"images", "fashion_dna", "popularity"}
    run = whole.full()
    assert {path: path.stat().st_mtime_ns for path in records} == records
    straight = workshop(tmp_path / "straight", data, STYLE).full()
    for name in ("style_lstm", "article_dna"):
        for key, value in straight.load_arrays(name).items():
            np.testing.assert_array_equal(run.load_arrays(name)[key], value)


def test_a_share_is_cut_where_the_whole_is_and_shares_its_pictures(data: DataSet, tmp_path: Path) -> None:
    shop = workshop(tmp_path, data, STYLE)
    full = shop.full()
    [chosen] = nested_customers(data, shop.split().cutoff, [0.5], seed=0)
    part = only_customers(data, chosen, tmp_path / "part", "half")
    run = shop.run("half", shop.same_cut(part), part)
    whole, cut = (one.load_json("split") for one in (full, run))
    assert (cut["validation_from"], cut["cutoff"]) == (whole["validation_from"], whole["cutoff"])
    assert inode(run, "image_embeddings.safetensors") == inode(full, "image_embeddings.safetensors")
    assert set(run.load_json("static_customers")) <= chosen
    assert inode(run, "article_dna.safetensors") != inode(full, "article_dna.safetensors")


def test_the_losses_are_the_papers() -> None:
    assert LOSSES == ("rank", "sigmoid", "softmax")
    assert NEGATIVES == (5, 20, 50)
