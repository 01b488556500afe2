"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, which takes its place once the block ends; after an error nothing has changed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed process of the same number
    aside.mkdir()
    try:
        yield aside
        _open_to_readers(aside)
        if out.exists():
            shutil.rmtree(out)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Files for whom the user's mask lets in: safetensors writes its own for the user alone, whatever the mask."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
