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
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from tiny_language_models import (
    ARCHITECTURES,
    VOCABULARY,
    Architecture,
    tiny_articles,
    tiny_language_model,
    tiny_prompt,
)

from model_store.errors import InvalidConfig, TrainingError
from model_store.prompts import PromptSpec, PromptWriter, response_text
from model_store.records import Article
from model_store.tokens import Tokenizer
from offline.fine_tuning import fine_tune
from offline.greedy import format_errors, greedy_answers
from offline.language_models import open_model, quiet_transformers
from offline.lora import can_quantise, merge
from offline.responses import Batch, bucketed_batches, collate, perplexities, response_losses
from offline.sequences import Tokenised

tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=12).map(tuple)
examples_of_any_length = st.lists(st.builds(Tokenised, prompt=tokens, response=tokens), min_size=1, max_size=6)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language_model(tmp_path_factory.mktemp("base") / "llama", "llama")


# --- what is learned from -----------------------------------------------------------------------------------------


@given(examples_of_any_length)
def test_labels_are_the_responses_tokens_and_nothing_else(examples: list[Tokenised]) -> None:
    batch = collate(examples)
    assert batch.token_ids.shape == batch.labels.shape
    for example, ids, labels in zip(examples, batch.token_ids.tolist(), batch.labels.tolist(), strict=True):
        start, end = len(example.prompt), len(example.prompt) + len(example.response)
        assert tuple(ids[:end]) == example.prompt + example.response
        assert labels == [-100] * start + list(example.response) + [-100] * (len(ids) - end)
    assert batch.responses_from == min(len(example.prompt) for example in examples)


def test_a_truncated_response_is_learned_as_far_as_it_goes_and_does_not_end(llama: Path) -> None:
    tokenizer = Tokenizer.of_model(llama)
    article = Article(article_id="a001", title="navy jacket " * 10, category="jacket")
    writer = PromptWriter(PromptSpec(response_tokens=16), tokenizer)
    response = writer.response_ids(article)
    assert len(tokenizer.encode(response_text(article))) > 16
    batch = collate([Tokenised((5, 6, 7), tuple(response))])
    learned = batch.labels[batch.labels != -100].tolist()
    assert learned == tokenizer.encode(response_text(article))[:16]
    assert tokenizer.end not in learned


@settings(max_examples=10)
@given(examples=examples_of_any_length)
def test_losses_are_those_of_each_response_alone(llama: Path, examples: list[Tokenised]) -> None:
    model = open_model(llama)
    with torch.no_grad():
        losses = response_losses(model, collate(examples)).sum(1)
        expected = [_loss_by_hand(model, example).sum() for example in examples]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-5)
    found = perplexities(model, examples, batch=2)
    by_hand = [np.exp(_loss_by_hand(model, example).mean()) for example in examples]
    np.testing.assert_allclose(found, by_hand, rtol=2e-5)


def _loss_by_hand(model: Any, example: Tokenised) -> np.ndarray:
    """−log softmax of the whole sequence's logits at the response's tokens, in float64 numpy."""
    with torch.no_grad():
        logits = model(torch.tensor([example.prompt + example.response])).logits[0].double().numpy()
    places = np.arange(len(example.prompt), len(example.prompt) + len(example.response))
    rows = logits[places - 1]
    return np.log(np.exp(rows).sum(1)) - rows[np.arange(len(places)), list(example.response)]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80), size=st.integers(1, 9), seed=st.integers(0, 2**32)
)
def test_every_example_is_in_exactly_one_batch(lengths: list[int], size: int, seed: int) -> None:
    examples = [Tokenised((1,) * length, (2,)) for length in lengths]
    batches = bucketed_batches(examples, np.arange(len(examples)), size, np.random.default_rng(seed))
    assert sorted(row for batch in batches for row in batch) == list(range(len(examples)))
    assert all(1 <= len(batch) <= size for batch in batches)


def test_batches_hold_little_padding_and_come_in_another_order_each_epoch() -> None:
    rng = np.random.default_rng(0)
    examples = [Tokenised((1,) * int(length), (2,)) for length in rng.integers(10, 500, 640)]
    batches = bucketed_batches(examples, np.arange(640), 16, np.random.default_rng(1))
    padded = sum(len(batch) * max(len(examples[row].prompt) for row in batch) for batch in batches)
    assert padded < 1.1 * sum(len(example.prompt) for example in examples)
    other = bucketed_batches(examples, np.arange(640), 16, np.random.default_rng(2))
    assert [batch.tolist() for batch in batches] != [batch.tolist() for batch in other]
    lengths = [len(examples[batch[0]].prompt) for batch in batches]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.5  # not sorted from long to short


# --- training -----------------------------------------------------------------------------------------------------


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


# --- what the model writes ----------------------------------------------------------------------------------------


def test_answers_in_batches_are_those_one_by_one(llama: Path) -> None:
    tokenizer, model = Tokenizer.of_model(llama), open_model(llama)
    prompts = [tokenizer.encode_prompt(tiny_prompt(article, actions))[-90:] for article, actions in
               zip(tiny_articles(5), (1, 2, 3, 2, 1), strict=True)]  # fmt: skip
    prompts[2] = prompts[2][-40:]
    together = greedy_answers(model, prompts, 6, tokenizer.end, batch=3)
    assert together == [greedy_answers(model, [prompt], 6, tokenizer.end)[0] for prompt in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in answer:  # the likeliest token, each time, with no cache and no padding
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_format_errors_of_a_model_that_knows_the_format_and_of_one_that_does_not(llama: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.of_model(llama)
    prompts = [(7, number) for number in range(20, 36)]
    response = (*tokenizer.encode(response_text(tiny_articles(1)[0])), tokenizer.end)
    shares: dict[str, tuple[float, list[str]]] = {}
    tuned(
        llama,
        tmp_path,
        [Tokenised(prompt, response) for prompt in prompts] * 4,
        LEARNING,
        on_stage=lambda name, model: shares.update({name: format_errors(model, tokenizer, prompts, 40)}),
    )
    assert shares["base"][0] == 1.0
    assert shares["all prompts"] == (0.0, [response_text(tiny_articles(1)[0])] * 16)


# --- merging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_is_base_plus_adapter(tmp_path: Path, architecture: Architecture) -> None:
    base = tiny_language_model(tmp_path / "base", architecture)
    tuned(base, tmp_path)
    out = tmp_path / "llm"
    merge(base, tmp_path / "adapter", out)
    with quiet_transformers():
        adapted = PeftModel.from_pretrained(open_model(base), str(tmp_path / "adapter"))
    ids = torch.randint(1, VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        merged, both, alone = (model.eval()(ids).logits for model in (open_model(out), adapted, open_model(base)))
    torch.testing.assert_close(merged, both, atol=1e-4, rtol=0)
    assert (merged - alone).abs().max() > 0.01, "the adapter does something"


def test_a_merged_model_is_whole_and_narrows_nothing(llama: Path, tmp_path: Path) -> None:
    base = tiny_language_model(tmp_path / "base", "llama")
    (base / "generation_config.json").write_text('{"top_k": 3, "top_p": 0.5, "temperature": 0.3, "do_sample": true}')
    tuned(base, tmp_path)
    out = tmp_path / "llm"
    out.mkdir()
    (out / "left_over").touch()
    merge(base, tmp_path / "adapter", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    sampling = json.loads((out / "generation_config.json").read_text())
    assert (sampling["temperature"], sampling["top_p"], sampling["top_k"]) == (1.0, 1.0, 0)
    assert sampling["eos_token_id"] == Tokenizer.of_model(out).end
    assert str(tmp_path) not in (out / "config.json").read_text()
    assert not list(tmp_path.glob(".llm*"))


@pytest.mark.parametrize(("kept", "expected"), [("float32", "F32"), ("bfloat16", "BF16"), ("float16", "BF16")])
def test_weights_stay_in_the_base_s_family_of_numbers(tmp_path: Path, kept: str, expected: str) -> None:
    base = tiny_language_model(tmp_path / "base", "llama")
    open_model(base, getattr(torch, kept)).save_pretrained(base)
    tuned(base, tmp_path)
    merge(base, tmp_path / "adapter", tmp_path / "llm")
    weights = load_file(tmp_path / "llm" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {{"F32": torch.float32, "BF16": torch.bfloat16}[expected]}
    assert json.loads((tmp_path / "llm" / "config.json").read_text())["dtype"] in {"float32", "bfloat16"}


def test_an_adapter_of_another_model_is_told_and_nothing_is_written(llama: Path, tmp_path: Path) -> None:
    tuned(llama, tmp_path)
    other = tiny_language_model(tmp_path / "falcon", "falcon")
    with pytest.raises(InvalidConfig, match="is no adapter of falcon"):
        merge(other, tmp_path / "adapter", tmp_path / "llm")
    with pytest.raises(InvalidConfig, match="is no adapter of llama"):
        merge(llama, tmp_path / "nowhere", tmp_path / "llm")
    assert not (tmp_path / "llm").exists()


def test_a_batch_says_where_its_responses_begin() -> None:
    assert Batch(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[-100, -100, 3, 4]])).responses_from == 2
