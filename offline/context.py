"""What every stage of one training works with, and what its purchases are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.purchases import Purchases
from model_store.time_features import TimeSpec
from offline.config import Config
from offline.hold_out import BY_TIME, HeldOut
from offline.progress import Progress
from offline.run import Run, Split
from offline.stages import Keeper
from offline.training import derive
from offline.validation import Window, held_out_window, make_window
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


class TrainingPart(NamedTuple):
    """What is trained on until the best epoch is known: events of ``data`` before ``end`` (Unix seconds)."""

    data: DataSet
    end: int
    held: HeldOut | None
    """the ends of histories that it is without; None by time"""

    @classmethod
    def of(cls, data: DataSet, split: Split) -> TrainingPart:
        """Of ``data``, which is without what is kept for evaluation."""
        held = HeldOut.of(data, split.hold_out, split.cutoff)
        if held is None:
            return cls(data, split.validation_from, None)
        return cls(held.left_out_of(data), split.cutoff, held)


@dataclass(frozen=True)
class Known:
    """What is trained on, and what training is validated by.

    By time, that is what was bought between the opening of the validation window and the cut-off. Where the ends of
    histories are held out (``data`` is without them), it is the end of what is left of each, which ``training`` does
    not know: as what will be asked, it is ranked among all articles, each customer at a moment of their own.
    """

    part: TrainingPart
    training: Purchases
    """of that part: what is known when the customers of the window are ranked"""
    all: Purchases
    """known at the cut-off"""
    window: Window
    sales_until: NDArray[np.int64]
    """(C) up to when sales count for each customer of the window: when it opens, or their own day begins"""


def known_purchases(data: DataSet, split: Split, config: Config) -> Known:
    """What ``data`` tells to train on and to validate by. Raises TrainingError where one is empty."""
    part, everything = TrainingPart.of(data, split), data.purchases(split.cutoff)
    training = part.data.purchases(part.end)
    most, rng = config.style_lstm.validation_customers, derive(config.seed, "window")
    if part.held is not None:
        window = held_out_window(part.held, len(data.article_ids), most=most, rng=rng)
        return Known(part, training, everything, window, window.times // DAY * DAY)
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
        most=most,
        rng=rng,
    )
    opens = np.full(len(window.customers), split.validation_from)
    return Known(part, training, everything, window, opens)


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
        end = self.split.cutoff if self.config.style_lstm.refit_epochs else self.known.part.end
        return TimeSpec(components=self.config.style_lstm.time, reference=reference, horizon=end)


def weights(network: Any) -> dict[str, NDArray[Any]]:
    """A network's weights as arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
