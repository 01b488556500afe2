"""The embedded language model, held against transformers, against itself without its memory, and against damage."""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_model_backends import TinyModel, tiny_model
from transformers import AutoModelForCausalLM

from model_store.errors import InvalidBundle, InvalidConfig
from model_store.language_model import CHUNK, CannotWrite, EmbeddedLanguageModel, Written, _shared
from model_store.prompts import RESPONSE_REGEX


@pytest.fixture(scope="module")
def tiny() -> TinyModel:
    return tiny_model()


@pytest.fixture(scope="module")
def model(tiny: TinyModel) -> EmbeddedLanguageModel:
    return EmbeddedLanguageModel(tiny.embedded, tiny.tokenizer)


def likeliest(model: EmbeddedLanguageModel, prompt: list[int], most: int = 64) -> Written:
    return model.write(prompt, max_new_tokens=most, temperature=0.0, top_p=1.0)


class Calls:
    """Counts how often it was asked whether to stop: once per chunk of the prompt, and once per token."""

    def __init__(self, most: int = 1_000_000):
        self.most, self.count = most, 0

    def __call__(self) -> bool:
        self.count += 1
        return self.count > self.most


def test_without_a_regex_it_writes_what_transformers_writes(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    reference = AutoModelForCausalLM.from_pretrained(tiny.llm, dtype=torch.float32).eval()
    for prompt in tiny.prompts(5):
        ids = torch.tensor([prompt])
        expected = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
        written = model.write(prompt, max_new_tokens=24, temperature=0.0, top_p=1.0, regex=None)
        text = tiny.tokenizer.decode(expected[0, len(prompt) :].tolist())
        assert written.text == text.rstrip("\N{REPLACEMENT CHARACTER}")


def test_the_text_depends_on_the_prompt_alone_not_on_what_came_before(
    tiny: TinyModel, model: EmbeddedLanguageModel
) -> None:
    prompts = [*tiny.prompts(3, actions=1), *tiny.prompts(3, actions=3), *tiny.prompts(3, actions=6)]
    prompts += [prompts[-1][: 2 * CHUNK], prompts[-1][: 2 * CHUNK + 1], prompts[-1][:1]]
    fresh = []
    for prompt in prompts:
        model._kept = None
        fresh.append(likeliest(model, prompt))
    assert len({written.text for written in fresh}) > 6
    rng = random.Random(0)
    for row in rng.choices(range(len(prompts)), k=40):
        assert likeliest(model, prompts[row]) == fresh[row]


def test_what_two_prompts_share_is_read_once(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    first, second = tiny.prompts(2, actions=6)
    shared = next(place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])
    assert shared > 2 * CHUNK
    chunks, model._kept = [], None
    for prompt in (first, second, second):
        calls = Calls()
        written = model.write(prompt, max_new_tokens=8, temperature=0.0, top_p=1.0, stopped=calls)
        chunks.append(calls.count - written.tokens)
    assert chunks == [-(-len(first) // CHUNK), -(-len(second) // CHUNK) - shared // CHUNK, 1]


@given(st.lists(st.integers(0, 1), max_size=300), st.lists(st.integers(0, 1), min_size=1, max_size=300), st.booleans())
def test_what_is_shared_is_whole_chunks_and_never_the_whole_prompt(
    before: list[int], prompt: list[int], begins_alike: bool
) -> None:
    if begins_alike:
        before = prompt + before
    shared = _shared(before, prompt)
    assert shared % CHUNK == 0
    assert shared < len(prompt)
    assert before[:shared] == prompt[:shared]
    longer = prompt[: shared + CHUNK]
    assert len(prompt) <= shared + CHUNK or before[: shared + CHUNK] != longer


def test_chance_follows_the_seed(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    prompt = tiny.prompts(1)[0]

    def write(seed: int | None, temperature: float = 2.0) -> str:
        return model.write(prompt, max_new_tokens=40, temperature=temperature, top_p=1.0, seed=seed).text

    assert [write(1), write(2)] == [write(1), write(2)]
    assert len({write(seed) for seed in range(8)}) == 8
    assert len({write(None) for _ in range(8)}) == 8
    cold = likeliest(model, prompt, 40).text
    assert [write(seed, 0.000_01) for seed in range(3)] == [cold] * 3


def test_top_p_leaves_out_what_is_unlikely(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    prompt = tiny.prompts(1)[0]
    narrow = {
        model.write(prompt, max_new_tokens=12, temperature=1.0, top_p=0.000_1, seed=seed).text for seed in range(5)
    }
    assert narrow == {likeliest(model, prompt, 12).text}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), temperature=st.floats(0.05, 3.0), article=st.integers(0, 9))
def test_all_that_it_writes_matches_the_regex(
    tiny: TinyModel, model: EmbeddedLanguageModel, seed: int, temperature: float, article: int
) -> None:
    prompt = tiny.prompts(10)[article]
    written = model.write(prompt, max_new_tokens=400, temperature=temperature, top_p=1.0, seed=seed)
    assert re.fullmatch(RESPONSE_REGEX, written.text)
    assert not written.cut_off


def test_stopping_leaves_what_there_is_and_the_next_is_whole(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    prompt = tiny.prompts(1)[0]
    model._kept = None
    whole, chunks = likeliest(model, prompt), -(-len(prompt) // CHUNK)
    for most in (0, 1, chunks, chunks + 1, chunks + 5):
        model._kept = None
        written = model.write(prompt, max_new_tokens=64, temperature=0.0, top_p=1.0, stopped=Calls(most))
        assert written.cut_off
        assert written.tokens == max(0, most - chunks)
        assert whole.text.startswith(written.text)
        assert likeliest(model, prompt) == whole


def test_a_response_as_long_as_there_is_room_for(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    prompt = tiny.prompts(1)[0]
    room = model.context_length - len(prompt)
    written = model.write(prompt, max_new_tokens=room, temperature=0.0, top_p=1.0, regex="[a-z ]{5000}")
    assert (written.tokens, written.cut_off) == (room, True)
    with pytest.raises(
        CannotWrite, match=f"{len(prompt)} tokens and {room + 1} of the response are more than the 1024"
    ):
        likeliest(model, prompt, room + 1)


@pytest.mark.parametrize("prompt", [[], [512], [-1]], ids=["empty", "beyond the vocabulary", "negative"])
def test_prompts_that_it_cannot_take(tiny: TinyModel, model: EmbeddedLanguageModel, prompt: list[int]) -> None:
    before = likeliest(model, tiny.prompts(1)[0])
    with pytest.raises(CannotWrite):
        likeliest(model, prompt)
    assert likeliest(model, tiny.prompts(1)[0]) == before


def test_a_response_of_no_tokens(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    with pytest.raises(CannotWrite):
        likeliest(model, tiny.prompts(1)[0], 0)


def test_what_cannot_be_computed_says_so_and_the_next_is_written(tiny: TinyModel, model: EmbeddedLanguageModel) -> None:
    prompt = tiny.prompts(1)[0]
    with pytest.raises(InvalidBundle, match=re.escape(str(tiny.embedded))):
        model.write(prompt, max_new_tokens=8, temperature=0.0, top_p=1.0, regex="(?=never)x")
    assert likeliest(model, prompt).text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [Path.unlink, cut])
@pytest.mark.parametrize(
    "name", ["genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_damaged_folder(tiny: TinyModel, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    folder = shutil.copytree(tiny.embedded, tmp_path / "llm_embedded")
    damage(folder / name)
    with pytest.raises(InvalidBundle, match="llm_embedded"):
        EmbeddedLanguageModel(folder, tiny.tokenizer)


def test_without_the_library(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(InvalidConfig, match="install the extra 'cpu' or 'gpu', or set MODISTE_LLM_URL"):
        EmbeddedLanguageModel(tiny.embedded, tiny.tokenizer)
