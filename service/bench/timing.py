"""How long calls take."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_WARM_UP = 20  # calls


def timings(call: Callable[[int], object], count: int) -> NDArray[np.float32]:
    """Seconds per call, float32 (count), of ``call(number)``."""
    for number in range(_WARM_UP):
        call(number)
    taken = np.empty(count, np.float32)
    for number in range(count):
        start = time.perf_counter()
        call(number)
        taken[number] = time.perf_counter() - start
    return taken
