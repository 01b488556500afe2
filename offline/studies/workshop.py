"""Where the runs of studies are trained: an ordinary run folder for each variant, none of its stages trained twice.

A stage is taken over from any run at hand that trained it by the very same recipe, the base run included. So what two
variants have in common is one and the same, what differs between them is what their settings change, and a study that
was stopped goes on where it was.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from offline.config import Config, parse_config
from offline.context import DAY, Context
from offline.hold_out import training_data
from offline.pipeline import train
from offline.progress import Progress, Silent
from offline.run import Run, Split
from offline.stages import RECORDS
from offline.world import World

Settings = Mapping[str, Any]
"""Values by the full name of their key: ``{"style_lstm.loss": "rank"}``."""
FULL = "full"
"""The base variant: nothing is changed."""


def changed(config: Config, settings: Settings) -> Config:
    """``config`` with other values for some keys. Raises InvalidConfig where one is none."""
    content = copy.deepcopy(config.model_dump(mode="json"))
    for key, value in settings.items():
        *path, last = key.split(".")
        section: Any = content
        for part in path:
            section = section[part]
        section[last] = value
    return parse_config(content, "the variant")


@dataclass(frozen=True)
class Workshop:
    """Trains variants of ``config`` on ``data`` into folders of ``folder``."""

    folder: Path
    data: DataSet
    config: Config
    bases: Sequence[Run]
    """runs beside those of ``folder`` whose stages may be taken over"""
    world: World
    progress: Progress

    def run(self, name: str, settings: Settings | None = None, data: DataSet | None = None) -> Run:
        """The variant ``name``, trained as far as it was not yet; on ``data`` where that is a part of the whole.

        Raises TrainingError where there is nothing to learn from.
        """
        run, config = Run(self.folder / "runs" / name), changed(self.config, settings or {})
        data = data or self.data
        context = Context(training_data(data, config.split.hold_out), run, config, self.progress, self.world)
        same_articles = data.article_ids == self.data.article_ids
        self.progress.say(f"— {name}")
        for other in self._others(run):
            context.keeper.adopt(other, same_articles=same_articles)
        train(data, run, config, self.progress, world=self.world)
        return run

    def full(self) -> Run:
        """The base variant, trained."""
        return self.run(FULL)

    def same_cut(self, part: DataSet) -> dict[str, Any]:
        """Settings by which a run on ``part`` of the data is cut where the whole is, as far as its events reach."""
        whole = self.split()
        test = max(0, part.last_event // DAY + 1 - whole.cutoff // DAY)
        return {"split.test_days": test, "split.validation_days": (whole.cutoff - whole.validation_from) // DAY}

    def split(self) -> Split:
        """Where time is cut for the whole data set."""
        data = training_data(self.data, self.config.split.hold_out)
        return Context(data, Run(self.folder), self.config, Silent(), self.world).split

    def needs_generation(self, study: str) -> None:
        """Raises InvalidConfig where the configuration has no generating half."""
        if not self.config.generation.enabled:
            raise InvalidConfig(
                f"{study} is a study of the generating half: set 'enabled = true' under [generation], or take the "
                "profile 'default'"
            )

    def _others(self, run: Run) -> list[Run]:
        """Runs to take stages from: complete ones of the bases first, then all that studies made before."""
        beside = run.folder.parent.iterdir() if run.folder.parent.is_dir() else ()
        made = [Run(folder) for folder in sorted(beside) if folder != run.folder]
        return [other for other in (*self.bases, *made) if (other.folder / RECORDS).is_dir()]
