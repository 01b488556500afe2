"""Causal language models as Hugging Face directories: found, opened, and copied with what belongs to them.

Weights are read from safetensors alone, and no code that a directory may hold is run.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from model_store.errors import InvalidConfig
from model_store.tokens import TOKENIZER

_TOKENIZER_FILES = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
_FILES = ("*.safetensors", "*.json", "*.jinja")


def base_directory(base: str | Path) -> Path:
    """The directory of a base model: ``base`` itself, or the downloaded snapshot of a hub id.

    Raises InvalidConfig where there is none, or none with a ``tokenizer.json`` and safetensors.
    """
    folder = Path(base)
    if not folder.is_dir():
        folder = _snapshot(str(base))
    if not (folder / TOKENIZER).is_file():
        raise InvalidConfig(f"{base}: has no {TOKENIZER}; save its tokenizer once with transformers' AutoTokenizer")
    if not any(folder.glob("*.safetensors")):
        raise InvalidConfig(f"{base}: has no safetensors; save its weights once with transformers' save_pretrained")
    return folder


def _snapshot(base: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (only where a hub id is named)

    try:
        return Path(snapshot_download(base, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub's client raises its own, requests' and the file system's errors
        reason = str(error).splitlines()[0]
        raise InvalidConfig(f"'{base}' is no directory, and the hub does not give it either ({reason})") from None


def read_config(folder: Path) -> Any:
    """A model's ``config.json``. Raises InvalidConfig."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidConfig(f"{folder}: is no language model that transformers reads ({_first_line(error)})") from None


def open_model(folder: Path, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """The causal language model in ``folder``, in evaluation mode; ``dtype`` None: as it was saved.

    ``options`` go to transformers (where the weights lie, how they are quantised). Raises InvalidConfig.
    """
    try:
        with quiet_transformers():
            return AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype or "auto",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                **options,
            )
    except (OSError, ValueError, KeyError) as error:
        reason = _first_line(error)
        raise InvalidConfig(f"{folder}: is no causal language model that transformers reads ({reason})") from None


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer's files, byte by byte."""
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write_neutral_sampling(folder: Path, config: Any) -> None:
    """A ``generation_config.json`` that narrows nothing.

    What a base model recommends (top_k, top_p) is a server's default for every request, and can leave structured output
    no token to choose.
    """
    neutral = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "eos_token_id": config.eos_token_id}
    neutral |= {key: getattr(config, key) for key in ("bos_token_id", "pad_token_id") if getattr(config, key, None)}
    (folder / "generation_config.json").write_text(json.dumps(neutral, indent=2) + "\n", encoding="utf-8")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the library's own bars and notes, and without what it deprecates that peft still uses."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights lie."""
    device: torch.device = next(model.parameters()).device
    return device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients, whatever state the caller's model is in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
