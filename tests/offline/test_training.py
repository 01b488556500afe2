from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import training_toys
from torch import Tensor
from training_toys import SCHEDULE, ToyStage, weights

from model_store.errors import InvalidConfig, TrainingError
from offline.training import derive, fit, learning_rate
from offline.world import World, open_world

SCRIPT = Path(training_toys.__file__)
ROOT = SCRIPT.parents[1]


def trained(tmp_path: Path, **options: float) -> ToyStage:
    stage = ToyStage(**options)
    fit(stage, SCHEDULE, seed=3, checkpoint=tmp_path / "toy.pt", recipe="toy")
    return stage


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    stage = ToyStage()
    schedule = SCHEDULE.model_copy(update={"epochs": 60, "weight_decay": 0.0})
    fitted = fit(stage, schedule, seed=3, checkpoint=tmp_path / "toy.pt")
    assert fitted.best_score > -0.1
    assert fitted.best_score == max(row["score"] for row in fitted.curve)
    assert stage.validate() == pytest.approx(fitted.best_score)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second, other = ToyStage(0.3, noise=0.1), ToyStage(0.3, noise=0.1), ToyStage(0.3, noise=0.1)
    for stage, seed, name in ((first, 3, "a"), (second, 3, "b"), (other, 4, "c")):
        fit(stage, SCHEDULE, seed=seed, checkpoint=tmp_path / name)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.slow
def test_a_training_killed_in_the_middle_ends_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "toy.pt"
    command = [sys.executable, str(SCRIPT), str(checkpoint), str(tmp_path / "out"), "0.3", "0.1"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _stopped_inside_an_epoch(checkpoint):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "out-0.npy").exists()

    resumed = ToyStage(0.3, noise=0.1)
    fit(resumed, SCHEDULE, seed=3, checkpoint=checkpoint, recipe="toy")
    whole = ToyStage(0.3, noise=0.1)
    fit(whole, SCHEDULE, seed=3, checkpoint=tmp_path / "whole.pt", recipe="toy")
    assert 0 < resumed.steps < whole.steps
    assert torch.equal(weights(resumed), weights(whole))


def _stopped_inside_an_epoch(checkpoint: Path) -> bool:
    return checkpoint.exists() and torch.load(checkpoint, weights_only=True)["state"]["step"] > 0


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    checkpoint = tmp_path / "toy.pt"
    fit(ToyStage(), SCHEDULE, seed=3, checkpoint=checkpoint, recipe="one")
    stage = ToyStage()
    fit(stage, SCHEDULE, seed=3, checkpoint=checkpoint, recipe="other")
    assert stage.steps == 8 * SCHEDULE.epochs


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    checkpoint = tmp_path / "toy.pt"
    checkpoint.write_bytes(b"half of somethi")
    with pytest.raises(TrainingError, match=r"cannot be read.*--fresh"):
        fit(ToyStage(), SCHEDULE, seed=3, checkpoint=checkpoint)


def test_it_stops_after_patience_epochs_without_a_better_score(tmp_path: Path) -> None:
    scores = iter([1.0, 2.0, 1.5, 2.0, 9.0])

    class Fixed(ToyStage):
        def validate(self) -> float:
            return next(scores)

    schedule = SCHEDULE.model_copy(update={"patience": 2, "epochs": 5})
    fitted = fit(Fixed(), schedule, seed=3, checkpoint=tmp_path / "toy.pt")
    assert (len(fitted.curve), fitted.best_epoch, fitted.best_score) == (4, 2, 2.0)


def test_the_last_weights_can_be_kept_instead_of_the_best(tmp_path: Path) -> None:
    class Falling(ToyStage):
        score = 1.0

        def validate(self) -> float:
            self.score -= 1.0
            return self.score

    schedule = SCHEDULE.model_copy(update={"patience": 1})
    last, best = Falling(), Falling()
    fitted = fit(last, schedule, seed=3, checkpoint=tmp_path / "a.pt", keep_last=True)
    fit(best, schedule, seed=3, checkpoint=tmp_path / "b.pt")
    assert len(fitted.curve) == SCHEDULE.epochs
    assert torch.equal(weights(last), weights(trained(tmp_path)))
    assert not torch.equal(weights(last), weights(best))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_stage_epoch_and_step(tmp_path: Path, value: float) -> None:
    class Diverging(ToyStage):
        def batch(self, rows: np.ndarray, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
            x, y = super().batch(rows, rng, device)
            return (x * value, y) if self.steps == 8 + 5 else (x, y)

    checkpoint = tmp_path / "toy.pt"
    stage = Diverging()
    with pytest.raises(TrainingError, match=r"toy: the loss became nan in epoch 2, step 5; nothing was overwritten"):
        fit(stage, SCHEDULE, seed=3, checkpoint=checkpoint)
    assert torch.isfinite(weights(stage)).all()
    kept = torch.load(checkpoint, weights_only=True)
    assert all(torch.isfinite(value).all() for value in kept["network"].values())


def test_a_gradient_that_is_not_finite_is_an_error_too(tmp_path: Path) -> None:
    stage = ToyStage()
    next(stage.network.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match="the gradient became nan in epoch 1, step 1"):
        fit(stage, SCHEDULE, seed=3, checkpoint=tmp_path / "toy.pt")
    assert torch.isfinite(weights(stage)).all()


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_the_first_alone_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", str(SCRIPT), str(tmp_path / "toy.pt"), str(tmp_path / "out"), "0", "0"]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    first, second = (np.load(tmp_path / f"out-{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    alone = trained(tmp_path / "alone")
    np.testing.assert_allclose(first, weights(alone).numpy(), atol=2e-5)
    assert list(tmp_path.glob("*.pt")) == [tmp_path / "toy.pt"]


def test_only_the_first_process_writes_a_checkpoint(tmp_path: Path) -> None:
    # A second process of a world of one: it never talks to the others, and must not write either.
    fit(ToyStage(), SCHEDULE, seed=3, checkpoint=tmp_path / "toy.pt", world=World(rank=1, size=1))
    assert not list(tmp_path.iterdir())


def test_cuda_where_there_is_none_is_one_clear_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(InvalidConfig, match="torch finds no CUDA device"), open_world("cuda"):
        pass


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    schedule = SCHEDULE.model_copy(update={"lr": 1.0, "warm_up": 0.2})
    rates = [learning_rate(schedule, done) for done in np.linspace(0, 1, 21)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[:5] == sorted(rates[:5])
    assert max(rates) == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)


def test_generators_differ_by_seed_stage_and_place() -> None:
    draws = {
        float(derive(*names).random())
        for names in ((0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0), (0, "a"))
    }
    assert len(draws) == 6
