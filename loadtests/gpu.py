"""How fast language models of real sizes are fine-tuned and decode here: random weights, so speed and nothing else.

    python -m loadtests.gpu --out gpu.json            # on a CUDA machine: 0.5, 1.5 and 7 billion weights
    python -m loadtests.gpu --tiny                    # the same steps on a CPU, in seconds

Fine-tuning is what `modiste train` does (LoRA; QLoRA where bitsandbytes is): prompts of 1,024 tokens, the paper's
settings. Decoding is transformers' own, prompts of 512 tokens and 64 new ones; a server such as vLLM is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, Qwen2Config

from model_store.machine import hardware
from offline.config import LoraConfig
from offline.fine_tuning import fine_tune
from offline.language_models import open_model, quiet_transformers
from offline.lora import can_quantise
from offline.sequences import Tokenised

WARM_UP = 3  # steps that are not measured


@dataclass(frozen=True)
class Size:
    """A model's shape (Qwen 2.5's of that name), and how much of it is computed at once."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int = 151_936
    micro_batch: int = 16
    prompt: int = 960
    response: int = 64
    decoding: tuple[int, ...] = (1, 32)


SIZES = (
    Size("0.5B", 896, 4864, 24, 14, 2),
    Size("1.5B", 1536, 8960, 28, 12, 2),
    Size("7B", 3584, 18944, 28, 28, 4, micro_batch=8),
)
TINY = Size("tiny", 64, 128, 2, 2, 1, vocabulary=512, micro_batch=2, prompt=24, response=4, decoding=(1, 2))


def measure(size: Size, steps: int, device: torch.device) -> list[dict[str, Any]]:
    """Rows ``{name, value, unit, …}`` of one size."""
    with tempfile.TemporaryDirectory(prefix="modiste-gpu-") as scratch:
        folder = _write_model(size, Path(scratch) / "model", device)
        rows = [_training(size, folder, Path(scratch) / "lora", steps, device, quantise="off")]
        if can_quantise(device):
            rows.append(_training(size, folder, Path(scratch) / "qlora", steps, device, quantise="auto"))
        return rows + _decoding(size, folder, device)


def _write_model(size: Size, folder: Path, device: torch.device) -> Path:
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=size.hidden < 2048,
        bos_token_id=0,
        eos_token_id=0,
        dtype=torch.bfloat16,
    )
    with device, quiet_transformers():
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    Tokenizer(models.WordLevel({"<end>": 0}, unk_token="<end>")).save(str(folder / "tokenizer.json"))
    return folder


def _training(
    size: Size, folder: Path, out: Path, steps: int, device: torch.device, *, quantise: Any
) -> dict[str, Any]:
    config = LoraConfig(batch=16, micro_batch=size.micro_batch, hard_epochs=0, quantise=quantise)
    times: list[float] = []

    def clock() -> float:
        _finish(device)
        times.append(time.perf_counter())
        return times[-1]

    with _peak_memory(device) as peak:
        fine_tune(
            folder,
            _examples(size, config.batch * (steps + WARM_UP)),
            config,
            adapter=out / "adapter",
            checkpoint=out / "checkpoint.pt",
            seed=0,
            recipe="",
            clock=clock,
        )
    seconds = statistics.median(np.diff(times)[WARM_UP:])
    name = "QLoRA, NF4" if quantise == "auto" else "LoRA"
    tokens = config.batch * (size.prompt + size.response)
    return {"name": f"{size.name}, fine-tuning, {name}", "value": tokens / seconds, "unit": "tokens/s"} | peak


def _examples(size: Size, count: int) -> list[Tokenised]:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, size.vocabulary, (count, size.prompt + size.response)).tolist()
    return [Tokenised(tuple(row[: size.prompt]), tuple(row[size.prompt :])) for row in ids]


def _decoding(size: Size, folder: Path, device: torch.device) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"device_map": {"": device}} if device.type == "cuda" else {}
    model = open_model(folder, torch.bfloat16 if device.type == "cuda" else torch.float32, **options)
    rows = []
    for batch in size.decoding:
        prompts = torch.randint(1, size.vocabulary, (batch, min(512, size.prompt)), device=device)
        with _peak_memory(device) as peak:
            seconds = [_decode(model, prompts, size.response, device) for _ in range(3)]
        speed = batch * size.response / min(seconds)
        rows.append({"name": f"{size.name}, decoding, {batch} at once", "value": speed, "unit": "tokens/s"} | peak)
    return rows


def _decode(model: Any, prompts: torch.Tensor, tokens: int, device: torch.device) -> float:
    """Seconds that a batch takes, its prompts included."""
    _finish(device)
    began = time.perf_counter()
    with torch.inference_mode(), quiet_transformers():
        mask = torch.ones_like(prompts)
        sampling = {"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens, "pad_token_id": 0}
        model.generate(input_ids=prompts, attention_mask=mask, **sampling)
    _finish(device)
    return time.perf_counter() - began


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[dict[str, float]]:
    """``peak_gib`` of the device's memory, where it is a GPU."""
    found: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield found
    if device.type == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="loadtests.gpu", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tiny", action="store_true", help="a model that a CPU trains in seconds")
    parser.add_argument("--sizes", default="0.5B,1.5B,7B", help="which to measure (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of fine-tuning to measure (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON file; standard output if left out")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --tiny measures nothing worth knowing, but shows that it works")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = [TINY] if options.tiny else [size for size in SIZES if size.name in options.sizes.split(",")]
    machine = hardware() | ({"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {})
    report = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": machine,
        "versions": {"torch": torch.__version__},
        "results": [row for size in sizes for row in measure(size, options.steps, device)],
    }
    text = json.dumps(report, indent=2)
    print(text) if options.out is None else options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
