"""Low-rank adapters of a language model (LoRA): put on a base, which CUDA holds in 4 bits (QLoRA), written, merged."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig, GenerationConfig

from model_store.errors import InvalidConfig
from offline.config import LoraConfig
from offline.folders import written_aside
from offline.language_models import (
    base_directory,
    copy_tokenizer,
    open_model,
    quiet_transformers,
    read_config,
    write_neutral_sampling,
)

_SHORT = 512  # tokens up to which the CPU's plain attention beats its fused one (measured: 15 to 25% of a step)
_LARGE = 1_000_000_000  # weights from which on activations are computed again instead of kept


def with_adapter(folder: Path, config: LoraConfig, device: torch.device, precision: str, longest: int) -> PeftModel:
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


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    half = _half(device, precision)
    return nullcontext if half is None else lambda: torch.autocast(device.type, half)


def write_adapter(model: PeftModel, base: str, adapter: Path) -> None:
    # By name, not by path: an adapter may travel.
    model.peft_config["default"].base_model_name_or_path = base
    with written_aside(adapter) as folder, quiet_transformers():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # an empty form to fill in


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
