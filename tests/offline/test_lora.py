from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fine_tuning_toys import tuned
from peft import PeftModel
from safetensors.torch import load_file
from tiny_language_models import (
    ARCHITECTURES,
    VOCABULARY,
    Architecture,
    tiny_language_model,
)

from model_store.errors import InvalidConfig
from model_store.tokens import Tokenizer
from offline.language_models import open_model, quiet_transformers
from offline.lora import merge


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
