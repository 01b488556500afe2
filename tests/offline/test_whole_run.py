"""A whole run of both halves, small: its stages side by side and in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from study_shops import BOTH, small_shop

from model_store.dataset import DataSet
from offline import pipeline
from offline.config import Config
from offline.generating import GeneratingModel
from offline.pipeline import stages_at_once, train
from offline.run import Run
from offline.stages import stages_of
from offline.world import World

SETTINGS = {**BOTH, "threads": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return small_shop(tmp_path_factory.mktemp("shop") / "shop")


@pytest.mark.slow
def test_a_run_is_the_same_whether_its_stages_are_trained_side_by_side_or_in_turn(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate(SETTINGS)
    runs = {cores: Run(tmp_path / str(cores)) for cores in (1, 2)}
    for cores, run in runs.items():
        monkeypatch.setattr(pipeline, "cores", lambda cores=cores: cores)
        assert stages_at_once(config, World()) == cores
        train(data, run, config)
        assert {path.stem for path in (run.folder / "stages").iterdir()} == {spec.name for spec in stages_of(config)}
        assert GeneratingModel.of_run(run, data) is not None
        assert not list((run.folder / "checkpoints").iterdir())
    for name in ("article_dna", "style_lstm", "generation/titles", "generation/ids", "adapter/adapter_model"):
        for key, value in runs[1].load_arrays(name).items():
            # Another process rounds otherwise, and Adam's first steps are as long for a gradient of almost nothing.
            np.testing.assert_allclose(runs[2].load_arrays(name)[key], value, atol=0.02, err_msg=f"{name}, {key}")
