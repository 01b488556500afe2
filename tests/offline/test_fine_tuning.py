from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fine_tuning_toys
import numpy as np
import pytest
import torch
from fine_tuning_toys import CONFIG, LEARNING, random_examples, readable_examples, tuned
from peft import PeftModel
from safetensors.torch import load_file
from tiny_language_models import (
    tiny_language_model,
)

from model_store.errors import InvalidConfig, TrainingError
from offline.fine_tuning import fine_tune
from offline.language_models import open_model
from offline.lora import can_quantise
from offline.responses import perplexities
from offline.sequences import Tokenised


def test_it_learns_what_can_be_learned_and_nothing_of_what_is_random(llama: Path, tmp_path: Path) -> None:
    for learnable in (True, False):
        held_out = random_examples(64, seed=1, learnable=learnable)
        seen: list[float] = []
        tuned(
            llama,
            tmp_path / str(learnable),
            random_examples(256, seed=0, learnable=learnable),
            LEARNING,
            on_stage=lambda _, model: seen.append(perplexities(model, held_out, 32).mean()),  # noqa: B023
        )
        assert seen[0] > 20, "the base knows nothing"
        if learnable:
            assert seen[-1] < 1.5
        else:  # one of 8 tokens, then the end: at best √8 per token
            assert seen[-1] > 0.98 * np.sqrt(8)


def test_only_adapters_of_all_linear_layers_learn(llama: Path, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in open_model(llama).state_dict().items()}
    models: list[PeftModel] = []
    tuned(llama, tmp_path, on_stage=lambda _, model: models.append(model))
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = {name.split("base_model.model.")[1].rsplit(".lora_", 1)[0] for name in adapter}
    assert layers == {name.removesuffix(".weight") for name in before if name.endswith("proj.weight")}
    assert all(value.abs().sum() > 0 for value in adapter.values())
    with models[-1].disable_adapter():
        after = models[-1].get_base_model().state_dict()
    for name, value in before.items():
        found = after.get(name, after.get(name.replace("proj.weight", "proj.base_layer.weight")))
        assert torch.equal(found, value), name


def test_the_paper_s_settings_reach_the_adapter(llama: Path, tmp_path: Path) -> None:
    tuned(llama, tmp_path, config=CONFIG.model_copy(update={"rank": 16, "alpha": 16, "dropout": 0.05}))
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["lora_dropout"]) == (16, 16, 0.05)
    assert str(tmp_path) not in json.dumps(written), "an adapter says nothing of the machine"
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_the_prompts_with_the_highest_perplexity_are_gone_through_again(llama: Path, tmp_path: Path) -> None:
    examples = readable_examples()
    found: dict[str, np.ndarray] = {}
    curve = tuned(
        llama, tmp_path, examples, on_stage=lambda name, model: found.update({name: perplexities(model, examples, 4)})
    )
    assert list(found) == ["base", "all prompts", "hard prompts"]
    count = round(CONFIG.hard_share * len(examples))
    hardest = np.argsort(-found["all prompts"])[:count]
    assert sorted(torch.load(tmp_path / "checkpoint.pt")["state"]["hard"]) == sorted(hardest.tolist())
    gain = np.log(found["all prompts"] / found["hard prompts"])
    assert gain[hardest].mean() > np.delete(gain, hardest).mean()
    assert [(row["stage"], row.get("epoch")) for row in curve] == [(0, None), (1, 1), (2, 1), (2, 2)]


def test_figures_of_each_stage_become_part_of_the_curve(llama: Path, tmp_path: Path) -> None:
    names = ["base", "all prompts", "hard prompts"]
    curve = tuned(llama, tmp_path, on_stage=lambda name, _: {"place": float(names.index(name))})
    assert [row.get("place") for row in curve] == [0.0, 1.0, None, 2.0]


def test_what_is_reported_is_in_evaluation_mode_and_training_goes_on_as_if_nothing_was(
    llama: Path, tmp_path: Path
) -> None:
    def disturb(_: str, model: Any) -> None:
        assert not model.training
        torch.manual_seed(99)
        torch.rand(3)

    tuned(llama, tmp_path / "a", on_stage=disturb)
    tuned(llama, tmp_path / "b")
    assert _adapter(tmp_path / "a") == _adapter(tmp_path / "b")


def test_another_seed_gives_another_adapter_and_parts_of_a_batch_the_same_one(llama: Path, tmp_path: Path) -> None:
    for name, options in {
        "a": {},
        "b": {"seed": 1},
        "parts": {"config": CONFIG.model_copy(update={"micro_batch": 2, "dropout": 0.0})},
        "whole": {"config": CONFIG.model_copy(update={"dropout": 0.0})},
    }.items():
        tuned(llama, tmp_path / name, **options)
    assert _adapter(tmp_path / "a") != _adapter(tmp_path / "b")
    parts, whole = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("parts", "whole"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 6, 8, 9])
def test_a_training_killed_at_any_step_ends_bit_equal_to_an_uninterrupted_one(
    llama: Path, tmp_path: Path, steps: int
) -> None:
    whole, told, again = tmp_path / "whole", [], []
    curve = tuned(llama, whole, on_stage=lambda name, _: told.append(name))
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        tuned(llama, killed, clock=_dies_after(steps), on_stage=lambda name, _: again.append(name))
    assert not (killed / "adapter").exists()
    assert tuned(llama, killed, on_stage=lambda name, _: again.append(name)) == curve
    assert _adapter(killed) == _adapter(whole)
    assert again == told, "each stage is reported once"


def _dies_after(steps: int) -> Callable[[], float]:
    """A clock that is read once per epoch and step, and stops the training."""
    times = iter(range(steps))

    def clock() -> float:
        try:
            return float(next(times))
        except StopIteration:
            raise KeyboardInterrupt from None

    return clock


def _adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_checkpoint_of_another_recipe_is_not_continued_and_a_damaged_one_is_told(llama: Path, tmp_path: Path) -> None:
    told: list[str] = []
    tuned(llama, tmp_path, on_stage=lambda name, _: told.append(name))
    tuned(llama, tmp_path, on_stage=lambda name, _: told.append(name))
    assert len(told) == 3
    tuned(llama, tmp_path, recipe="another", on_stage=lambda name, _: told.append(name))
    assert len(told) == 6
    (tmp_path / "checkpoint.pt").write_bytes(b"half of somethi")
    with pytest.raises(TrainingError, match=r"cannot be read.*--fresh"):
        tuned(llama, tmp_path)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path, llama: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", fine_tuning_toys.__file__, str(llama), str(tmp_path / "two")]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    curve = tuned(llama, tmp_path / "one", config=fine_tuning_toys.UNEVEN)
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    told = [line for line in result.stdout.splitlines() if line.startswith("[")]
    assert len(told) == 1, "the first process alone reports"
    losses, alone = ([row.get("loss", 0.0) for row in rows] for rows in (json.loads(told[0]), curve))
    assert losses == pytest.approx(alone, rel=1e-4)


def test_a_loss_that_is_not_finite_names_stage_epoch_and_step(tmp_path: Path) -> None:
    base = tiny_language_model(tmp_path / "base", "llama")
    model = open_model(base)
    model.model.embed_tokens.weight.data[300] = float("nan")
    model.save_pretrained(base)
    examples = random_examples(24, seed=0, learnable=True)
    poisoned = [*examples[:23], Tokenised((300,), examples[23].response)]  # the shortest: the last of its batches
    with pytest.raises(TrainingError, match=r"all prompts: the loss became nan in epoch 1, step \d; nothing was over"):
        tuned(base, tmp_path, poisoned)
    assert not (tmp_path / "adapter").exists()
    kept = torch.load(tmp_path / "checkpoint.pt")
    assert all(torch.isfinite(value).all() for value in kept["adapter"].values())


def test_what_cannot_be_trained_is_told(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to learn from"):
        tuned(llama, tmp_path, [])
    with pytest.raises(InvalidConfig, match=r"reads 1024 tokens, but an example has 1025: lower .*max_tokens"):
        tuned(llama, tmp_path, [Tokenised((1,) * 1_000, (2,) * 25)])
    other = tiny_language_model(tmp_path / "other", "llama")
    (other / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(InvalidConfig, match=r"has no tokenizer\.json"):
        tuned(other, tmp_path)
    (tmp_path / "tokenizer.json").rename(other / "tokenizer.json")
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(InvalidConfig, match="has no safetensors"):
        tuned(other, tmp_path)


def test_a_hub_id_that_cannot_be_had_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidConfig, match=r"'nobody/nothing' is no directory, and the hub does not give it") as error:
        tuned("nobody/nothing", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_base_in_four_bits_learns_too(llama: Path, tmp_path: Path) -> None:
    if not can_quantise(torch.device("cuda")):
        pytest.skip("bitsandbytes is not installed")
    held_out = random_examples(64, seed=1, learnable=True)
    seen: list[float] = []
    fine_tune(
        llama,
        random_examples(256, seed=0, learnable=True),
        LEARNING,
        adapter=tmp_path / "adapter",
        checkpoint=tmp_path / "checkpoint.pt",
        seed=0,
        recipe="toy",
        on_stage=lambda _, model: seen.append(perplexities(model, held_out, 32).mean()),
    )
    assert seen[-1] < 1.5
