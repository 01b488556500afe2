"""What tests of training stand on: torch as it is at the beginning, whatever was tested before, and a base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_language_models import tiny_language_model


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer."""
    return tiny_language_model(tmp_path_factory.mktemp("base") / "llama", "llama")
