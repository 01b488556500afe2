"""What is installed is what the lists name, file by file, and the lists name all that pyproject.toml needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements import audit, lock

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted((ROOT / "requirements").glob("*.txt"))
ENTRY = re.compile(
    r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)(?: ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)
OF_EXTRA = {"service": ["service"], "cpu": ["service", "cpu"], "gpu": ["service", "gpu"]} | {
    "offline": ["service", "offline", "torch"],
    "loadtests": ["service", "loadtests"],
    "browser": ["service", "loadtests", "browser"],
    "tracing": ["service", "tracing"],
    "dev": ["service", "offline", "tracing", "dev"],
}


def pins(name: str) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for name, version, _ in ENTRY.findall((ROOT / f"requirements/{name}.txt").read_text())
    }


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_list_holds_versions_and_hashes_and_nothing_else(path: Path) -> None:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    assert ENTRY.sub("", text).strip() == ""


def test_every_requirement_is_listed_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    assert extras.keys() == OF_EXTRA.keys()
    needed = {
        **extras,
        "service": [*extras["service"], *project["project"]["dependencies"], *project["build-system"]["requires"]],
    }
    for extra, requirements in needed.items():
        found = {name: version for listed in OF_EXTRA[extra] for name, version in pins(listed).items()}
        for text in requirements:
            requirement = Requirement(text)
            assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), text


def test_no_package_has_two_versions() -> None:
    """But in environments of their own; and PyTorch's CPU build is of the same version."""
    found: dict[str, set[str]] = {}
    for path in LISTS:
        if path.stem not in lock.ALONE:
            for name, version in pins(path.stem).items():
                found.setdefault(name, set()).add(version.partition("+")[0])
    assert [name for name, versions in found.items() if len(versions) > 1] == []


def test_what_is_installed_has_all_that_it_needs() -> None:
    """pip looks for nothing by itself, so that a list which lacks something would show here."""
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize("extras", ["cpu", "gpu"])
def test_make_takes_nothing_that_is_not_listed(extras: str) -> None:
    command = [
        "make",
        "--dry-run",
        "--always-make",
        f"EXTRAS={extras}",
        f".venv/.installed-{extras}-dev",
        f".venv/.installed-{extras}-browser",
        ".venv-vllm/.installed",
        ".venv-baselines/.installed",
    ]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = [line for line in plan.splitlines() if "pip install" in line]
    assert all("--no-deps" in line for line in installs)
    assert [
        line for line in installs if "--require-hashes" not in line and not line.endswith("--no-build-isolation -e .")
    ] == []
    used = set(re.findall(r"-r requirements/(\S+)\.txt", plan))
    assert used == {
        "service",
        extras,
        "offline",
        "loadtests",
        "tracing",
        "dev",
        "browser",
        "torch",
        "torch-cpu",
        "vllm",
        "baselines",
    }


def test_no_file_names_a_package_index() -> None:
    for path in [
        *LISTS,
        *(
            ROOT / name
            for name in (
                "requirements/lock.py",
                "requirements/audit.py",
                "Makefile",
                "Dockerfile",
                "pyproject.toml",
                ".ci/run",
            )
        ),
    ]:
        assert not re.search(r"index-url|--find-links|://[^ ]*simple", path.read_text()), path


@pytest.mark.parametrize(
    ("wheel", "ours"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("numpy-2.4.6-cp312-cp312-macosx_14_0_arm64.whl", True),
        ("tokenizers-0.23.3-cp310-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", True),
        ("tqdm-4.70.1-py3-none-any.whl", True),
        ("interegular-0.3.3-py37-none-any.whl", True),
        ("numpy-2.4.6-cp313-cp313-manylinux_2_27_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-win_amd64.whl", False),
        ("numpy-2.4.6-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-manylinux2014_ppc64le.whl", False),
    ],
)
def test_files_are_listed_for_our_pythons_and_platforms(wheel: str, ours: bool) -> None:
    assert lock.installable(wheel) is ours


VULNERABLE = {"name": "pillow", "version": "13.0.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["13.0.1"]}]}
UNMENDED = {"name": "peft", "version": "0.21.2", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "modiste", "skip_reason": "not found"}


def test_an_audit_fails_for_what_a_newer_version_mends() -> None:
    lines, bad = audit.judged([CLEAN, VULNERABLE, UNMENDED, SKIPPED])
    assert bad
    assert lines == [
        "audit: pillow 13.0.0: PYSEC-1, mended in 13.0.1",
        "audit: peft 0.21.2: PYSEC-2, not mended yet",
        "audit: 3 packages asked for, 2 known vulnerabilities",
        "audit: nothing is known of modiste",
    ]
    assert audit.judged([CLEAN, UNMENDED])[1] is False


def test_an_audit_tells_where_nothing_can_be_asked() -> None:
    assert audit.unknown([]) == "there is no answer"
    assert audit.unknown([SKIPPED]) == "not found"
    assert audit.unknown([SKIPPED, CLEAN]) is None
