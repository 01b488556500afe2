"""Training from a data set to a complete run: pictures, Fashion DNA, style LSTM, blend.

Each stage's result is kept with its recipe: all of the configuration and data that it depends on. A stage whose recipe
has not changed is not trained again; when one has, it and everything after it is, and the run says what changed.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store.article_features import ArticleSpec
from model_store.dataset import DataSet, Purchases
from model_store.errors import TrainingError
from model_store.time_features import TimeSpec
from offline.article_tables import build_fashion_dna, encode_catalogue, encode_dna, fit_article_spec
from offline.blend import fit_blend
from offline.config import Config
from offline.fashion_dna import FashionDnaStage, frequent_customers, purchase_matrix, trained_articles
from offline.images import (
    EmbeddingCache,
    embed_pictures,
    embeddings_of_articles,
    find_pictures,
    network_hash,
    pretrained,
    train_small_network,
)
from offline.models.residual import ResidualNetwork, save_residual_network
from offline.models.style_lstm import StyleLstmNetwork
from offline.negatives import NegativeSampler
from offline.progress import Progress, Silent
from offline.run import Run, Split
from offline.style_lstm import StyleLstmStage, customer_index, make_sequences, styles_at, window_score
from offline.training import Curve, derive, fit, seed_torch
from offline.validation import Window, make_window
from offline.world import World

DAY = 86_400

Recipe = dict[str, Any]

OUTPUTS: dict[str, tuple[str, ...]] = {
    "images": ("residual", "image_embeddings.safetensors", "article_spec.json"),
    "fashion_dna": (
        "fashion_dna.safetensors",
        "article_dna.safetensors",
        "static.safetensors",
        "static_customers.json",
    ),
    "style_lstm": ("style_lstm.safetensors", "time_spec.json"),
    "blend": ("blend.json",),
}
"""What each stage writes, in the order of training: every stage depends on all before it."""


def make_split(data: DataSet, config: Config) -> Split:
    """Where time is cut: whole days (UTC) counted back from the end of the last event's day."""
    window = data.file.window_days
    test = window if config.split.test_days is None else config.split.test_days
    validation = config.split.validation_days or window
    cutoff = (data.last_event // DAY + 1 - test) * DAY
    return Split(
        data_set=data.file.name,
        fingerprint=data.fingerprint,
        validation_from=cutoff - validation * DAY,
        cutoff=cutoff,
    )


def train(
    data: DataSet,
    run: Run,
    config: Config,
    progress: Progress | None = None,
    *,
    fresh: bool = False,
    world: World | None = None,
) -> None:
    """Train whatever of ``run`` is missing or was made by another recipe; ``fresh`` trains everything again.

    Raises TrainingError naming stage, epoch and step, or the empty window; what is complete by then stays usable.
    """
    world = world or World()
    shown = progress if progress is not None and world.first else Silent()
    if fresh and world.first:
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
        (run.folder / "stages.json").unlink(missing_ok=True)
    world.wait()
    _Pipeline(data, run, config, shown, world).run_stages()
    world.wait()


@dataclass
class _Pipeline:
    data: DataSet
    run: Run
    config: Config
    progress: Progress
    world: World

    def run_stages(self) -> None:
        known = self.known  # an empty window is told before anything is trained
        self.progress.say(
            f"training on {self.data.file.name}: {len(self.data.article_ids):,} articles, {len(known.training):,} "
            f"purchases by {len(known.training.customer_ids):,} customers; seed {self.config.seed}"
        )
        for name in OUTPUTS:
            recipe = self._recipe(name)
            if self._complete(name, recipe):
                self.progress.say(f"{name}: trained already, with this configuration and data")
            else:
                getattr(self, f"_{name}")(recipe)
                self.world.wait()

    @cached_property
    def split(self) -> Split:
        return make_split(self.data, self.config)

    @cached_property
    def known(self) -> _Known:
        return _look(self.data, self.split, self.config)

    # --- stages ---------------------------------------------------------------------------------------------

    def _images(self, recipe: Recipe) -> None:
        spec = fit_article_spec(self.data, self.config, self.progress)
        pictures = find_pictures(self.data, self.progress)
        curve: Curve = []
        if self.config.images.network:
            network, source = pretrained(self.config.images)
        else:
            seed_torch(derive(self.config.seed, "images", "weights"))
            network, source, fitted = train_small_network(
                self.data,
                pictures,
                spec,
                self.config.images,
                seed=self.config.seed,
                checkpoint=self._checkpoint("images"),
                recipe=_text(recipe),
                world=self.world,
                precision=self.config.precision,
                progress=self.progress,
            )
            curve = fitted.curve if fitted else []
        self.progress.say(f"images: {source}")
        if not self.world.first:
            return
        cache = EmbeddingCache(self._cache_folder(network, spec))
        embedding = embed_pictures(
            self.data, pictures, network, spec, cache=cache, device=self.world.device, progress=self.progress
        )
        arrays = embeddings_of_articles(pictures, embedding)
        self._replace("images")
        _write_residual(self.run, network.cpu(), source)
        self.run.save_arrays("image_embeddings", arrays)
        self.run.save_json("article_spec", spec)
        self._commit("images", recipe, curve)

    def _fashion_dna(self, recipe: Recipe) -> None:
        config, known = self.config.fashion_dna, self.known
        spec = self.run.load_model("article_spec", ArticleSpec)
        images = self.run.load_arrays("image_embeddings")
        table = encode_catalogue(self.data, spec, images["embedding"], images["has_image"], self.progress)
        seed_torch(derive(self.config.seed, "fashion_dna", "weights"))
        network = build_fashion_dna(self.config, spec, images["embedding"].shape[1])
        customers = frequent_customers(known.training, config.min_purchases, config.max_customers)
        matrix = purchase_matrix(known.training, customers, len(table))
        first = int(known.training.timestamp.min(initial=self.split.validation_from))
        articles = trained_articles(matrix, self.data.availability, first, self.split.validation_from)
        self.progress.say(f"fashion_dna: {len(articles):,} articles × {len(customers):,} frequent customers")
        stage = FashionDnaStage(
            network,
            table,
            matrix=matrix,
            articles=articles,
            window=known.window,
            config=config,
            device=self.world.device,
        )
        fitted = fit(
            stage,
            config,
            seed=self.config.seed,
            checkpoint=self._checkpoint("fashion_dna"),
            recipe=_text(recipe),
            world=self.world,
            precision=self.config.precision,
            progress=self.progress,
        )
        if not self.world.first:
            return
        dna = encode_dna(network, table, self.world.device)
        self._replace("fashion_dna")
        self.run.save_arrays("fashion_dna", _weights(network))
        self.run.save_arrays("article_dna", {"dna": dna})
        self.run.save_arrays("static", stage.arrays())
        self.run.save_json("static_customers", stage.ids)
        self._commit("fashion_dna", recipe, fitted.curve)

    def _style_lstm(self, recipe: Recipe) -> None:
        config, known = self.config.style_lstm, self.known
        dna = self.run.load_arrays("article_dna")["dna"]
        time_spec = self._time_spec()
        seed_torch(derive(self.config.seed, "style_lstm", "weights"))
        network = StyleLstmNetwork(time_spec.step_size, config.dropout)
        score = window_score(known.window, time_spec, dna, known.training)
        curve: Curve = []
        trainings = [("style_lstm", known.training, config)]
        if config.refit_epochs:
            refit = config.model_copy(update={"epochs": config.refit_epochs, "lr": config.lr / 10})
            trainings.append(("style_lstm_refit", known.all, refit))
        for name, purchases, schedule in trainings:
            sampler = NegativeSampler(
                purchases, self.data.availability, recent_share=config.recent_share, recent_days=config.recent_days
            )
            stage = StyleLstmStage(
                network,
                dna,
                sequences=make_sequences(purchases, config.max_purchases),
                negatives=sampler,
                time_spec=time_spec,
                config=config,
                score=score,
                name=name,
            )
            fitted = fit(
                stage,
                schedule,
                seed=self.config.seed,
                checkpoint=self._checkpoint(name),
                recipe=_text(recipe),
                keep_last=purchases is known.all,
                world=self.world,
                precision=self.config.precision,
                progress=self.progress,
            )
            curve += fitted.curve
        if not self.world.first:
            return
        self._replace("style_lstm")
        self.run.save_arrays("style_lstm", _weights(network))
        self.run.save_json("time_spec", time_spec)
        self._commit("style_lstm", recipe, curve)

    def _blend(self, recipe: Recipe) -> None:
        if not self.world.first:
            return
        known = self.known
        time_spec, dna = self._time_spec(), self.run.load_arrays("article_dna")["dna"]
        network = StyleLstmNetwork(time_spec.step_size)
        network.load_state_dict(_tensors(self.run.load_arrays("style_lstm")))
        index = customer_index(known.training, known.window.customers)
        styles = styles_at(network, time_spec, dna, known.training, index, known.window.times)
        fitted = fit_blend(known.window, dna, styles, known.all, self.data.created_at)
        alone, chosen = fitted.tried[0], next(entry for entry in fitted.tried if entry[0] == fitted.blend.trend)
        self.progress.say(
            f"blend: trend {fitted.blend.trend:.4g}; validation AUC {alone[1]:.4f} → {chosen[1]:.4f}, "
            f"discounted gain {alone[2]:.4f} → {chosen[2]:.4f}"
        )
        self._replace("blend")
        self.run.save_json("blend", fitted.blend)
        names = ("trend", "auc", "gain")
        self._commit("blend", recipe, [dict(zip(names, entry, strict=True)) for entry in fitted.tried])

    # --- what is kept ---------------------------------------------------------------------------------------

    def _recipe(self, name: str) -> Recipe:
        """All that a stage depends on, flat: configuration, data, and the recipes of the stages before it."""
        config = self.config.model_dump(mode="json")
        recipe: Recipe = {"seed": config["seed"], "data set": self.split.fingerprint}
        for stage in list(OUTPUTS)[: list(OUTPUTS).index(name) + 1]:
            recipe |= {f"{stage}.{key}": value for key, value in config.get(stage, {}).items()}
        if name == "images":  # the article spec is fitted here
            recipe |= {f"fashion_dna.{key}": config["fashion_dna"][key] for key in ("min_tag_count", "max_tags")}
        else:
            recipe |= {"split.validation_from": self.split.validation_from, "split.cutoff": self.split.cutoff}
        return recipe

    def _complete(self, name: str, recipe: Recipe) -> bool:
        kept = self._stages().get(name)
        if kept is None or not all(self.run.has(output) for output in OUTPUTS[name]):
            return False
        changed = sorted(key for key in kept.keys() | recipe.keys() if kept.get(key) != recipe.get(key))
        if changed:
            self.progress.say(f"{name}: training again, because {', '.join(changed)} changed")
        return not changed

    def _replace(self, name: str) -> None:
        """Right before a stage's outputs are written: forget it and all that was made from what it replaces."""
        names = list(OUTPUTS)
        stale = names[names.index(name) :]
        self.run.save_json("stages", {key: value for key, value in self._stages().items() if key not in stale})
        for output in (output for stage in stale for output in OUTPUTS[stage]):
            path = self.run.folder / output
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.run.save_json("config", self.config)
        self.run.save_json("split", self.split)

    def _commit(self, name: str, recipe: Recipe, curve: Curve) -> None:
        """A stage's outputs are all written: it counts, and its checkpoints are no longer needed."""
        curves = self.run.load_json("curves") if self.run.has("curves.json") else {}
        self.run.save_json("curves", {**curves, name: curve})
        self.run.save_json("stages", {**self._stages(), name: recipe})
        for checkpoint in (self.run.folder / "checkpoints").glob(f"{name}*.pt"):
            checkpoint.unlink()

    def _stages(self) -> dict[str, Recipe]:
        stages: dict[str, Recipe] = self.run.load_json("stages") if self.run.has("stages.json") else {}
        return stages

    def _checkpoint(self, name: str) -> Path:
        return self.run.folder / "checkpoints" / f"{name}.pt"

    def _cache_folder(self, network: ResidualNetwork, spec: ArticleSpec) -> Path:
        root = Path(self.config.images.cache) if self.config.images.cache else self.run.folder / "embedding_cache"
        return root / network_hash(network, spec)[:32]

    def _time_spec(self) -> TimeSpec:
        """τ moves between the first purchase and the end of what the LSTM trains on."""
        reference = int(self.known.training.timestamp.min())
        end = self.split.cutoff if self.config.style_lstm.refit_epochs else self.split.validation_from
        return TimeSpec(components=self.config.style_lstm.time, reference=reference, horizon=end)


@dataclass(frozen=True)
class _Known:
    """``training``: purchases and returns known when the validation window opens; ``all``: known at the cut-off."""

    training: Purchases
    all: Purchases
    window: Window


def _look(data: DataSet, split: Split, config: Config) -> _Known:
    training, everything = data.purchases(split.validation_from), data.purchases(split.cutoff)
    if not len(training):
        raise TrainingError(
            "there is no purchase before the validation window: lower split.validation_days or split.test_days"
        )
    window = make_window(
        everything,
        data.availability,
        split.validation_from,
        split.cutoff,
        name="validation",
        most=config.style_lstm.validation_customers,
        rng=derive(config.seed, "window"),
    )
    return _Known(training, everything, window)


def _write_residual(run: Run, network: ResidualNetwork, source: str) -> None:
    """The folder ``residual``, aside and then renamed."""
    aside = Path(tempfile.mkdtemp(prefix=".residual-", dir=run.folder))
    save_residual_network(network, aside)
    (aside / "source.txt").write_text(source + "\n", encoding="utf-8")
    aside.rename(run.folder / "residual")


def _weights(network: Any) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}


def _tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _text(recipe: Recipe) -> str:
    return hashlib.sha256(orjson.dumps(recipe, option=orjson.OPT_SORT_KEYS)).hexdigest()
