from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from model_store.machine import hardware, peak_memory, versions


def test_the_machine_is_named() -> None:
    found = hardware()
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert platform.system() in found["system"]
    if platform.machine() == "x86_64" and platform.system() == "Linux":
        assert "family" in found["processor"]


HOLDS = """
import numpy as np
from model_store.machine import peak_memory

before = peak_memory()
held = np.ones(64 * 2**20, np.uint8)
while_held = peak_memory()
del held
print(before, while_held, peak_memory())
"""


def test_the_peak_of_memory_stays_when_memory_is_given_back() -> None:
    """In a process of its own, which has held less before; what Linux counts may be off by some pages."""
    if peak_memory() is None:
        pytest.skip("this system does not tell")
    told = subprocess.run([sys.executable, "-c", HOLDS], check=True, capture_output=True, text=True).stdout
    before, while_held, after = map(int, told.split())
    assert before + 60 <= while_held <= after + 1
    assert after >= 64


def test_versions_are_those_installed() -> None:
    found = versions(["numpy", "no such package"])
    assert found == {"python": platform.python_version(), "numpy": version("numpy"), "no such package": None}
