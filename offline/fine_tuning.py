"""Fine-tuning of the language model with LoRA (Amazon 2024, §4.3, §5.1).

One epoch over all prompts; then those whose responses are the most perplexing to the model so far are gone through
again. The base stays as it is; only low-rank adapters of all its linear layers learn, and only from the responses.
Where CUDA and bitsandbytes are, the base is held in 4-bit NF4 (QLoRA). Several processes (``torchrun``) share every
batch, through accelerate.

As in ``offline.training``, everything random is drawn from generators seeded by (seed, stage, epoch, step, part,
rank): a training that was killed goes on from its checkpoint exactly as if it had never stopped.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, GenerationConfig

from model_store.errors import InvalidConfig, TrainingError
from model_store.prompts import UnparseableGeneration, parse_response
from model_store.tokens import Tokenizer
from offline.config import LoraConfig, Schedule
from offline.folders import written_aside
from offline.language_models import (
    base_directory,
    copy_tokenizer,
    open_model,
    quiet_transformers,
    read_config,
    write_neutral_sampling,
)
from offline.progress import Bar, Progress, Silent
from offline.sequences import Tokenised
from offline.training import Curve, Rows, derive, learning_rate, load_checkpoint, seed_torch
from offline.world import World

BASE, ALL_PROMPTS, HARD_PROMPTS = STAGES = ("base", "all prompts", "hard prompts")

_UNLABELLED = -100  # what cross-entropy ignores
_NEIGHBOURS = 32  # batches whose prompts are sorted by length together
_SHORT = 512  # tokens up to which the CPU's plain attention beats its fused one (measured: 15 to 25% of a step)
_LARGE = 1_000_000_000  # weights from which on activations are computed again instead of kept

OnStage = Callable[[str, Any], Mapping[str, float] | None]


@dataclass(frozen=True)
class Batch:
    """``token_ids`` int64 (B, T), padded with 0 behind each response; ``labels`` int64 (B, T): −100 outside responses.

    T counts the tokens of the longest prompt and response together.
    """

    token_ids: Tensor
    labels: Tensor

    @property
    def responses_from(self) -> int:
        """The first place, over the whole batch, that a response begins at."""
        return int((self.labels != _UNLABELLED).any(dim=0).nonzero()[0])


def collate(examples: Sequence[Tokenised]) -> Batch:
    """A batch whose loss is the responses' alone."""
    lengths = [len(example.prompt) + len(example.response) for example in examples]
    token_ids = torch.zeros(len(examples), max(lengths), dtype=torch.int64)
    labels = torch.full_like(token_ids, _UNLABELLED)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        token_ids[row, :length] = torch.tensor([*example.prompt, *example.response])
        labels[row, len(example.prompt) : length] = torch.tensor(example.response)
    return Batch(token_ids, labels)


def response_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of every response's tokens in nats, float32 (B, W), 0 where there is no response.

    Padding lies behind the responses, where a causal model cannot see it: no attention mask is needed. Only the last
    W places, which foretell responses, go through the model's head.
    """
    first = batch.responses_from
    width = batch.labels.shape[1] - first
    logits = model(input_ids=batch.token_ids[:, :-1], use_cache=False, logits_to_keep=width).logits  # (B, W, V)
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.labels[:, first:].flatten(), ignore_index=_UNLABELLED, reduction="none"
    )
    return losses.view(-1, width)


def perplexities(model: nn.Module, examples: Sequence[Tokenised], batch: int) -> NDArray[np.float64]:
    """exp(mean negative log-likelihood per token) of each example's response, float64 (E); ``batch`` at a time."""
    found = np.zeros(len(examples))
    with _evaluating(model):
        for rows in _by_length(examples, np.arange(len(examples)), batch):
            part = _on(_device(model), collate([examples[row] for row in rows]))
            means = response_losses(model, part).double().sum(1) / (part.labels != _UNLABELLED).sum(1)
            found[rows] = np.exp(means.cpu().numpy())
    return found


def format_errors(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], max_new_tokens: int, batch: int = 32
) -> tuple[float, list[str]]:
    """The share of greedy answers that do not parse (§4.3: 7% after one epoch), and all answers.

    Unlike in serving, nothing holds the model to the format.
    """
    answers = greedy_answers(model, prompts, max_new_tokens, tokenizer.end, batch)
    texts = [tokenizer.decode(answer) for answer in answers]
    wrong = sum(
        not _parses(text, cut_off=tokenizer.end not in answer) for text, answer in zip(texts, answers, strict=True)
    )
    return wrong / max(len(texts), 1), texts


def greedy_answers(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, end: int, batch: int = 32
) -> list[list[int]]:
    """What the model writes after each prompt, always its likeliest token, up to and with ``end``."""
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    with _evaluating(model), quiet_transformers():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            token_ids, mask = _padded_in_front([prompts[row] for row in rows], end, _device(model))
            written = model.generate(
                input_ids=token_ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=end,
                pad_token_id=end,
            )
            for row, ids in zip(rows, written[:, token_ids.shape[1] :].tolist(), strict=True):
                answers[row] = ids[: ids.index(end) + 1] if end in ids else ids
    return answers


def _padded_in_front(prompts: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids int64 (B, T) and attention mask int64 (B, T), so that all prompts end together."""
    most = max(map(len, prompts))
    token_ids = [[padding] * (most - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (most - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(token_ids, device=device), torch.tensor(mask, device=device)


def _parses(text: str, *, cut_off: bool) -> bool:
    try:
        parse_response(text, cut_off=cut_off)
    except UnparseableGeneration:
        return False
    return True


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
    model = _with_adapter(folder, config, accelerator.device, precision, longest)
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
        autocast=_autocast(accelerator.device, precision),
        clock=clock,
    )
    curve = tuner.run()
    if accelerator.is_main_process:
        _write_adapter(model, Path(base).name, adapter)
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


def _with_adapter(folder: Path, config: LoraConfig, device: torch.device, precision: str, longest: int) -> PeftModel:
    """The base with a new adapter of all its linear layers; what it computes is not changed by it yet."""
    quantised = config.quantise == "auto" and can_quantise(device)
    half = _half(device, precision)
    options: dict[str, Any] = {}
    if device.type == "cuda":
        options["device_map"] = {"": device}
    elif longest <= _SHORT:
        options["attn_implementation"] = "eager"
    if quantised:
        options["quantization_config"] = nf4(half or torch.float32)
    # The CPU keeps float32 weights: it casts them as it computes, and an adapter trained so merges without a loss.
    dtype = (half or torch.float32) if device.type == "cuda" else torch.float32
    model = open_model(folder, dtype, **options)
    large = model.num_parameters() >= _LARGE
    if quantised:
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=large, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    elif large:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    with quiet_transformers():
        adapted: PeftModel = get_peft_model(model, _peft_config(config))
    return adapted


def _peft_config(config: LoraConfig) -> PeftConfig:
    return PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",  # of every block; never the head
        task_type="CAUSAL_LM",
    )


def can_quantise(device: torch.device) -> bool:
    """Whether QLoRA's 4-bit weights can be had."""
    return device.type == "cuda" and importlib.util.find_spec("bitsandbytes") is not None


def nf4(compute: torch.dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantisation (Dettmers et al. 2023), computing in ``compute``."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _half(device: torch.device, precision: str) -> torch.dtype | None:
    """bfloat16 where ``device`` computes in it and may, else None: float16 would need its losses scaled."""
    if precision == "fp32":
        return None
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.bfloat16 if able else None


def _autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    half = _half(device, precision)
    return nullcontext if half is None else lambda: torch.autocast(device.type, half)


def _write_adapter(model: PeftModel, base: str, adapter: Path) -> None:
    # By name, not by path: an adapter may travel.
    model.peft_config["default"].base_model_name_or_path = base
    with written_aside(adapter) as folder, quiet_transformers():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # an empty form to fill in


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
        parts = _parts(mine if len(mine) else rows[:1], self._config.micro_batch)
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
        batch = _on(self._accelerator.device, collate([self._examples[row] for row in rows]))
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
            with _evaluating(self._model):
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


def bucketed_batches(examples: Sequence[Tokenised], rows: Rows, size: int, rng: np.random.Generator) -> list[Rows]:
    """``rows`` in random order, ``size`` at a time, so that examples of one batch are of about the same length."""
    order = rng.permutation(rows)
    batches: list[Rows] = []
    for start in range(0, len(order), size * _NEIGHBOURS):
        batches += _by_length(examples, order[start : start + size * _NEIGHBOURS], size)
    return [batches[place] for place in rng.permutation(len(batches))]


def _by_length(examples: Sequence[Tokenised], rows: Rows, size: int) -> list[Rows]:
    """``rows``, ``size`` at a time, those with the longest prompts first: what does not fit shows at once."""
    order = sorted(rows.tolist(), key=lambda row: (-len(examples[row].prompt), -len(examples[row].response)))
    return _parts(np.array(order, np.int64), size)


def _parts(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _on(device: torch.device, batch: Batch) -> Batch:
    return Batch(batch.token_ids.to(device), batch.labels.to(device))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients, whatever state the caller's model is in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def merge(base: str | Path, adapter: Path, out: Path) -> None:
    """Add ``adapter`` to the weights of ``base`` and write the language model that serves, whole, to ``out``.

    A Hugging Face directory: config.json, safetensors (float32 where the base's are, else bfloat16), the base's
    tokenizer, and a generation_config.json that narrows nothing. Raises InvalidConfig.
    """
    folder = base_directory(base)
    config = read_config(folder)
    dtype = torch.float32 if config.dtype in {torch.float32, None} else torch.bfloat16
    opened = open_model(folder, dtype)
    try:
        with quiet_transformers():
            model = PeftModel.from_pretrained(opened, str(adapter), local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfig(f"{adapter}: is no adapter of {Path(base).name} ({reason})") from None
    with written_aside(out) as aside, quiet_transformers():
        merged = model.merge_and_unload(safe_merge=True)  # an adapter that is not finite raises ValueError
        merged.generation_config = GenerationConfig()  # replaced below
        merged.save_pretrained(aside, safe_serialization=True)
        copy_tokenizer(folder, aside)
        write_neutral_sampling(aside, merged.config)
