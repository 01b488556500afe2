"""What every stage of one training works with, and what its purchases are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.purchases import Purchases
from model_store.time_features import TimeSpec
from offline.config import Config
from offline.hold_out import BY_TIME
from offline.progress import Progress
from offline.run import Run, Split
from offline.stages import Keeper
from offline.training import derive
from offline.validation import Window, make_window
from offline.world import World

DAY = 86_400


def make_split(data: DataSet, config: Config) -> Split:
    """Where time is cut: whole days (UTC) counted back from the end of the last event's day."""
    window = data.file.window_days
    test = config.split.test_days
    if test is None:
        test = window if config.split.hold_out == BY_TIME else 0
    validation = config.split.validation_days or window
    cutoff = (data.last_event // DAY + 1 - test) * DAY
    return Split(
        data_set=data.file.name,
        fingerprint=data.fingerprint,
        hold_out=config.split.hold_out,
        validation_from=cutoff - validation * DAY,
        cutoff=cutoff,
    )


@dataclass(frozen=True)
class Known:
    """``training``: purchases and returns known when the validation window opens; ``all``: known at the cut-off."""

    training: Purchases
    all: Purchases
    window: Window


def known_purchases(data: DataSet, split: Split, config: Config) -> Known:
    """What ``data`` tells before and in the validation window. Raises TrainingError where one is empty."""
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
    return Known(training, everything, window)


@dataclass
class Context:
    """One training: its data, its run, its configuration, and the processes that share it."""

    data: DataSet
    run: Run
    config: Config
    progress: Progress
    world: World

    @cached_property
    def split(self) -> Split:
        """Where time is cut."""
        return make_split(self.data, self.config)

    @cached_property
    def keeper(self) -> Keeper:
        """What is complete already."""
        return Keeper(self.run, self.config, self.split, self.progress)

    @cached_property
    def known(self) -> Known:
        """Purchases, and the validation window. Raises TrainingError where one is empty."""
        return known_purchases(self.data, self.split, self.config)

    @cached_property
    def time_spec(self) -> TimeSpec:
        """τ moves between the first purchase and the end of what the LSTM trains on."""
        reference = int(self.known.training.timestamp.min())
        end = self.split.cutoff if self.config.style_lstm.refit_epochs else self.split.validation_from
        return TimeSpec(components=self.config.style_lstm.time, reference=reference, horizon=end)


def weights(network: Any) -> dict[str, NDArray[Any]]:
    """A network's weights as arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
