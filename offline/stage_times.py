"""What each stage of a training takes: seconds and memory, kept with its result, and never a part of its recipe.

A stage that is stopped goes on from its last checkpoint, so what was spent up to that one counts, too, and what came
after it does not, since it is done again. Both are told by when files were written, however the stage ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TypedDict

import orjson

from model_store.machine import peak_memory


class StageCost(TypedDict):
    """As a run's record of a stage, and a report, have it."""

    seconds: float
    """for which it was at work"""
    peak_memory_mib: int | None
    """the most that its process had held by its end, whatever for; None where the system does not tell"""


class StageTimes:
    """Times stages by ``clock``; their checkpoints lie in ``folder``, under names that begin with theirs."""

    def __init__(self, folder: Path, clock: Callable[[], float] = perf_counter):
        self._folder, self._clock = folder, clock
        self._began: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str, recipe: str) -> Iterator[None]:
        """Time a stage; what is left in ``folder`` of another ``recipe`` does not count."""
        spent = self._spent(name, recipe)
        self._began[name] = self._clock() - spent
        self._folder.mkdir(parents=True, exist_ok=True)
        self._marker(name).write_bytes(orjson.dumps({"recipe": recipe, "seconds": spent}))
        try:
            yield
        finally:
            del self._began[name]
            if not self._checkpoints(name):  # nothing to go on from
                self._marker(name).unlink(missing_ok=True)

    def cost(self, name: str) -> StageCost | None:
        """Of a stage that is being timed, up to now; None where it is not."""
        if name not in self._began:
            return None
        return {"seconds": round(self._clock() - self._began[name], 2), "peak_memory_mib": peak_memory()}

    def _spent(self, name: str, recipe: str) -> float:
        """Seconds up to the last checkpoint."""
        try:
            told = orjson.loads(self._marker(name).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return 0.0
        written = [path.stat().st_mtime for path in self._checkpoints(name)]
        if told["recipe"] != recipe or not written:
            return 0.0
        return float(told["seconds"] + max(max(written) - self._marker(name).stat().st_mtime, 0.0))

    def _checkpoints(self, name: str) -> list[Path]:
        return [path for path in self._folder.glob(f"{name}*") if path != self._marker(name)]

    def _marker(self, name: str) -> Path:
        """When the stage began, and what had been spent on it by then."""
        return self._folder / f"{name}.began.json"
