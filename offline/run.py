"""A run: the folder in which training keeps what it made, and from which evaluation and export read.

    config.json             the resolved configuration, seed included
    split.json              ``Split``: what was trained on, and from when on it was not
    article_spec.json  time_spec.json
    residual/               ``config.json`` + ``model.safetensors`` of the residual network, ``source.txt`` (where from)
    image_embeddings        ``embedding`` float32 (N, E), zeros without a picture; ``has_image`` bool (N)
    fashion_dna             weights; ``article_dna``: ``dna`` float32 (N, 128)
    static                  ``style`` float32 (K, 128), ``bias`` float32 (K), ``shared`` float32 (128): the style of
                            whoever was not in training; ``static_customers.json``: the K ids
    popularity              ``validation``, ``cutoff`` float32 (N): the popularity component (``offline.popularity``) at
                            the start of validation and at the cut-off; ``popularity.json``: its half-life,
                            and what newcomers get
    style_lstm              weights
    base/                   the stand-in language model, or the name of another; ``adapter/``: LoRA's weights
    generation/             the generating half, just as a bundle holds it (``model_store.generation``), ``spec.json``
    effects.json            what each stage of fine-tuning did to held-out sessions
    blend.json              ``model_store.bundle.Blend``
    evaluation.json         what was evaluated last, and of which training; ``evaluation.html``: the same for people
    stages/                 a file per complete stage: ``recipe``, all that its result depends on, ``curve``, loss and
                            validation figures by epoch, and ``cost``, the time and memory that it took
    checkpoints/            one file per stage, for resuming, and when it began; removed once the stage is complete
    embedding_cache/        embeddings by content hash, in a folder per network

Arrays are safetensors; every file is written aside and renamed, so that a killed run never leaves half of one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file

from model_store.errors import InvalidConfig
from offline.hold_out import BY_TIME, Protocol

Model = TypeVar("Model", bound=BaseModel)
FOLDER = "generation"
"""Folder of a run that holds its generating half, just as a bundle does."""


class Split(BaseModel):
    """Where time is cut (Unix seconds, UTC): training < ``validation_from`` ≤ validation < ``cutoff`` ≤ test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_set: str
    fingerprint: str
    hold_out: Protocol = BY_TIME
    validation_from: int
    cutoff: int


def default_run(data: Path) -> Path:
    """Where a data set's run is kept unless the user says otherwise."""
    return Path("var/runs") / data.resolve().name


class Run:
    """Typed access to one run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        """A file of this run; its folder is made where it is missing."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def has(self, name: str) -> bool:
        """Whether the run got as far as writing ``name`` (a file name with its ending)."""
        return (self.folder / name).exists()

    def save_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write ``<name>.safetensors``."""
        path = self.path(f"{name}.safetensors")
        aside = path.with_name(f".{path.name}-{os.getpid()}")
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, aside)
        aside.replace(path)

    def load_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Read ``<name>.safetensors``. Raises InvalidConfig where training has not written it."""
        arrays: dict[str, NDArray[Any]] = load_file(self.existing(f"{name}.safetensors"))
        return arrays

    def save_json(self, name: str, value: Any) -> None:
        """Write ``<name>.json`` from a pydantic model or plain values."""
        path = self.path(f"{name}.json")
        aside = path.with_name(f".{path.name}-{os.getpid()}")
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        aside.write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
        aside.replace(path)

    def save_text(self, name: str, text: str) -> None:
        """Write the file ``name``."""
        path = self.path(name)
        aside = path.with_name(f".{path.name}-{os.getpid()}")
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)

    def load_json(self, name: str) -> Any:
        """Read ``<name>.json`` as plain values."""
        return orjson.loads(self.existing(f"{name}.json").read_bytes())

    def load_model(self, name: str, model: type[Model]) -> Model:
        """Read ``<name>.json`` as a pydantic model."""
        return model.model_validate_json(self.existing(f"{name}.json").read_bytes())

    def existing(self, name: str) -> Path:
        """The file ``name``. Raises InvalidConfig where training has not written it."""
        path = self.folder / name
        if not path.is_file():
            raise InvalidConfig(
                f"{path} does not exist: the run is not complete; train it (again) with 'modiste train'"
            )
        return path
