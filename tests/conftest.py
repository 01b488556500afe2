"""What every test stands on: one thread per library, no clock, and real data only where it lies beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No example is timed: the machine may be busy. In CI the same examples run each time, elsewhere new ones.
settings.register_profile(
    "modiste", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("modiste")

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

REAL_DATA = Path(os.environ.get("MODISTE_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


# `make test-slow` hands files out to two processes in this order, so that neither is left with a long one at the end.
LONGEST_FIRST = (
    "house/test_quick_start.py",
    "offline/test_shuffled_structure.py",
    "offline/studies/test_studies.py",
    "house/test_bench.py",
    "faults/test_killed_redis.py",
    "faults/test_changes_under_load.py",
    "faults/test_killed_workers.py",
    "house/test_fresh_machine.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    if REAL_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason=f"{REAL_DATA} does not exist")
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(skip)
