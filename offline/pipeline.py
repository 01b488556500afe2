"""Training from a data set to a complete run: the style half, the generating half, and the blend of both.

images → fashion_dna → style_lstm ─────────────────────────────────────────────┐
title_encoder → query_memory → base_model → language_model ← id_embeddings ────┴→ blend

Each stage reads what it needs from the run and seeds itself, so that what is trained does not depend on what is trained
beside it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from model_store.dataset import DataSet
from offline.config import Config
from offline.context import Context
from offline.hold_out import training_data
from offline.progress import Progress, Silent
from offline.run import Run
from offline.side_by_side import SideBySide, Work, cores
from offline.stages import StageSpec, next_ready, stages_of
from offline.world import World, free_port, joined_world

_CHAINS = 3  # of stages that begin with none but the data


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
    context = Context(training_data(data, config.split.hold_out), run, config, shown, world)
    if fresh and world.first:
        context.keeper.forget_all()
    world.wait()
    training = context.known.training  # an empty window is told before anything is trained
    shown.say(
        f"training on {data.file.name}: {len(data.article_ids):,} articles, {len(training):,} "
        f"purchases by {len(training.customer_ids):,} customers; seed {config.seed}"
    )
    at_once = stages_at_once(config, world)
    if at_once > 1:
        _train_side_by_side(context, at_once)
    else:
        _train_in_turn(context)
    world.wait()


def stages_at_once(config: Config, world: World) -> int:
    """How many stages to train side by side: as many as have ``config.threads`` cores each, on the CPU.

    One where a number of threads is not given, where a GPU or several processes train, and where there is one chain of
    stages only.
    """
    if not config.threads or not config.generation.enabled or world.size > 1 or world.device.type != "cpu":
        return 1
    return min(_CHAINS, max(1, cores() // config.threads))


def _train_in_turn(context: Context) -> None:
    from offline.trainers import TRAIN  # noqa: PLC0415 (seconds, which who leaves the work to others need not wait)

    for spec in stages_of(context.config):
        complete = _trained_already(context, spec)
        context.world.wait()  # or who comes late finds complete what the first process has trained meanwhile
        if not complete:
            with _timed(context, spec.name):
                TRAIN[spec.name](context)
            context.world.wait()


@dataclass(frozen=True)
class _Share:
    """One process's share of a stage: it is number ``rank`` of ``size``, who meet at ``port``."""

    stage: str
    rank: int
    size: int
    port: int

    def __str__(self) -> str:
        return self.stage


def _train_side_by_side(context: Context, most: int) -> None:
    """Each stage as soon as it can begin, and where it gains from more than one process, in all that are free then."""
    specs = stages_of(context.config)
    opened = partial(_open_in_process, context.data.folder, context.run.folder, context.config)
    done, begun, at_work = set[str](), set[str](), Counter[str]()
    processes: SideBySide[_Share, None]
    with SideBySide(most, opened, context.progress) as processes:
        while len(done) < len(specs):
            spec = next_ready(specs, done, begun) if processes.free else None
            if spec is None:
                stage = processes.finished()[0].stage
                at_work[stage] -= 1
                if not at_work[stage]:
                    done.add(stage)
                continue
            begun.add(spec.name)
            if _trained_already(context, spec):
                done.add(spec.name)
                continue
            # Each process holds the base that fine-tuning begins with: a named one may be too large for that.
            shared = spec.shared and not context.config.generation.language_model.base
            at_work[spec.name] = size = processes.free if shared else 1
            port = free_port() if size > 1 else 0
            for rank in range(size):
                processes.begin(_Share(spec.name, rank, size, port))


def _trained_already(context: Context, spec: StageSpec) -> bool:
    complete = context.keeper.complete(spec.name)
    if complete:
        context.progress.say(f"{spec.name}: trained already, with this configuration and data")
    return complete


def _timed(context: Context, stage: str) -> AbstractContextManager[None]:
    """Measured by the process that writes."""
    return context.keeper.timing(stage) if context.world.first else nullcontext()


def _open_in_process(data: Path, run: Path, config: Config, progress: Progress) -> Work[_Share, None]:
    """Shares of stages, in a process that trains some of them."""
    from offline.trainers import TRAIN  # noqa: PLC0415

    torch.set_num_threads(config.threads)
    context = Context(training_data(DataSet.open(data), config.split.hold_out), Run(run), config, progress, World())

    def train_share(share: _Share) -> None:
        with joined_world(share.rank, share.size, share.port, config.threads) as world:
            context.world, context.progress = world, progress if world.first else Silent()
            with _timed(context, share.stage):
                TRAIN[share.stage](context)

    return train_share
