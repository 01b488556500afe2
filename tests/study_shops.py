"""A shop, settings and calls for tests of studies: as small as still trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

import modiste
from model_store.dataset import DataSet
from offline.config import Config
from offline.progress import Silent
from offline.run import Run
from offline.studies.workshop import Workshop
from offline.world import World

STYLE: dict[str, Any] = {
    "seed": 3,
    "device": "cpu",
    "images": {"height": 16, "width": 12, "epochs": 1, "min_attribute_count": 2},
    "fashion_dna": {"epochs": 2, "hidden": 32, "min_tag_count": 1},
    "style_lstm": {"epochs": 1, "batch": 32},
}
BOTH: dict[str, Any] = {
    **STYLE,
    "generation": {
        "enabled": True,
        "sessions": {"examples": 16, "held_out": 3},
        "title_encoder": {"epochs": 1, "embedding": 16, "hidden": 16, "max_pairs": 500},
        "id_embeddings": {"epochs": 1, "layers": 1, "inner": 16, "max_sequences": 200},
        "language_model": {
            "probes": 3,
            "stand_in": {
                "epochs": 1,
                "hidden": 32,
                "intermediate": 32,
                "layers": 1,
                "heads": 2,
                "documents": 20,
            },
            "lora": {"batch": 8, "micro_batch": 8},
        },
    },
}


def write_settings(path: Path, settings: dict[str, Any]) -> Path:
    """A TOML file of nested settings."""
    lines: list[str] = []

    def section(name: str, values: dict[str, Any]) -> None:
        plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
        lines.extend([f"[{name}]"] if name and plain else [])
        lines.extend(f"{key} = {orjson.dumps(value).decode()}" for key, value in plain.items())
        for key, value in values.items():
            if isinstance(value, dict):
                section(f"{name}.{key}".lstrip("."), value)

    section("", settings)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_shop(folder: Path) -> DataSet:
    """A sample shop of 200 articles and 120 customers."""
    options = ["--articles", "200", "--customers", "120", "--days", "120", "--end", "2026-11-01"]
    assert modiste.main(["shop", str(folder), *options]) == 0
    return DataSet.open(folder)


def workshop(folder: Path, data: DataSet, settings: dict[str, Any], bases: tuple[Run, ...] = ()) -> Workshop:
    """One that says nothing."""
    return Workshop(folder, data, Config.model_validate(settings), bases, World(), Silent())


def study(name: str, data: DataSet, out: Path, settings: Path, *options: str) -> dict[str, Any]:
    """Conduct a study by its command; what study.json says."""
    known = ["--data", str(data.folder), "--out", str(out), "--config", str(settings), "--bootstrap", "30"]
    assert modiste.main(["study", name, *known, "--run", str(out / "none"), *options]) == 0
    found: dict[str, Any] = orjson.loads((out / name / "study.json").read_bytes())
    return found
