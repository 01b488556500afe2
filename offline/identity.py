"""Which training a run holds: the same files, the same digest, wherever and whenever they were made."""

from __future__ import annotations

import hashlib

from offline.run import Run

_FILES = ("article_spec.json", "time_spec.json", "fashion_dna.safetensors", "style_lstm.safetensors", "blend.json")
_GENERATING = (
    "generation/spec.json",
    "generation/title_encoder.onnx",
    "generation/titles.safetensors",
    "generation/ids.safetensors",
    "generation/query_memory.json",
    "adapter/adapter_model.safetensors",
)


def run_digest(run: Run) -> str:
    """SHA-256 over what is served from a run. Raises InvalidConfig where it is not complete."""
    digest = hashlib.sha256()
    generating = _GENERATING if run.has(_GENERATING[0]) else ()
    for name in (*_FILES, *generating):
        digest.update(hashlib.sha256(run.existing(name).read_bytes()).digest())
    return digest.hexdigest()
