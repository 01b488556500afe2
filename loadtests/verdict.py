"""What a load test measured, and whether it is good enough."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 99, 99.9)
PARTS = 5
"""A test is looked at in so many parts of equal length; growth is from the first to the last."""
MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What is still good enough; None: not looked at."""

    p50: float | None
    """ms, from when a request was due to when it was answered"""
    p99: float | None
    failures: float | None
    """share of requests"""
    latency_growth: float | None
    """median of the last part over that of the first"""
    memory_growth: float | None
    """MiB that the service's processes gain from the first part to the last, Redis aside"""


@dataclass
class Measured:
    """What a load test notes while it runs. Times are seconds since its begin, and negative while it warms up."""

    names: list[str] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    """ms since each request was due"""
    failed: list[bool] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """ms by which the load generator itself was late for each journey"""
    memory: list[tuple[float, Mapping[str, int]]] = field(default_factory=list)
    """when, and resident bytes by kind of process"""
    elsewhere: list[bool] = field(default_factory=list)
    """whether requests that no journey made failed: those of the merchandiser"""

    def note(self, name: str, due: float, latency: float, failed: bool) -> None:
        """One request of a journey."""
        self.names.append(name)
        self.due.append(due)
        self.latency.append(latency)
        self.failed.append(failed)


def report(measured: Measured, seconds: float) -> dict[str, Any]:
    """Figures of the whole test, of each call and of each part, but of the time before its begin only what failed."""
    kept = np.array(measured.due) >= 0
    due, latency = np.array(measured.due)[kept], np.array(measured.latency)[kept]
    names, failed = np.array(measured.names, dtype=object)[kept], np.array(measured.failed, dtype=bool)[kept]
    edges = np.linspace(0, seconds, PARTS + 1)
    parts = [
        {
            "from_s": round(float(start), 1),
            "requests": int(((start <= due) & (due < end)).sum()),
            "latency_ms": percentiles(latency[(start <= due) & (due < end)]),
            "memory_mib": _memory(measured.memory, start, end),
        }
        for start, end in itertools.pairwise(edges)
    ]
    every = [failed for when, failed in zip(measured.due, measured.failed, strict=True) if when >= 0 or failed]
    every += measured.elsewhere
    return {
        "seconds": round(seconds, 1),
        "journeys": len(measured.late),
        "requests": len(every),
        "requests_per_second": round(len(every) / seconds, 1),
        "failed_share": sum(every) / max(len(every), 1),
        "latency_ms": percentiles(latency),
        "generator_late_ms": percentiles(np.array(measured.late)),
        "calls": {
            name: {"requests": int((names == name).sum()), "failed": int(failed[names == name].sum())}
            | {"latency_ms": percentiles(latency[names == name])}
            for name in sorted(set(names.tolist()))
        },
        "parts": parts,
        "growth": _growth(parts),
    }


def percentiles(values: NDArray[np.float64]) -> dict[str, float] | None:
    """``{"p50": …, "max": …}``; None without values."""
    if not len(values):
        return None
    found = {f"p{percent:g}": float(np.percentile(values, percent)) for percent in PERCENTILES}
    return {name: round(value, 2) for name, value in (found | {"max": float(values.max())}).items()}


def _memory(samples: Sequence[tuple[float, Mapping[str, int]]], start: float, end: float) -> dict[str, float] | None:
    """Mean MiB by kind of process between two times; None where the service's processes are not seen."""
    inside = [by_kind for when, by_kind in samples if start <= when < end and by_kind]
    if not inside:
        return None
    kinds = sorted({kind for by_kind in inside for kind in by_kind})
    return {kind: round(float(np.mean([by_kind.get(kind, 0) for by_kind in inside])) / MIB, 1) for kind in kinds}


def _growth(parts: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    first, last = parts[0], parts[-1]
    seen = first["latency_ms"] and last["latency_ms"]
    known = first["memory_mib"] and last["memory_mib"]
    return {
        "latency": round(last["latency_ms"]["p50"] / first["latency_ms"]["p50"], 3) if seen else None,
        "memory_mib": round(_of_service(last["memory_mib"]) - _of_service(first["memory_mib"]), 1) if known else None,
    }


def _of_service(by_kind: Mapping[str, float]) -> float:
    """Redis keeps what it is told, so it grows with every event."""
    return sum(mib for kind, mib in by_kind.items() if kind != "redis")


def missed(figures: Mapping[str, Any], limits: Limits) -> list[str]:
    """A line for each limit that does not hold, or whose figure could not be measured; empty where all is well."""
    latency = figures["latency_ms"] or {}
    looked_at = [
        ("median latency, ms", latency.get("p50"), limits.p50),
        ("99th percentile of latency, ms", latency.get("p99"), limits.p99),
        ("share of failed requests", figures["failed_share"] if figures["requests"] else None, limits.failures),
        ("growth of latency", figures["growth"]["latency"], limits.latency_growth),
        ("growth of memory, MiB", figures["growth"]["memory_mib"], limits.memory_growth),
    ]
    return [
        f"{name}: not measured" if value is None else f"{name}: {value:g}, more than {limit:g}"
        for name, value, limit in looked_at
        if limit is not None and (value is None or value > limit)
    ]
