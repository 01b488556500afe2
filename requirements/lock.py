"""Writes the lists beside this file: every package that is installed, at one version, with the SHA-256 of its files.

    make lock               keep the versions that are listed, wherever pyproject.toml allows them
    make lock UPGRADE=1     take the newest that it allows

pip installs nothing whose hash is not listed (``--require-hashes``), and does not look for more (``--no-deps``): the
lists are complete. Listed are the wheels for the Pythons of pyproject.toml on Linux (glibc; x86-64 and ARM) and macOS.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

FOLDER = Path(__file__).resolve().parent
PYPROJECT = FOLDER.parent / "pyproject.toml"
UV = Path(sys.executable).with_name("uv")

LISTS: dict[str, tuple[Collection[str], Collection[str], str]] = {
    "service": (["service"], [], "What every service needs, and what builds the package; with cpu.txt or gpu.txt."),
    "cpu": (["service", "cpu"], ["service"], "The runtimes for CPUs, beside service.txt; instead of gpu.txt."),
    "gpu": (["service", "gpu"], ["service"], "The runtimes for NVIDIA GPUs, beside service.txt; instead of cpu.txt."),
    "offline": (["service", "offline"], ["service", "torch"], "What trains, beside service.txt and a torch."),
    "loadtests": (["service", "loadtests"], ["service"], "What loads, beside service.txt."),
    "browser": (["service", "browser"], ["service", "loadtests"], "What looks at pages, beside loadtests.txt."),
    "tracing": (["service", "tracing"], ["service"], "What traces, beside service.txt."),
    "dev": (["service", "offline", "tracing", "dev"], ["service", "offline", "torch", "tracing"], "What tests."),
}
"""Name of a list → extras of pyproject.toml, the lists whose packages it leaves out, and what it is for."""

ALONE = ("vllm", "baselines")
"""Lists of environments of their own, whose versions are set by hand."""
TORCH = re.compile(r"torch|(cuda|nvidia)-.*|triton")
TORCH_PURPOSE = "PyTorch as the index has it, on Linux with CUDA; torch-cpu.txt names a build without."
PYTHON = re.compile(r"py3|py3\d|py31[0-2]|cp31[12]")
PLATFORM = re.compile(r"any|(?:manylinux\w+|linux)_(?:x86_64|aarch64)|macosx_\w+")


def main() -> None:
    """Resolve, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pins = _resolve(folder, upgrade=options.upgrade)
        found = {name: _locked(folder, extras, pins) for name, (extras, *_) in LISTS.items()}
        found["torch"] = {package: text for package, text in found["offline"].items() if TORCH.fullmatch(package)}
        _write("torch", TORCH_PURPOSE, found["torch"])
        for name, (_, less, purpose) in LISTS.items():
            left_out = {package for other in less for package in found[other]}
            _write(name, purpose, {package: text for package, text in found[name].items() if package not in left_out})
        for name in ALONE:
            _write_alone(folder, name)


def listed(path: Path) -> list[str]:
    """``name==version`` of every package in a list."""
    return re.findall(r"^[A-Za-z0-9][\w.-]*==[^\s;\\]+", path.read_text(encoding="utf-8"), re.MULTILINE)


def entry(package: Mapping[str, Any]) -> str | None:
    """The lines of one package of a pylock.toml (PEP 751); None where it has no file that we could install."""
    files = [wheel for wheel in package.get("wheels", ()) if installable(wheel["url"].rpartition("/")[2])]
    if not files:
        return None
    marker = f" ; {package['marker']}" if "marker" in package else ""
    hashes = sorted(file["hashes"]["sha256"] for file in files)
    first = f"{package['name']}=={package['version']}{marker}"
    return " \\\n".join([first, *(f"    --hash=sha256:{digest}" for digest in hashes)])


def installable(name: str) -> bool:
    """Whether a wheel is for one of our Pythons and platforms."""
    tags = parse_wheel_filename(name)[3]
    return any(
        (tag.abi == "abi3" or PYTHON.fullmatch(tag.interpreter)) and PLATFORM.fullmatch(tag.platform) for tag in tags
    )


def _resolve(folder: Path, *, upgrade: bool) -> Path:
    """A file of one version for every package that any extra needs."""
    path = folder / "all.txt"
    before = [] if upgrade else [pin for name in [*LISTS, "torch"] for pin in _listed_so_far(name)]
    path.write_text("\n".join(before) + "\n")
    _uv(folder, "--all-extras", "--output-file", str(path))
    return path


def _listed_so_far(name: str) -> Iterable[str]:
    path = FOLDER / f"{name}.txt"
    return listed(path) if path.exists() else ()


def _locked(folder: Path, extras: Iterable[str], pins: Path) -> dict[str, str]:
    """Name → entry of every package that these extras need."""
    path = folder / "pylock.toml"
    path.unlink(missing_ok=True)
    chosen = [word for extra in extras for word in ("--extra", extra)]
    _uv(folder, *chosen, "--constraints", str(pins), "--format", "pylock.toml", "--output-file", str(path))
    return dict(_entries(path))


def _uv(folder: Path, *options: str) -> None:
    """Resolve what pyproject.toml names, and what builds the package."""
    build = folder / "build.in"
    build.write_text("\n".join(tomllib.loads(PYPROJECT.read_text())["build-system"]["requires"]) + "\n")
    _run(
        "--universal", "--python-version", "3.11", "--no-header", "--no-annotate", *options, str(PYPROJECT), str(build)
    )


def _run(*options: str) -> None:
    subprocess.run([UV, "pip", "compile", "--quiet", "--no-config", *options], check=True, stdout=subprocess.DEVNULL)


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    for package in tomllib.loads(path.read_text(encoding="utf-8"))["packages"]:
        text = entry(package)
        if text is not None:
            yield package["name"], text


def _write(name: str, purpose: str, entries: Mapping[str, str]) -> None:
    lines = [f"# {purpose} Written by 'make lock'.", *(entries[package] for package in sorted(entries))]
    (FOLDER / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_alone(folder: Path, name: str) -> None:
    """The list of an environment of its own names its packages itself; only their hashes are looked up."""
    path, lock, names = FOLDER / f"{name}.txt", folder / "pylock.toml", folder / f"{name}.in"
    heading = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    names.write_text("\n".join(listed(path)) + "\n")
    lock.unlink(missing_ok=True)
    _run("--no-deps", "--universal", "--python-version", "3.11", "--format", "pylock.toml", "-o", str(lock), str(names))
    lines = [*heading, *(text for _, text in sorted(_entries(lock)))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
