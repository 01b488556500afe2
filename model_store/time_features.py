"""Time as the style LSTM sees it: τ(t), and the step input [f_{i-1}, τ(t_{i-1}), τ(t_i)] (Zalando 2017, §2.3).

Which components τ has is a choice that was measured (see ``offline``); the spec travels in the bundle.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model_store import DNA_SIZE

YEAR = 365.2425 * 86_400.0  # seconds
DAY = 86_400.0

Component = Literal["trend", "season", "weekday", "gap"]
_WIDTHS: dict[Component, int] = {"trend": 1, "season": 4, "weekday": 2}


class TimeSpec(BaseModel):
    """Which components τ has, and the two instants (Unix seconds) between which absolute time moves.

    ``trend``: years since ``reference``, held constant before it and after ``horizon``, so that a model asked about a
    time far beyond its training does not extrapolate. ``season``: first two harmonics of the year. ``weekday``: first
    harmonic of the week. ``gap``: log days between the previous purchase and now (a function of both times, so it is
    added once to the step and not to τ itself).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: Annotated[tuple[Component, ...], Field(min_length=1)] = ("trend", "season", "gap")
    reference: int
    horizon: int

    @property
    def width(self) -> int:
        """Components of τ(t)."""
        return sum(_WIDTHS.get(name, 0) for name in self.components)

    @property
    def step_size(self) -> int:
        """D, components of one step input: Fashion DNA, τ before, τ now, and the gap where it is on."""
        return DNA_SIZE + 2 * self.width + ("gap" in self.components)


def encode_time(spec: TimeSpec, timestamps: NDArray[np.int64]) -> NDArray[np.float32]:
    """τ for timestamps of any shape (Unix seconds, UTC): float32 (…, spec.width)."""
    seconds = np.asarray(timestamps, dtype=np.float64)
    parts: list[NDArray[np.float64]] = []
    for name in spec.components:
        if name == "trend":
            parts.append((np.clip(seconds, spec.reference, spec.horizon) - spec.reference) / YEAR)
        elif name == "season":
            angle = 2 * np.pi * seconds / YEAR
            parts += [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
        elif name == "weekday":
            angle = 2 * np.pi * seconds / (7 * DAY)
            parts += [np.sin(angle), np.cos(angle)]
    if not parts:
        return np.zeros((*seconds.shape, 0), dtype=np.float32)
    return np.stack(parts, axis=-1).astype(np.float32)


def _encode_moment(spec: TimeSpec, seconds: float) -> list[float]:
    """τ of one moment: ``encode_time`` without arrays, whose overhead is what a single step would mostly consist of."""
    moment: list[float] = []
    for name in spec.components:
        if name == "trend":
            moment.append((min(max(seconds, spec.reference), spec.horizon) - spec.reference) / YEAR)
        elif name == "season":
            angle = 2 * math.pi * seconds / YEAR
            moment += (math.sin(angle), math.cos(angle), math.sin(2 * angle), math.cos(2 * angle))
        elif name == "weekday":
            angle = 2 * math.pi * seconds / (7 * DAY)
            moment += (math.sin(angle), math.cos(angle))
    return moment


def encode_step(
    spec: TimeSpec, previous_dna: NDArray[np.float32] | None, previous_time: int, time: int
) -> NDArray[np.float32]:
    """One step input, equal to ``encode_steps`` of the same purchase: float32 (1, 1, spec.step_size).

    ``previous_dna`` float32 (128), or None where there is no previous purchase. Times in Unix seconds.
    """
    step = np.zeros((1, 1, spec.step_size), dtype=np.float32)
    moment = _encode_moment(spec, time)
    if previous_dna is None:
        end = DNA_SIZE + 2 * spec.width
        step[0, 0, end - spec.width : end] = moment
        return step
    step[0, 0, :DNA_SIZE] = previous_dna
    rest = _encode_moment(spec, previous_time) + moment
    if "gap" in spec.components:
        rest.append(math.log1p(max(time - previous_time, 0) / DAY) / 5.0)
    step[0, 0, DNA_SIZE:] = rest
    return step


def encode_steps(
    spec: TimeSpec,
    previous_dna: NDArray[np.float32],
    previous_time: NDArray[np.int64],
    time: NDArray[np.int64],
    first: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Step inputs x_i = [f_{i-1}, τ(t_{i-1}), τ(t_i), gap]: float32 (…, spec.step_size).

    ``previous_dna`` float32 (…, 128); ``previous_time`` and ``time`` int64 (…) in Unix seconds; ``first`` bool (…)
    marks steps without a previous purchase, where everything but τ(t_i) is zero (Zalando 2017, §2.3: f_0, t_0 and m_0
    are zero).
    """
    follows = (~np.asarray(first, dtype=bool))[..., None].astype(np.float32)
    parts = [previous_dna * follows, encode_time(spec, previous_time) * follows, encode_time(spec, time)]
    if "gap" in spec.components:
        days = np.maximum(np.asarray(time, np.float64) - np.asarray(previous_time, np.float64), 0.0) / DAY
        parts.append((np.log1p(days) / 5.0)[..., None].astype(np.float32) * follows)
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def encode_history(
    spec: TimeSpec, dna: NDArray[np.float32], times: NDArray[np.int64], read_time: int
) -> NDArray[np.float32]:
    """All step inputs of one history of n purchases, read at ``read_time``: float32 (n + 1, spec.step_size).

    ``dna`` float32 (n, 128), ``times`` int64 (n), oldest first. Row i predicts purchase i + 1; the last is the read.
    """
    n = len(times)
    previous_dna = np.concatenate([np.zeros((1, DNA_SIZE), np.float32), dna])
    previous_time = np.concatenate([np.zeros(1, np.int64), times])
    now = np.concatenate([times, np.asarray([read_time], np.int64)])
    return encode_steps(spec, previous_dna, previous_time, now, np.arange(n + 1) == 0)
