"""The Longformer that Recformer begins with: a checkpoint's, or a small one from scratch, and its tokenizer.

Results tell which it was, and the sizes, which are settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, LongformerConfig, LongformerForMaskedLM

from model_store.errors import InvalidBundle, InvalidConfig
from model_store.tokens import TOKENIZER, read_tokenizer
from offline.baselines.sentences import Vocabulary
from offline.baselines.tuning import Settings
from offline.language_models import quiet_transformers
from offline.models.recformer import RecformerNetwork
from offline.title_encoder import read_tokenizer_text, train_tokenizer

VERSIONS = f"transformers {transformers.__version__}, torch {torch.__version__}"
SMALL: Mapping[str, float] = {"train_batch_size": 64, "tokens": 128, "sentences": 20, "window": 32}
PUBLISHED: Mapping[str, float] = {"train_batch_size": 16, "tokens": 1_024, "sentences": 50, "window": 64}
"""Sizes from scratch, and those of the paper, for a checkpoint (§3.1.3)."""
_HIDDEN, _LAYERS, _HEADS, _VOCABULARY = 64, 2, 4, 4_096
_WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Start:
    """What training begins with: its ``name`` in results, the settings to be tried, and a network with its words."""

    name: str
    grid: Sequence[Settings]
    open: Callable[[Settings, Sequence[str]], tuple[RecformerNetwork, Vocabulary]]
    """for settings, and the words of what training knows"""


def from_scratch() -> Start:
    """A small Longformer of random weights."""
    grid = [{"learning_rate": rate, **SMALL} for rate in (1e-3, 3e-3)]
    return Start(f"from scratch, {VERSIONS}", grid, _small)


def _small(settings: Settings, words: Sequence[str]) -> tuple[RecformerNetwork, Vocabulary]:
    tokenizer = read_tokenizer_text(train_tokenizer([word.casefold() for word in words], _VOCABULARY))
    known = tokenizer.get_vocab_size()  # its token 0 is padding
    vocabulary = Vocabulary(lambda text: _ids(tokenizer, text.casefold()), known, 0, known + 1, known + 2)
    window = int(settings["window"])
    config = LongformerConfig(
        vocab_size=vocabulary.size,
        hidden_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=2 * _HIDDEN,
        hidden_dropout_prob=0.0,  # at a temperature of 0.05 its noise is all that so small a network learns
        attention_probs_dropout_prob=0.0,
        initializer_range=_HIDDEN**-0.5,
        attention_window=window,
        max_position_embeddings=int(settings["tokens"]) + window + 1,
        type_vocab_size=1,
        pad_token_id=vocabulary.padding,
    )
    return RecformerNetwork(LongformerForMaskedLM(config), int(settings["sentences"])), vocabulary


def from_checkpoint(folder: Path) -> Start:
    """The Longformer in a Hugging Face directory, with its tokenizer. Raises InvalidConfig where there is none."""
    config = _config_of(folder)
    vocabulary = _vocabulary_of(folder, config)
    room = int(config.max_position_embeddings) - vocabulary.padding - 1
    grid = [{"learning_rate": rate, **PUBLISHED} for rate in (2e-5, 5e-5)]
    for settings in grid:
        window = settings["window"]
        if room < window:
            raise InvalidConfig(f"{folder}: reads {room} tokens; a Longformer must read {window:g}")
        settings["tokens"] = min(settings["tokens"], room // window * window)
    name = f"checkpoint {folder.resolve().name}, SHA-256 {_digest(folder)[:12]}, {VERSIONS}"
    return Start(name, grid, lambda settings, _: (_opened(folder, settings), vocabulary))


def _opened(folder: Path, settings: Settings) -> RecformerNetwork:
    try:
        with quiet_transformers():
            longformer = LongformerForMaskedLM.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                attention_window=[int(settings["window"])] * int(_config_of(folder).num_hidden_layers),
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidConfig(f"{folder}: is no Longformer that transformers reads ({_line(error)})") from None
    return RecformerNetwork(longformer, int(settings["sentences"]))


def _config_of(folder: Path) -> Any:
    if not folder.is_dir():
        raise InvalidConfig(f"--checkpoint: {folder} is no directory; save a Longformer there with save_pretrained")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidConfig(f"{folder}: is no Longformer that transformers reads ({_line(error)})") from None
    if config.model_type != "longformer":
        raise InvalidConfig(f"{folder}: is a {config.model_type}, not a longformer")
    return config


def _vocabulary_of(folder: Path, config: Any) -> Vocabulary:
    try:
        tokenizer = read_tokenizer(folder / TOKENIZER)
    except InvalidBundle as error:
        raise InvalidConfig(str(error)) from None
    size = int(config.vocab_size)
    if tokenizer.get_vocab_size() > size:
        raise InvalidConfig(f"{folder / TOKENIZER}: has {tokenizer.get_vocab_size()} tokens, the model only {size}")
    cls, mask = (_token_of(folder, tokenizer, texts) for texts in (("<s>", "[CLS]"), ("<mask>", "[MASK]")))
    return Vocabulary(lambda text: _ids(tokenizer, text), cls, int(config.pad_token_id), mask, size)


def _token_of(folder: Path, tokenizer: Tokenizer, texts: tuple[str, str]) -> int:
    """By RoBERTa's name, or else by BERT's."""
    for text in texts:
        token: int | None = tokenizer.token_to_id(text)
        if token is not None:
            return token
    raise InvalidConfig(f"{folder / TOKENIZER}: has neither the token {' nor '.join(texts)}")


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _digest(folder: Path) -> str:
    """Of weights, tokenizer and config."""
    files = [*sorted(folder.glob(_WEIGHTS)), folder / TOKENIZER, folder / "config.json"]
    if len(files) == 2:
        raise InvalidConfig(f"{folder}: has no safetensors; save its weights once with transformers' save_pretrained")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
