"""What figures were taken on: the machine and the versions of packages, as every report of ours names them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def peak_memory() -> int | None:
    """The most memory that this process has held at once, in MiB; None where the system does not tell.

    Of its own: what Linux tells of ``getrusage`` begins with the memory of whoever started it.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            told = [line.split()[1] for line in file if line.startswith("VmHWM:")]
    except OSError:
        return None
    return int(told[0]) // 1024 if told else None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Python's version and those of ``packages``; None where one is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _processor() -> str:
    """Its name with family and model, since one name may stand for machines of which one is twice as fast."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.partition(":") for line in file.read().partition("\n\n")[0].splitlines()]
    except OSError:
        lines = []
    about = {name.strip(): value.strip() for name, _, value in lines}
    if "model name" not in about:
        return platform.processor()
    return f"{about['model name']} (family {about.get('cpu family', '?')}, model {about.get('model', '?')})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
