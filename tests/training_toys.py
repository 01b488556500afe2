"""A toy stage for tests of the training loop; run as a script it trains in a process of its own.

python training_toys.py CHECKPOINT OUT DROPOUT SECONDS_PER_STEP
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from offline.config import Schedule
from offline.training import Rows, fit, seed_torch, shuffled_batches
from offline.world import open_world

SCHEDULE = Schedule(batch=16, epochs=4, lr=0.02, weight_decay=0.01, patience=9, clip_norm=1.0, checkpoint_steps=3)
EXAMPLES = 128


class Toy(nn.Module):
    """Linear regression with noise on its inputs."""

    def __init__(self, dropout: float):
        super().__init__()
        seed_torch(np.random.default_rng(7))
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (self.layers(x)[:, 0] - y).square().sum(), torch.tensor(float(len(x)))


class ToyStage:
    name = "toy"

    def __init__(self, dropout: float = 0.0, pause: float = 0.0, noise: float = 0.0):
        self.network: nn.Module = Toy(dropout)
        rng = np.random.default_rng(1)
        self._x = rng.normal(size=(EXAMPLES, 5)).astype(np.float32)
        self._y = self._x.sum(axis=1)
        self._pause, self._noise = pause, noise
        self.steps = 0

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        return shuffled_batches(np.arange(EXAMPLES), SCHEDULE.batch, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        time.sleep(self._pause)
        self.steps += 1
        noise = self._noise * rng.normal(size=(len(rows), 5)).astype(np.float32)
        return torch.from_numpy(self._x[rows] + noise), torch.from_numpy(self._y[rows])

    def validate(self) -> float:
        network = self.network
        assert isinstance(network, Toy)
        guess = network.layers(torch.from_numpy(self._x))[:, 0].detach().numpy()
        return -float(np.mean((guess - self._y) ** 2))


def weights(stage: ToyStage) -> Tensor:
    """All weights, one after another."""
    return torch.cat([value.flatten() for value in stage.network.state_dict().values()])


def main(checkpoint: str, out: str, dropout: str, pause: str) -> None:
    with open_world("cpu", threads=1) as world:
        stage = ToyStage(float(dropout), float(pause), noise=0.1 if float(dropout) else 0.0)
        fit(stage, SCHEDULE, seed=3, checkpoint=Path(checkpoint), recipe="toy", world=world)
        np.save(f"{out}-{world.rank}.npy", weights(stage).numpy())
        print("wrote" if Path(checkpoint).exists() and world.first else "silent", flush=True)
    world.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
