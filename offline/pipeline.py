"""Training from a data set to a complete run: the style half, the generating half, and the blend of both.

images → fashion_dna → style_lstm ─────────────────────────────────────────────┐
title_encoder → query_memory → base_model → language_model ← id_embeddings ────┴→ blend
"""

from __future__ import annotations

from collections.abc import Callable

from model_store.dataset import DataSet
from offline.blend_stage import train_blend
from offline.config import Config
from offline.context import Context
from offline.generation_stages import (
    build_query_memory,
    train_base,
    train_ids,
    train_language_model,
    train_titles,
)
from offline.progress import Progress, Silent
from offline.run import Run
from offline.stages import stages_of
from offline.style_stages import train_fashion_dna, train_images, train_style_lstm
from offline.world import World

TRAIN: dict[str, Callable[[Context], None]] = {
    "images": train_images,
    "fashion_dna": train_fashion_dna,
    "style_lstm": train_style_lstm,
    "title_encoder": train_titles,
    "id_embeddings": train_ids,
    "query_memory": build_query_memory,
    "base_model": train_base,
    "language_model": train_language_model,
    "blend": train_blend,
}


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
    context = Context(data, run, config, shown, world)
    if fresh and world.first:
        context.keeper.forget_all()
    world.wait()
    training = context.known.training  # an empty window is told before anything is trained
    shown.say(
        f"training on {data.file.name}: {len(data.article_ids):,} articles, {len(training):,} "
        f"purchases by {len(training.customer_ids):,} customers; seed {config.seed}"
    )
    for spec in stages_of(config):
        if context.keeper.complete(spec.name):
            shown.say(f"{spec.name}: trained already, with this configuration and data")
        else:
            TRAIN[spec.name](context)
            world.wait()
    world.wait()
