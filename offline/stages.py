"""What a run keeps of each stage of training, and when a stage must be trained again.

Each stage's result is kept with its recipe: all of the configuration and data that it depends on. A stage whose recipe
has not changed is not trained again; when one has, it and everything made from it is, and the run says what changed.
Stages keep their records apart, so that several can be trained side by side.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offline.config import Config
from offline.progress import Progress
from offline.run import Run, Split
from offline.stage_times import StageTimes
from offline.training import Curve

Recipe = dict[str, Any]


@dataclass(frozen=True)
class StageSpec:
    """One stage: what it writes into the run, which stages it is made from, which configuration keys it reads.

    A key names a value or a whole section (``fashion_dna``, ``generation.mixup``); ``split``: whether it looks at time;
    ``shared``: whether it gains from a second process, which then takes a share of each batch; ``perhaps``: what it
    writes under some configurations only.
    """

    name: str
    outputs: tuple[str, ...]
    needs: tuple[str, ...]
    keys: tuple[str, ...]
    split: bool = True
    shared: bool = False
    perhaps: tuple[str, ...] = ()


STYLE_STAGES = (
    StageSpec(
        "images",
        ("residual", "image_embeddings.safetensors", "article_spec.json"),
        (),
        ("images", "fashion_dna.min_tag_count", "fashion_dna.max_tags"),
        split=False,
    ),
    StageSpec(
        "fashion_dna",
        (
            "fashion_dna.safetensors",
            "article_dna.safetensors",
            "static.safetensors",
            "static_customers.json",
        ),
        ("images",),
        ("fashion_dna",),
    ),
    StageSpec("popularity", ("popularity.safetensors", "popularity.json"), (), ()),
    StageSpec(
        "style_lstm",
        ("style_lstm.safetensors", "time_spec.json"),
        ("fashion_dna", "popularity"),
        ("style_lstm",),
        perhaps=("article_offsets.safetensors",),
    ),
)
GENERATION_STAGES = (
    StageSpec(
        "title_encoder",
        ("generation/title_encoder.onnx", "generation/title_tokenizer.json", "generation/titles.safetensors"),
        (),
        ("generation.title_encoder",),
    ),
    StageSpec("id_embeddings", ("generation/ids.safetensors",), (), ("generation.id_embeddings",)),
    StageSpec(
        "query_memory",
        ("generation/query_memory.json", "generation/query_memory.safetensors"),
        ("title_encoder",),
        ("generation.query_memory",),
        perhaps=("generation/query_encoder.onnx", "generation/query_tokenizer.json"),
    ),
    StageSpec(
        "base_model",
        ("base",),
        ("query_memory",),
        (
            "generation.sessions.actions",
            "generation.prompts",
            "generation.language_model.base",
            "generation.language_model.stand_in",
            "generation.language_model.max_tokens",
            "generation.language_model.response_tokens",
        ),
    ),
    StageSpec(
        "language_model",
        ("adapter", "generation/llm", "generation/llm_embedded", "generation/spec.json", "effects.json"),
        ("base_model", "id_embeddings"),
        ("generation.mixup", "generation.sessions", "generation.prompts", "generation.language_model"),
        shared=True,
    ),
)
BLEND = "blend"
RECORDS = "stages"
"""Folder of a run with a file per complete stage: its recipe, its curve, and what it cost."""


def stages_of(config: Config) -> tuple[StageSpec, ...]:
    """The stages of a training, in order: each comes after all that it needs."""
    generation = GENERATION_STAGES if config.generation.enabled else ()
    needs = ("style_lstm", *(("language_model",) if generation else ()))
    blend = StageSpec(BLEND, ("blend.json",), needs, ("generation.enabled",))
    return (*STYLE_STAGES, *generation, blend)


def next_ready(specs: Sequence[StageSpec], done: Collection[str], begun: Collection[str]) -> StageSpec | None:
    """Of the stages that can begin, that on which most others wait; the first of several; None where none can."""
    ready = [spec for spec in specs if spec.name not in begun and all(need in done for need in spec.needs)]
    return max(ready, key=lambda spec: len(made_from(specs, spec.name)), default=None)


def made_from(specs: Sequence[StageSpec], name: str) -> list[str]:
    """A stage, and all that are made from its result; ``specs`` in an order in which each comes after its needs."""
    names = [name]
    for spec in specs:
        if any(need in names for need in spec.needs):
            names.append(spec.name)
    return names


class Keeper:
    """Which stages of ``run`` are complete under ``config``."""

    def __init__(self, run: Run, config: Config, split: Split, progress: Progress):
        self._run, self._config, self._split, self._progress = run, config, split, progress
        self._specs = {spec.name: spec for spec in stages_of(config)}
        self._times = StageTimes(run.folder / "checkpoints")

    def recipe(self, name: str) -> Recipe:
        """All that a stage depends on, flat: configuration, data, and the recipes of the stages it is made from."""
        spec, config = self._specs[name], self._config.model_dump(mode="json")
        recipe: Recipe = {"seed": config["seed"], "data set": self._split.fingerprint}
        for need in spec.needs:
            recipe |= self.recipe(need)
        for key in spec.keys:
            recipe |= _flat(key, _value(config, key))
        if spec.split:
            recipe |= {"split.validation_from": self._split.validation_from, "split.cutoff": self._split.cutoff}
        return recipe

    def text(self, name: str) -> str:
        """The recipe's digest: a checkpoint of another one is not continued."""
        return hashlib.sha256(orjson.dumps(self.recipe(name), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def complete(self, name: str) -> bool:
        """Whether a stage was trained by its recipe; says why not where it was by another."""
        recipe, kept = self.recipe(name), self._kept(name)
        if kept is None or not all(self._run.has(output) for output in self._specs[name].outputs):
            return False
        changed = sorted(key for key in kept.keys() | recipe.keys() if kept.get(key) != recipe.get(key))
        if changed:
            self._progress.say(f"{name}: training again, because {', '.join(changed)} changed")
        return not changed

    def replace(self, name: str) -> None:
        """Right before a stage's outputs are written: forget it and all that was made from what it replaces."""
        stale = made_from([*self._specs.values()], name)
        for stage in stale:
            (self._run.folder / f"{_record(stage)}.json").unlink(missing_ok=True)
        for output in (output for stage in stale for output in _files(self._specs[stage])):
            path = self._run.folder / output
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._run.save_json("config", self._config)
        self._run.save_json("split", self._split)

    def timing(self, name: str) -> AbstractContextManager[None]:
        """For as long as a stage is trained: what it takes is kept by ``commit``."""
        return self._times.timing(name, self.text(name))

    def commit(self, name: str, curve: Curve) -> None:
        """A stage's outputs are all written: it counts, and its checkpoints are no longer needed."""
        self._keep(name, {"recipe": self.recipe(name), "curve": curve, "cost": self._times.cost(name)})

    def _keep(self, name: str, record: dict[str, Any]) -> None:
        self._run.save_json(_record(name), record)
        for checkpoint in self.checkpoint(name).parent.glob(f"{name}*"):
            shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()

    def adopt(self, other: Run, *, same_articles: bool = False) -> list[str]:
        """Take over from another run what it trained by the very recipes that are asked for here; the stages' names.

        Files are linked where that can be done, else copied: none is ever written into. ``same_articles``: whether both
        data sets have one table of articles, so that what looks at nothing else may be taken over, too.
        """
        adopted = []
        for name, spec in self._specs.items():
            recipe, theirs = self.recipe(name), Keeper(other, self._config, self._split, self._progress)._kept(name)
            mine = self._kept(name) == recipe and all(map(self._run.has, spec.outputs))
            if mine or theirs is None or not all(map(other.has, spec.outputs)):
                continue
            if same_articles and not spec.split:
                theirs = {**theirs, "data set": recipe["data set"]}
            if theirs != recipe:
                continue
            self.replace(name)
            for output in filter(other.has, _files(spec)):
                link(other.folder / output, self._run.path(output))
            self._keep(name, {**other.load_json(_record(name)), "recipe": recipe})
            adopted.append(name)
        return adopted

    def checkpoint(self, name: str) -> Path:
        """Where a stage keeps its checkpoint; ``name`` may have something behind the stage's name."""
        return self._run.folder / "checkpoints" / f"{name}.pt"

    def forget_all(self) -> None:
        """Train everything again."""
        shutil.rmtree(self._run.folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(self._run.folder / RECORDS, ignore_errors=True)

    def _kept(self, name: str) -> Recipe | None:
        if not self._run.has(f"{_record(name)}.json"):
            return None
        recipe: Recipe = self._run.load_json(_record(name))["recipe"]
        return recipe


def link(source: Path, target: Path) -> None:
    """A file, or a folder of files, under a second name; a copy where the file system gives none."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_file)
    else:
        _link_file(str(source), str(target))


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def _files(spec: StageSpec) -> tuple[str, ...]:
    return (*spec.outputs, *spec.perhaps)


def _record(name: str) -> str:
    return f"{RECORDS}/{name}"


def _value(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def _flat(key: str, value: Any) -> Recipe:
    if not isinstance(value, dict):
        return {key: value}
    flat: Recipe = {}
    for name, inner in value.items():
        flat |= _flat(f"{key}.{name}", inner)
    return flat
