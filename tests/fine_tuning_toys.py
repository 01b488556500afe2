"""Examples that a tiny language model learns in seconds; run as a script it fine-tunes in a process of its own.

python fine_tuning_toys.py BASE FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offline.config import LoraConfig
from offline.fine_tuning import fine_tune
from offline.sequences import Tokenised
from offline.training import Curve
from offline.world import World, open_world

CONFIG = LoraConfig(
    rank=4, alpha=8, dropout=0.05, lr=2e-3, batch=8, micro_batch=8, hard_share=0.2, hard_epochs=2, checkpoint_steps=2
)
"""Small and quick, with all that a training may have."""
LEARNING = CONFIG.model_copy(update={"rank": 8, "alpha": 16, "lr": 1e-2, "epochs": 4, "hard_epochs": 0})
"""Enough to learn the examples below."""
UNEVEN = CONFIG.model_copy(update={"dropout": 0.0, "batch": 13, "micro_batch": 6})
"""Of two processes one has 7 rows of a batch, in two parts, the other 6 in one; of the last batch's single row none."""
END = 0


def random_examples(count: int, *, seed: int, learnable: bool) -> list[Tokenised]:
    """Prompts of 3 to 9 tokens; the response is one of 8 tokens, told by the prompt's last one (or by nothing)."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        told = int(rng.integers(8))
        prompt = (*rng.integers(1, 300, int(rng.integers(2, 9))).tolist(), 310 + told)
        answer = told if learnable else int(rng.integers(8))
        examples.append(Tokenised(tuple(prompt), (400 + answer, END)))
    return examples


def readable_examples(count: int = 40) -> list[Tokenised]:
    """Examples of which every fifth answers as no other does, and is harder for it."""
    usual = random_examples(count, seed=5, learnable=True)
    rng = np.random.default_rng(6)
    return [
        Tokenised(example.prompt, (*rng.integers(1, 300, 2).tolist(), END)) if row % 5 == 0 else example
        for row, example in enumerate(usual)
    ]


def tuned(
    base: Path | str,
    folder: Path,
    examples: Sequence[Tokenised] | None = None,
    config: LoraConfig = CONFIG,
    *,
    seed: int = 0,
    recipe: str = "toy",
    world: World | None = None,
    **options: Any,
) -> Curve:
    """Fine-tune in float32 on the CPU; ``folder`` gets ``adapter`` and ``checkpoint.pt``."""
    return fine_tune(
        base,
        readable_examples() if examples is None else examples,
        config,
        adapter=folder / "adapter",
        checkpoint=folder / "checkpoint.pt",
        seed=seed,
        recipe=recipe,
        world=world or World(),
        precision="fp32",
        **options,
    )


def main(base: str, folder: str) -> None:
    with open_world("cpu", threads=1) as world:
        said: list[str] = []
        curve = tuned(Path(base), Path(folder), config=UNEVEN, world=world, on_stage=lambda name, _: said.append(name))
        if said:
            print(json.dumps(curve), flush=True)
    world.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
