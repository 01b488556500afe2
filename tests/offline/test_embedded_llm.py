from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fine_tuning_toys import CONFIG, tuned
from tiny_language_models import (
    ARCHITECTURES,
    VOCABULARY,
    Architecture,
    tiny_articles,
    tiny_language_model,
    tiny_prompt,
)
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from model_store.errors import InvalidConfig, TrainingError
from model_store.language_model import EmbeddedLanguageModel
from model_store.prompts import PromptSpec, PromptWriter, parse_response, response_text
from model_store.tokens import Tokenizer
from offline.embedded_llm import embedded_logits, export_embedded
from offline.falcon_as_phi import falcon_as_phi
from offline.greedy import greedy_answers
from offline.language_models import open_model
from offline.lora import merge
from offline.progress import Silent
from offline.sequences import Tokenised


@pytest.fixture(scope="module", params=ARCHITECTURES)
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language_model(tmp_path_factory.mktemp("llm") / request.param, request.param)


def prompts_of(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    return [tokenizer.encode_prompt(tiny_prompt(article))[-120:] for article in tiny_articles(count)]


def test_in_full_precision_the_embedded_model_is_the_original(llm: Path, tmp_path: Path) -> None:
    agreement = export_embedded(llm, tmp_path / "embedded", precision="fp32")
    assert agreement.correlation == pytest.approx(1.0, abs=1e-6)
    assert agreement.likeliest == 1.0
    tokenizer, model = Tokenizer.of_model(llm), open_model(llm)
    prompts = prompts_of(tokenizer, 4)
    with torch.no_grad():
        expected = model(torch.tensor([prompts[0]])).logits[0].numpy()
    np.testing.assert_allclose(embedded_logits(tmp_path / "embedded", prompts[0]), expected, atol=1e-4)
    embedded = EmbeddedLanguageModel(tmp_path / "embedded", tokenizer)
    for prompt, answer in zip(prompts, greedy_answers(model, prompts, 16, tokenizer.end), strict=True):
        written = embedded.write(prompt, max_new_tokens=16, temperature=0.0, top_p=1.0, regex=None)
        assert written.text.rstrip("\N{REPLACEMENT CHARACTER}") in tokenizer.decode(answer)
        assert written.tokens == len(answer)


def test_in_eight_bits_it_nearly_is(llm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agreement = export_embedded(llm, tmp_path / "embedded")
    assert not caplog.records
    assert agreement.correlation > 0.99
    assert agreement.likeliest > 0.8  # random weights leave the likeliest token a narrow lead
    whole, small = (sum(path.stat().st_size for path in folder.glob(pattern)) for folder, pattern in
                    ((llm, "*.safetensors"), (tmp_path / "embedded", "model.onnx*")))  # fmt: skip
    assert small < 0.6 * whole  # embeddings stay float32; in a tiny model they are a large part


@pytest.mark.parametrize("architecture", ["falcon", "llama", "qwen"])
def test_each_family_goes_from_adapter_to_a_generation_in_the_right_format(
    tmp_path: Path, architecture: Architecture
) -> None:
    base = tiny_language_model(tmp_path / "base", architecture)
    tokenizer = Tokenizer.of_model(base)
    writer, articles = PromptWriter(PromptSpec(), tokenizer), tiny_articles(16)
    examples = [
        Tokenised(tuple(tokenizer.encode_prompt(tiny_prompt(article))[-60:]), tuple(writer.response_ids(article)))
        for article in articles
    ]
    tuned(base, tmp_path, examples, CONFIG.model_copy(update={"lr": 1e-2, "epochs": 3}))
    merge(base, tmp_path / "adapter", tmp_path / "llm")
    export_embedded(tmp_path / "llm", tmp_path / "llm_embedded")
    tokenizer = Tokenizer.of_model(tmp_path / "llm")
    embedded, model = EmbeddedLanguageModel(tmp_path / "llm_embedded", tokenizer), open_model(tmp_path / "llm")
    prompts = [example.prompt for example in examples[:4]]
    free = greedy_answers(model, prompts, 40, tokenizer.end)
    for prompt, answer in zip(prompts, free, strict=True):
        for temperature in (0.0, 1.0):
            written = embedded.write(prompt, max_new_tokens=64, temperature=temperature, top_p=0.95, seed=0)
            assert parse_response(written.text, cut_off=written.cut_off).title
        if tokenizer.end in answer:  # it knows the format by itself: guidance changes nothing
            written = embedded.write(prompt, max_new_tokens=64, temperature=0.0, top_p=1.0)
            assert written.text[:8] == tokenizer.decode(answer)[:8]
    assert response_text(articles[0]).startswith("{<id>")


def test_the_bundle_s_two_forms_have_the_very_same_tokenizer_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    llm = tiny_language_model(tmp_path / "llm", "falcon")
    capfd.readouterr()
    export_embedded(llm, tmp_path / "embedded", Silent())
    assert capfd.readouterr().out == ""
    assert (tmp_path / "embedded" / "tokenizer.json").read_bytes() == (llm / "tokenizer.json").read_bytes()
    assert sorted(path.name for path in (tmp_path / "embedded").iterdir()) == [
        "genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for path in (tmp_path / "embedded").iterdir():
        assert path.stat().st_mode & 0o444 == 0o444, "whoever serves it need not be who trained it"
        assert str(tmp_path).encode() not in path.read_bytes(), f"{path.name} says where it was made"


FALCONS: dict[str, dict[str, Any]] = {
    "one key for all heads": {"multi_query": True, "parallel_attn": True},
    "a key for each head": {"multi_query": False, "parallel_attn": True},
    "biases": {"multi_query": True, "parallel_attn": True, "bias": True},
    "another norm": {"multi_query": True, "parallel_attn": True, "layer_norm_epsilon": 1e-2},
    "grouped keys, two norms": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "grouped keys, one norm": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    "grouped keys, biases": {"new_decoder_architecture": True, "num_kv_heads": 4, "bias": True},
    "a head of its own": {"multi_query": True, "parallel_attn": True, "tie_word_embeddings": False},
    "other positions": {"multi_query": True, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "a wide middle": {"multi_query": True, "ffn_hidden_size": 96, "activation": "relu"},
}


def random_falcon(**options: Any) -> FalconForCausalLM:
    torch.manual_seed(3)
    shared = {"vocab_size": 90, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}
    model = FalconForCausalLM(FalconConfig(**{**shared, "initializer_range": 0.2, **options})).eval()
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    return model


@pytest.mark.parametrize("kind", FALCONS)
def test_a_falcon_computes_as_its_phi(kind: str) -> None:
    falcon = random_falcon(**FALCONS[kind])
    ids = torch.randint(0, 90, (2, 33), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = falcon(ids).logits, falcon_as_phi(falcon)(ids).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("options", [{"alibi": True}, {"parallel_attn": False, "multi_query": False}])
def test_early_falcons_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="has no embedded form; vLLM serves it"):
        falcon_as_phi(random_falcon(**options))


def test_a_family_that_cannot_be_embedded_is_named(tmp_path: Path) -> None:
    llm = tiny_language_model(tmp_path / "llm", "llama")
    other = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=1, n_head=2, eos_token_id=0))
    other.save_pretrained(llm)
    with pytest.raises(InvalidConfig, match=r"family 'gpt2'.*set MODISTE_LLM_URL"):
        export_embedded(llm, tmp_path / "embedded")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm"]


def test_what_the_builder_makes_wrongly_is_not_kept(tmp_path: Path) -> None:
    llm = tiny_language_model(tmp_path / "llm", "llama")
    config = LlamaConfig(  # a matrix with as many rows as there are tokens, which the builder takes for the head
        vocab_size=VOCABULARY, intermediate_size=VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.15, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(llm)
    with pytest.raises(TrainingError, match="its embedded form computes something else"):
        export_embedded(llm, tmp_path / "embedded")
    assert not (tmp_path / "embedded").exists()


def test_a_damaged_model_is_one_clear_error(tmp_path: Path) -> None:
    llm = tiny_language_model(tmp_path / "llm", "llama")
    (llm / "model.safetensors").write_bytes(b"half of somethi")
    with pytest.raises(TrainingError, match=r"builder failed"):
        export_embedded(llm, tmp_path / "embedded")
    shutil.rmtree(llm)
    with pytest.raises(InvalidConfig, match="is no language model"):
        export_embedded(llm, tmp_path / "embedded")
    assert not any(tmp_path.iterdir())
