from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_language_models import tiny_language_model
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors

from model_store.errors import InvalidBundle
from model_store.tokens import Tokenizer, read_tokenizer


def byte_tokenizer(single: str = "<s> $A </s>") -> RawTokenizer:
    """One token a byte, behind the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = RawTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return tokenizer


def write_model(folder: Path, config: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 1} if config is None else config))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("single", "front"), [("<s> $A </s>", [0]), ("<s> $A", [0]), ("$A </s>", []), ("$A", []), ("<s> <s> $A", [0, 0])]
)
def test_a_prompt_keeps_its_beginning_and_has_no_end(single: str, front: list[int]) -> None:
    tokenizer = Tokenizer(byte_tokenizer(single), end=1)
    assert tokenizer.encode_prompt("ab") == front + tokenizer.encode("ab")
    assert len(tokenizer.encode("ab")) == 2
    assert tokenizer.encode_prompt("") == front


def test_a_beginning_that_is_also_the_end_is_kept() -> None:
    """Falcon and GPT-2 have one token for both."""
    tokenizer = Tokenizer(byte_tokenizer("<s> $A <s>"), end=0)
    assert tokenizer.encode_prompt("a") == [0, *tokenizer.encode("a")]


@given(st.lists(st.sampled_from(["<s>", "</s>"]) | st.text(st.characters(codec="utf-8"), max_size=5)).map("".join))
def test_text_round_trips_and_never_becomes_a_special_token(text: str) -> None:
    tokenizer = Tokenizer(byte_tokenizer(), end=1)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    assert not {0, 1} & set(ids)
    assert tokenizer.decode(tokenizer.encode_prompt(text)) == tokenizer.decode([*ids, tokenizer.end]) == text


def test_texts_are_neither_padded_nor_cut(tmp_path: Path) -> None:
    saved = byte_tokenizer()
    saved.enable_padding(length=9, pad_id=0, pad_token="<s>")
    saved.enable_truncation(4)
    saved.save(str(tmp_path / "tokenizer.json"))
    read = read_tokenizer(tmp_path / "tokenizer.json")
    assert [len(read.encode("x" * length, add_special_tokens=False)) for length in (1, 30)] == [1, 30]


def test_a_models_directory_is_read(tmp_path: Path) -> None:
    tokenizer = Tokenizer.of_model(tiny_language_model(tmp_path, "llama"))
    assert tokenizer.decode(tokenizer.encode_prompt("navy jacket")) == "navy jacket"
    assert tokenizer.decode([tokenizer.end]) == ""


@pytest.mark.parametrize(("config", "end"), [({"eos_token_id": 1}, 1), ({"eos_token_id": [1, 0], "x": 2}, 1)])
def test_the_end_is_the_first_that_the_model_names(tmp_path: Path, config: object, end: int) -> None:
    assert Tokenizer.of_model(write_model(tmp_path, config)).end == end


CONFIG_FAULTS = [
    ({}, "eos_token_id is missing"),
    ({"eos_token_id": None}, "eos_token_id is missing"),
    ({"eos_token_id": []}, "eos_token_id is missing"),
    ({"eos_token_id": "</s>"}, "cannot be read"),
    ({"eos_token_id": True}, "cannot be read"),
    ([], "cannot be read"),
    ({"eos_token_id": 9_999}, r"eos_token_id 9999 is no token of tokenizer\.json"),
    ({"eos_token_id": -1}, "cannot be read"),
]


@pytest.mark.parametrize(("config", "message"), CONFIG_FAULTS)
def test_a_config_without_a_usable_end_is_refused(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(InvalidBundle, match=rf"config\.json: {message}"):
        Tokenizer.of_model(write_model(tmp_path, config))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"null", b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = write_model(tmp_path) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidBundle, match=rf"{name}: (cannot be read|is not a tokenizer) \("):
        Tokenizer.of_model(tmp_path)
