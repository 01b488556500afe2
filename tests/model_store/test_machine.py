from __future__ import annotations

import platform
from importlib.metadata import version

from model_store.machine import hardware, versions


def test_the_machine_is_named() -> None:
    found = hardware()
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert platform.system() in found["system"]
    if platform.machine() == "x86_64" and platform.system() == "Linux":
        assert "family" in found["processor"]


def test_versions_are_those_installed() -> None:
    found = versions(["numpy", "no such package"])
    assert found == {"python": platform.python_version(), "numpy": version("numpy"), "no such package": None}
