"""Which training a run holds: the same files, the same digest, wherever and whenever they were made."""

from __future__ import annotations

import hashlib

from offline.run import Run

_FILES = ("article_spec.json", "time_spec.json", "fashion_dna.safetensors", "style_lstm.safetensors", "blend.json")


def run_digest(run: Run) -> str:
    """SHA-256 over what is served from a run. Raises InvalidConfig where it is not complete."""
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update(hashlib.sha256(run.existing(name).read_bytes()).digest())
    return digest.hexdigest()
