"""The one training loop, for every stage.

Everything random in step j of epoch e (order of rows, shuffles, negatives, dropout) is drawn from generators seeded by
(seed, stage, e, j, rank). The state of every generator and sampler is therefore (e, j) itself, and a training that was
killed goes on from its last checkpoint exactly as if it had never stopped.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model_store.errors import TrainingError
from offline.config import Schedule
from offline.progress import Bar, Progress, Silent
from offline.world import World

Rows = NDArray[np.int64]
Weights = dict[str, Tensor]
Curve = list[dict[str, float]]


class Stage(Protocol):
    """What one stage must say about itself to be trained."""

    @property
    def name(self) -> str:
        """One word, for files and messages."""

    @property
    def network(self) -> nn.Module:
        """All that is trained. Called with a batch's tensors it gives (loss summed over the batch, its weight)."""

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        """The rows of each of the epoch's batches; what an epoch shuffles is shuffled here."""

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        """The tensors of one batch, or of one process's part of it."""

    def validate(self) -> float:
        """The score of the network as it is now; higher is better. Called in evaluation mode, without gradients."""


@dataclass(frozen=True)
class Fitted:
    """``curve``: loss, validation score and learning rate by epoch. ``best_epoch`` counts from 1; 0: none helped."""

    curve: Curve
    best_epoch: int
    best_score: float


@dataclass
class _State:
    """Where the training stands, besides weights and optimiser."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    best_score: float = float("-inf")
    best_epoch: int = 0
    curve: Curve = field(default_factory=list)


def derive(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for each combination of seed and names."""
    words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.default_rng([seed, len(words), *words])  # numpy takes [1] and [1, 0] for the same seed


def seed_torch(rng: np.random.Generator) -> None:
    """Seed torch's generators, of all devices, from ``rng``."""
    torch.manual_seed(int(rng.integers(2**63)))


def shuffled_batches(rows: Rows, size: int, rng: np.random.Generator) -> list[Rows]:
    """``rows`` in random order, ``size`` at a time."""
    order = rng.permutation(rows)
    return [order[start : start + size] for start in range(0, len(order), size)]


def fit(
    stage: Stage,
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: Path,
    recipe: str = "",
    keep_last: bool = False,
    world: World | None = None,
    precision: str = "auto",
    progress: Progress | None = None,
) -> Fitted:
    """Train ``stage``; afterwards its network holds the weights of the best epoch.

    With ``keep_last`` it holds those of the last epoch and never stops early: for training on the very data that
    validation scores, where a score chooses nothing.
    ``recipe`` is everything that the result depends on, as text: a checkpoint of another recipe is not continued. The
    caller removes the checkpoint once the result is safe. Raises TrainingError (stage, epoch, step) on a loss or
    gradient that is not finite; what the run holds stays as it was.
    """
    trainer = _Trainer(
        stage,
        schedule,
        seed=seed,
        checkpoint=checkpoint,
        recipe=recipe,
        keep_last=keep_last,
        world=world or World(),
        precision=precision,
        progress=progress or Silent(),
    )
    return trainer.run()


def learning_rate(schedule: Schedule, done: float) -> float:
    """The rate after a share ``done`` (0 … 1) of all steps: linear up to ``warm_up``, then half a cosine down to 0."""
    if done < schedule.warm_up:
        return schedule.lr * max(done / schedule.warm_up, 0.01)
    rest = (done - schedule.warm_up) / (1 - schedule.warm_up)
    return float(schedule.lr * 0.5 * (1 + np.cos(np.pi * rest)))


def _mixed(precision: str, device: torch.device) -> torch.dtype | None:
    """The lower precision to compute in, or None for float32 throughout."""
    if device.type != "cuda" or precision == "fp32":
        return None
    if precision == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if precision == "bf16" else torch.float16


class _Trainer:
    def __init__(
        self,
        stage: Stage,
        schedule: Schedule,
        *,
        seed: int,
        checkpoint: Path,
        recipe: str,
        keep_last: bool,
        world: World,
        precision: str,
        progress: Progress,
    ):
        self._stage, self._schedule, self._seed, self._recipe = stage, schedule, seed, recipe
        self._checkpoint, self._world, self._progress = checkpoint, world, progress
        self._network = stage.network.to(world.device)
        self._trained: nn.Module = self._network if world.size == 1 else DistributedDataParallel(self._network)
        self._optimiser = torch.optim.AdamW(
            _parameter_groups(self._network, schedule.weight_decay), lr=schedule.lr, fused=True
        )
        self._keep_last = keep_last
        self._dtype = _mixed(precision, world.device)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=self._dtype is torch.float16)
        self._state = _State()
        self._best: Weights = {}

    def run(self) -> Fitted:
        self._resume()
        for epoch in range(self._state.epoch, self._schedule.epochs):
            if self._exhausted():
                break
            self._train_epoch(epoch)
            self._finish_epoch(epoch)
        if self._best and not self._keep_last:
            self._network.load_state_dict(self._best)
        self._network.eval()
        return Fitted(self._state.curve, self._state.best_epoch, self._state.best_score)

    def _exhausted(self) -> bool:
        waited = self._state.epoch - self._state.best_epoch
        return not self._keep_last and waited >= self._schedule.patience

    def _train_epoch(self, epoch: int) -> None:
        self._trained.train()
        batches = self._stage.batches(epoch, self._rng(epoch))
        batches = [rows for rows in batches if len(rows) >= self._world.size]  # every process needs a row
        if not batches:
            raise TrainingError(f"{self._stage.name}: there is nothing to learn from")
        title = f"{self._stage.name} {epoch + 1}/{self._schedule.epochs}"
        with self._progress.bar(title, len(batches), self._state.step) as bar:
            for step in range(self._state.step, len(batches)):
                done = (epoch + step / len(batches)) / self._schedule.epochs
                self._train_step(epoch, step, batches[step], learning_rate(self._schedule, done))
                self._state.step = step + 1
                self._report(bar)
                if self._state.step % self._schedule.checkpoint_steps == 0 and self._state.step < len(batches):
                    self._save()

    def _train_step(self, epoch: int, step: int, rows: Rows, rate: float) -> None:
        rng = self._rng(epoch, step, self._world.rank)
        seed_torch(rng)
        batch = self._stage.batch(rows[self._world.rank :: self._world.size], rng, self._world.device)
        with self._autocast():
            loss, weight = self._trained(*batch)
        both = self._world.total(torch.stack([loss.detach().double(), weight.detach().double()]))
        total, weights = both.tolist()
        if not np.isfinite(total):
            raise self._diverged(epoch, step, f"the loss became {total}")
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        # Processes average their gradients, so each scales its sum to give the mean over all of their rows.
        self._scaler.scale(loss * (self._world.size / max(weights, 1e-12))).backward()
        self._clip(epoch, step)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._state.loss += total
        self._state.weight += weights

    def _clip(self, epoch: int, step: int) -> None:
        self._scaler.unscale_(self._optimiser)
        limit = self._schedule.clip_norm or float("inf")
        norm = float(nn.utils.clip_grad_norm_(self._network.parameters(), limit))
        if not np.isfinite(norm) and not self._scaler.is_enabled():  # the scaler itself skips such a step
            raise self._diverged(epoch, step, f"the gradient became {norm}")

    def _diverged(self, epoch: int, step: int, what: str) -> TrainingError:
        return TrainingError(
            f"{self._stage.name}: {what} in epoch {epoch + 1}, step {step + 1}; nothing was overwritten. "
            f"Lower {self._stage.name}.lr, or set {self._stage.name}.clip_norm"
        )

    def _finish_epoch(self, epoch: int) -> None:
        self._trained.eval()
        with torch.inference_mode():
            score = self._world.shared(self._stage.validate() if self._world.first else 0.0)
        state = self._state
        loss = state.loss / max(state.weight, 1e-12)
        rate = learning_rate(self._schedule, epoch / self._schedule.epochs)
        state.curve.append({"epoch": epoch + 1, "loss": loss, "score": score, "lr": rate})
        better = score > state.best_score
        if better:
            state.best_score, state.best_epoch = score, epoch + 1
            self._best = {key: value.detach().clone() for key, value in self._network.state_dict().items()}
        state.epoch, state.step, state.loss, state.weight = epoch + 1, 0, 0.0, 0.0
        mark = " (best)" if better else ""
        self._progress.say(f"{self._stage.name}: epoch {epoch + 1}, loss {loss:.5f}, validation {score:.4f}{mark}")
        self._save()

    def _report(self, bar: Bar) -> None:
        bar.advance()
        bar.note(f"loss {self._state.loss / max(self._state.weight, 1e-12):.5f}")

    def _rng(self, *place: int) -> np.random.Generator:
        return derive(self._seed, self._stage.name, *place)

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._dtype is None else torch.autocast(self._world.device.type, self._dtype)

    def _save(self) -> None:
        if not self._world.first:
            return
        content = {
            "recipe": self._recipe,
            "state": asdict(self._state),
            "network": self._network.state_dict(),
            "best": self._best,
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        aside = self._checkpoint.with_name(f".{self._checkpoint.name}-{os.getpid()}")
        with aside.open("wb") as file:
            torch.save(content, file)
        aside.replace(self._checkpoint)

    def _resume(self) -> None:
        content = load_checkpoint(self._checkpoint, self._world.device)
        if content is None:
            return
        if content["recipe"] != self._recipe:
            self._progress.say(f"{self._stage.name}: the checkpoint belongs to another configuration; starting anew")
            return
        self._network.load_state_dict(content["network"])
        self._optimiser.load_state_dict(content["optimiser"])
        self._scaler.load_state_dict(content["scaler"])
        self._state, self._best = _State(**content["state"]), content["best"]
        self._progress.say(
            f"{self._stage.name}: going on from epoch {self._state.epoch + 1}, step {self._state.step + 1}"
        )


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What a checkpoint holds, or None where there is none. Raises TrainingError where it cannot be read."""
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds, none of them documented
        raise TrainingError(f"{path}: the checkpoint cannot be read ({error}); train with --fresh") from error
    return content


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, biases do not, nor what a module's ``no_decay`` names (it has a prior of its own)."""
    exempt = {id(parameter) for module in network.modules() for parameter in getattr(module, "no_decay", ())}
    decayed = [p for p in network.parameters() if p.ndim >= 2 and id(p) not in exempt]
    plain = [p for p in network.parameters() if p.ndim < 2 or id(p) in exempt]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
