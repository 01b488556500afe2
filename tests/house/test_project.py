"""pyproject, Makefile and .ci/run say the same thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from model_store.errors import InvalidConfig
from model_store.graphs import check_runtime

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_cpu_and_gpu_builds_exclude_each_other(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    names = {extra: {Requirement(text).name for text in extras[extra]} for extra in ("cpu", "gpu")}
    assert not names["cpu"] & names["gpu"]
    assert [{"extra": "cpu"}, {"extra": "gpu"}] in project["tool"]["uv"]["conflicts"]
    for extra, requirements in extras.items():
        if extra not in names:
            assert not (names["cpu"] | names["gpu"]) & {Requirement(text).name for text in requirements}


@pytest.mark.parametrize("intruder", ["onnxruntime-gpu", "faiss-gpu-cu12"])
def test_an_environment_with_both_builds_is_refused(
    intruder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_runtime()
    metadata = tmp_path / f"{intruder.replace('-', '_')}-9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {intruder}\nVersion: 9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidConfig, match=f"{intruder} are both installed and exclude each other"):
        check_runtime()


def test_the_service_needs_no_torch(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    for texts in (project["project"]["dependencies"], extras["service"], extras["cpu"], extras["gpu"]):
        assert not {Requirement(text).name for text in texts} & {"torch", "transformers", "onnx"}


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MODISTE_", "MAKE"))}
    result = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return result.stdout


def test_make_help_lists_every_target() -> None:
    listed = set(re.findall(r"^make ([\w-]+)", make("help"), re.MULTILINE))
    assert listed == {
        "help",
        "serve",
        "test",
        "test-slow",
        "test-faults",
        "test-vllm",
        "test-baselines",
        "test-browser",
        "baselines",
        "studies",
        "check",
        "lock",
        "audit",
        "loadtest",
        "bench",
        "clean",
    }
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert listed | {"preflight", "chromium"} == set(phony.group(1).split())


def test_what_make_runs_are_commands_that_exist() -> None:
    import modiste

    text = (ROOT / "Makefile").read_text()
    used = set(re.findall(r"\$\(BIN\)/modiste (\w+)", text))
    assert used == {"shop", "train", "evaluate", "study", "export", "serve", "bench"}
    assert used <= modiste.COMMANDS.keys()


def serve_plan(*settings: str) -> str:
    """What `make serve` would run, the environment being installed."""
    return make("--dry-run", "--old-file=.venv/.installed-cpu", "serve", *settings)


def test_serve_looks_at_settings_before_it_trains(tmp_path: Path) -> None:
    plan = serve_plan(f"MODISTE_STORE={tmp_path}", f"SHOP={tmp_path / 'shop'}")
    steps = re.findall(r"modiste (serve --check|\w+)", plan)
    assert steps == ["serve --check", "shop", "train", "evaluate", "export", "serve"]


def test_serve_takes_a_live_bundle_of_a_named_store_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("one\n")
    steps = re.findall(r"modiste (serve --check|\w+)", serve_plan(f"MODISTE_STORE={tmp_path}"))
    assert steps[0] == "serve --check"
    assert "train" not in steps
    assert steps[-1] == "serve"


def test_ci_runs_the_checks_then_the_suite() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines.index("make check") < lines.index("make test")
    assert "set -eu" in lines


def test_browser_tests_name_what_is_missing_before_anything_is_installed(tmp_path: Path) -> None:
    command = ["make", "test-browser", f"MODISTE_CHROMIUM={tmp_path / 'none'}"]
    outside = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    result = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    told = result.stderr.splitlines()
    assert told[0].startswith(f"make: there is no Chromium at {tmp_path / 'none'}: apt-get install chromium")
    assert len([line for line in told if not line.startswith("make: ***")]) == 1


@pytest.mark.parametrize(
    ("chromium", "root", "runs"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_ci_looks_for_a_chromium_installs_one_or_leaves_it(
    chromium: bool, root: bool, runs: bool, tmp_path: Path
) -> None:
    """With stand-ins for make, id and apt-get, on a machine that has Chromium, can have it, or cannot."""
    found = tmp_path / "chromium"
    script = (
        (ROOT / ".ci/run").read_text().replace("/usr/bin/chromium", str(found)).replace('cd "$(dirname "$0")/.."', "")
    )
    stand_ins = {
        "make": "echo make $*",
        "id": f"echo {0 if root else 1}",
        "apt-get": f"test $2 = update || touch {found}",
    }
    for name, line in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\ntest ! -e {found} || chmod +x {found}\n")
        (tmp_path / name).chmod(0o755)
    if chromium:
        found.touch(mode=0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ("make test-browser" in result.stdout.splitlines()) is runs
    assert ("make test-browser is left out" in result.stdout) is not runs


def test_the_walls_stand() -> None:
    """The import contracts, torch among them; `make check` runs the same."""
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
