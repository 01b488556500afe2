"""Fine-tuning of the language model with LoRA (Amazon 2024, §4.3, §5.1).

One epoch over all prompts; then those whose responses are the most perplexing to the model so far are gone through
again. The base stays as it is; only low-rank adapters of all its linear layers learn, and only from the responses.
Where CUDA and bitsandbytes are, the base is held in 4-bit NF4 (QLoRA). Several processes (``torchrun``) share every
batch, through accelerate.

As in ``offline.training``, everything random is drawn from generators seeded by (seed, stage, epoch, step, part,
rank): a training that was killed goes on from its checkpoint exactly as if it had never stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor

from model_store.errors import InvalidConfig, TrainingError
from offline.config import LoraConfig, Schedule
from offline.language_models import base_directory, evaluating, read_config
from offline.lora import autocast, with_adapter, write_adapter
from offline.progress import Bar, Progress, Silent
from offline.responses import bucketed_batches, collate, in_parts, on_device, perplexities, response_losses
from offline.sequences import Tokenised
from offline.training import Curve, Rows, derive, learning_rate, load_checkpoint, seed_torch
from offline.world import World

BASE, ALL_PROMPTS, HARD_PROMPTS = STAGES = ("base", "all prompts", "hard prompts")

OnStage = Callable[[str, Any], Mapping[str, float] | None]


def fine_tune(
    base: str | Path,
    examples: Sequence[Tokenised],
    config: LoraConfig,
    *,
    adapter: Path,
    checkpoint: Path,
    seed: int,
    recipe: str,
    progress: Progress | None = None,
    on_stage: OnStage | None = None,
    world: World | None = None,
    precision: str = "auto",
    clock: Callable[[], float] = time.perf_counter,
) -> Curve:
    """Train an adapter of ``base`` (a directory or hub id) on ``examples`` and write it to ``adapter`` (peft's format).

    ``on_stage(name, model)`` is called, in the first process, with the model as it is at "base", after "all prompts"
    and after "hard prompts", in evaluation mode; the figures it gives become part of the curve. A stage that was
    reported before a resumption is not reported again. ``precision``: fp32, or anything else for bfloat16 where the
    device computes in it. ``clock`` gives seconds. ``recipe``, ``checkpoint``: as for ``offline.training.fit``.

    Returns one row per epoch: ``stage`` (1: all prompts, 2: hard ones; row 0 holds the base's figures alone),
    ``epoch``, ``loss`` in nats per response token, ``lr`` and the figures. Raises InvalidConfig for a base that cannot
    be opened or cannot read the examples, TrainingError (stage, epoch, step) where the loss or gradient is not finite.
    """
    if not examples:
        raise TrainingError("language_model: there is nothing to learn from")
    accelerator = Accelerator(cpu=world is not None and world.device.type == "cpu")
    folder = base_directory(base)
    longest = _longest(folder, examples)
    seed_torch(derive(seed, "language_model", "adapter"))
    model = with_adapter(folder, config, accelerator.device, precision, longest)
    tuner = _FineTuner(
        model,
        examples,
        config,
        accelerator=accelerator,
        checkpoint=checkpoint,
        seed=seed,
        recipe=recipe,
        progress=progress if progress and accelerator.is_main_process else Silent(),
        on_stage=on_stage or (lambda *_: None),
        autocast=autocast(accelerator.device, precision),
        clock=clock,
    )
    curve = tuner.run()
    if accelerator.is_main_process:
        write_adapter(model, Path(base).name, adapter)
    accelerator.wait_for_everyone()
    return curve


def _longest(folder: Path, examples: Sequence[Tokenised]) -> int:
    """Tokens of the longest example, which the base must be able to read."""
    most = getattr(read_config(folder), "max_position_embeddings", None)
    longest = max(len(example.prompt) + len(example.response) for example in examples)
    if most is not None and longest > most:
        raise InvalidConfig(
            f"language_model.base reads {most} tokens, but an example has {longest}: lower language_model.max_tokens"
        )
    return longest


@dataclass
class _State:
    """Where the training stands, besides weights and optimiser. ``stage``: index in STAGES of the one to be done."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    tokens: float = 0.0
    hard: list[int] = field(default_factory=list)
    curve: Curve = field(default_factory=list)


class _FineTuner:
    def __init__(
        self,
        model: PeftModel,
        examples: Sequence[Tokenised],
        config: LoraConfig,
        *,
        accelerator: Accelerator,
        checkpoint: Path,
        seed: int,
        recipe: str,
        progress: Progress,
        on_stage: OnStage,
        autocast: Callable[[], AbstractContextManager[Any]],
        clock: Callable[[], float],
    ):
        self._examples, self._config, self._accelerator = examples, config, accelerator
        self._rank, self._processes = accelerator.process_index, accelerator.num_processes
        self._checkpoint, self._seed, self._recipe = checkpoint, seed, recipe
        self._progress, self._on_stage, self._autocast, self._clock = progress, on_stage, autocast, clock
        self._model = model
        self._adapter = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._trained = accelerator.prepare(model)
        self._optimiser = self._new_optimiser()
        self._state = _State()
        self._began, self._seen = 0.0, 0  # tokens since then, for the bar

    def run(self) -> Curve:
        self._resume()
        state = self._state
        if state.stage == 0:
            self._finish_stage(BASE)
        if state.stage == 1:
            self._train(ALL_PROMPTS, np.arange(len(self._examples)), self._config.epochs)
            self._finish_stage(ALL_PROMPTS)
        if state.stage == 2:
            self._train(HARD_PROMPTS, np.array(state.hard, np.int64), self._config.hard_epochs)
            self._finish_stage(HARD_PROMPTS)
        self._model.eval()
        return state.curve

    def _train(self, stage: str, rows: Rows, epochs: int) -> None:
        for epoch in range(self._state.epoch, epochs if len(rows) else 0):
            self._train_epoch(stage, rows, epoch, epochs)
            self._finish_epoch(stage, epoch, epochs)

    def _train_epoch(self, stage: str, rows: Rows, epoch: int, epochs: int) -> None:
        self._trained.train()
        batches = bucketed_batches(self._examples, rows, self._config.batch, derive(self._seed, stage, epoch))
        self._began, self._seen = self._clock(), 0
        with self._progress.bar(f"language model, {stage} {epoch + 1}/{epochs}", len(batches), self._state.step) as bar:
            for step in range(self._state.step, len(batches)):
                done = (epoch + step / len(batches)) / epochs
                self._train_step(stage, epoch, step, batches[step], learning_rate(self._schedule, done))
                self._state.step = step + 1
                self._report(bar, batches[step])
                if self._state.step % self._config.checkpoint_steps == 0 and self._state.step < len(batches):
                    self._save()

    def _train_step(self, stage: str, epoch: int, step: int, rows: Rows, rate: float) -> None:
        tokens = sum(len(self._examples[row].response) for row in rows)
        self._optimiser.zero_grad(set_to_none=True)
        mine = rows[self._rank :: self._processes]
        # Every process takes part in every step: one without rows of its own computes another's, without weight.
        weight = self._processes / tokens if len(mine) else 0.0
        parts = in_parts(mine if len(mine) else rows[:1], self._config.micro_batch)
        total = torch.zeros((), dtype=torch.float64, device=self._accelerator.device)
        for place, part in enumerate(parts):
            seed_torch(derive(self._seed, stage, epoch, step, place, self._rank))
            wait = self._accelerator.no_sync(self._trained) if place + 1 < len(parts) else nullcontext()
            with wait:
                loss = self._loss(part)
                self._accelerator.backward(loss * weight)
            total += loss.detach() * bool(weight)
        self._step(stage, epoch, step, total, rate)
        self._state.tokens += tokens

    def _loss(self, rows: Rows) -> Tensor:
        batch = on_device(self._accelerator.device, collate([self._examples[row] for row in rows]))
        with self._autocast():
            return response_losses(self._trained, batch).sum()

    def _step(self, stage: str, epoch: int, step: int, loss: Tensor, rate: float) -> None:
        total = float(self._accelerator.reduce(loss, "sum"))
        if not np.isfinite(total):
            raise self._diverged(stage, epoch, step, f"the loss became {total}")
        limit = self._config.clip_norm or float("inf")
        norm = float(self._accelerator.clip_grad_norm_(self._adapter.values(), limit))
        if not np.isfinite(norm):
            raise self._diverged(stage, epoch, step, f"the gradient became {norm}")
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._state.loss += total

    def _diverged(self, stage: str, epoch: int, step: int, what: str) -> TrainingError:
        return TrainingError(
            f"language_model, {stage}: {what} in epoch {epoch + 1}, step {step + 1}; nothing was overwritten. "
            "Lower language_model.lora.lr, or set language_model.lora.clip_norm"
        )

    def _finish_epoch(self, stage: str, epoch: int, epochs: int) -> None:
        state = self._state
        loss = state.loss / max(state.tokens, 1.0)
        rate = learning_rate(self._schedule, epoch / epochs)
        state.curve.append({"stage": float(state.stage), "epoch": epoch + 1, "loss": loss, "lr": rate})
        self._progress.say(f"language model: {stage}, epoch {epoch + 1}, loss {loss:.4f} nats per response token")
        state.epoch, state.step, state.loss, state.tokens = epoch + 1, 0, 0.0, 0.0
        self._save()

    def _finish_stage(self, stage: str) -> None:
        """Report the stage, and make ready for the next."""
        state = self._state
        figures: Mapping[str, float] = {}
        if self._accelerator.is_main_process:
            with evaluating(self._model):
                figures = self._on_stage(stage, self._model) or {}
        if not state.curve or state.curve[-1]["stage"] != state.stage:  # the base, or a stage of no epochs
            state.curve.append({"stage": float(state.stage)})
        state.curve[-1].update(figures)
        if stage == ALL_PROMPTS:
            state.hard = self._hard_prompts()
        state.stage, state.epoch = state.stage + 1, 0
        self._optimiser = self._new_optimiser()
        self._save()
        self._accelerator.wait_for_everyone()

    def _hard_prompts(self) -> list[int]:
        """Rows of the ``hard_share`` of examples with the highest perplexity, the highest first."""
        count = round(self._config.hard_share * len(self._examples))
        if not count or not self._config.hard_epochs:
            return []
        found = torch.zeros(len(self._examples), dtype=torch.float64, device=self._accelerator.device)
        mine = range(self._rank, len(self._examples), self._processes)
        with self._progress.bar("language model, perplexities", 1), self._autocast():
            part = perplexities(self._model, [self._examples[row] for row in mine], self._config.micro_batch)
        found[mine.start :: mine.step] = torch.from_numpy(part).to(found.device)
        everyones = self._accelerator.reduce(found, "sum").cpu().numpy()
        rows: list[int] = np.argsort(-everyones, kind="stable")[:count].tolist()
        return rows

    @property
    def _schedule(self) -> Schedule:
        return Schedule(lr=self._config.lr, warm_up=self._config.warm_up)

    def _new_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._adapter.values(), lr=self._config.lr, weight_decay=self._config.weight_decay)

    def _report(self, bar: Bar, rows: Rows) -> None:
        self._seen += sum(len(self._examples[row].prompt) + len(self._examples[row].response) for row in rows)
        speed = self._seen / max(self._clock() - self._began, 1e-9)
        bar.advance()
        bar.note(f"loss {self._state.loss / self._state.tokens:.4f}, {speed:,.0f} tokens/s")

    def _save(self) -> None:
        if not self._accelerator.is_main_process:
            return
        content = {
            "recipe": self._recipe,
            "state": asdict(self._state),
            "adapter": {name: value.detach() for name, value in self._adapter.items()},
            "optimiser": self._optimiser.state_dict(),
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        aside = self._checkpoint.with_name(f".{self._checkpoint.name}-{os.getpid()}")
        with aside.open("wb") as file:
            torch.save(content, file)
        aside.replace(self._checkpoint)

    def _resume(self) -> None:
        content = load_checkpoint(self._checkpoint, self._accelerator.device)
        self._accelerator.wait_for_everyone()  # before the first process writes another
        if content is None:
            return
        if content["recipe"] != self._recipe:
            self._progress.say("language model: the checkpoint belongs to another configuration; starting anew")
            return
        with torch.no_grad():
            for name, value in self._adapter.items():
                value.copy_(content["adapter"][name])
        self._optimiser.load_state_dict(content["optimiser"])
        self._state = _State(**content["state"])
        stage = STAGES[min(self._state.stage, 2)]
        self._progress.say(f"language model: going on with {stage}, epoch {self._state.epoch + 1}, "
                           f"step {self._state.step + 1}")  # fmt: skip
