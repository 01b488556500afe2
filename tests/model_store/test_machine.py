from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import pytest

from model_store.machine import hardware, peak_memory, versions


def test_the_machine_is_named() -> None:
    found = hardware()
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert platform.system() in found["system"]
    if platform.machine() == "x86_64" and platform.system() == "Linux":
        assert "family" in found["processor"]


def test_the_peak_of_memory_stays_when_memory_is_given_back() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not tell")
    held = np.ones(64 * 2**20, np.uint8)
    while_held = peak_memory()
    del held
    after = peak_memory()
    assert while_held is not None
    assert after is not None
    assert before <= while_held <= after
    assert after >= 64


def test_versions_are_those_installed() -> None:
    found = versions(["numpy", "no such package"])
    assert found == {"python": platform.python_version(), "numpy": version("numpy"), "no such package": None}
