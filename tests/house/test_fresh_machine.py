"""What takes minutes, run by .ci/run: an environment with nothing but the service, and the whole quick start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
from bundles import make_bundle, sample_articles
from house.processes import wait_until
from house.serving import ROOT, Service, clean_environment, is_up, started

from service.lifeline import is_alive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

SMALL_SHOP = "--articles 300 --customers 400 --days 150"
PATIENCE = 900.0  # seconds; only ends a hanging test


def tracked_files() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def copy_of_the_project(folder: Path) -> Path:
    """All tracked files as they are now, with their times, so that make sees what it would see here."""
    for name in tracked_files():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def test_the_service_runs_where_only_its_own_extras_are_installed(tmp_path: Path) -> None:
    project, slim = copy_of_the_project(tmp_path / "project"), tmp_path / "slim"
    venv.create(slim, with_pip=True)
    python = slim / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile", "--no-deps"]
    lists = [word for name in ("service", "cpu") for word in ("-r", project / "requirements" / f"{name}.txt")]
    subprocess.run([*install, "--require-hashes", *lists], check=True)
    subprocess.run([*install, "--no-build-isolation", project], check=True)
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0
    make_bundle(tmp_path / "store")
    environment = clean_environment({"MODISTE_PORT": 0, "MODISTE_STORE": tmp_path / "store"})
    with started([str(slim / "bin" / "modiste"), "serve"], tmp_path, environment) as service:
        wait_until(lambda: is_up(service), 120)
        articles = [
            one.article.model_dump(mode="json", exclude={"image"}, exclude_none=True) for one in sample_articles(9)
        ]
        assert service.call("/v1/articles", articles, "PUT")[1]["accepted"] == 9
        stock = [{"article_id": article["article_id"], "quantity": 1} for article in articles]
        assert service.call("/v1/stock", stock, "PATCH")[1]["accepted"] == 9
        assert len(service.get("/v1/customers/Ada/recommendations")[1]["articles"]) == 9
        assert service.stop() == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project over this environment, so that only the quick start itself is run."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("project"))
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "modiste"):
        script = binaries / name
        module = "" if name == "python" else " -m modiste"
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}"{module} "$@"\n')
        script.chmod(0o755)
    (folder / ".venv" / ".installed-cpu").touch()
    return folder


def quick_start(project: Path) -> list[str]:
    return ["make", "--no-print-directory", "serve", f"SHOP_OPTIONS={SMALL_SHOP}"]


def environment() -> dict[str, str]:
    return clean_environment({"MODISTE_PORT": 0})


def group_of(service: Service) -> set[int]:
    """All processes of the session that the service was started in."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(words[3]) == service.process.pid:
            found.add(int(entry.name))
    return found


def test_the_quick_start_with_a_kill_in_the_middle(project: Path) -> None:
    """`make serve`, killed while it trains; again, to the end; and again, at once."""
    with started(quick_start(project), project, environment()) as service:
        wait_until(lambda: "training on" in service.text, PATIENCE)
        time.sleep(3)  # somewhere inside a stage
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
    assert not (project / "model_store" / "bundles" / "CURRENT").exists()

    with started(quick_start(project), project, environment()) as service:
        wait_until(lambda: is_up(service), PATIENCE)
        get, _ = service.curl_lines
        customer = re.search(r"/customers/([^/]+)/", get[1])
        assert customer is not None
        before = service.get(f"/v1/customers/{customer.group(1)}/recommendations")[1]["articles"]
        bought = before[0]["article_id"]
        event = {"type": "purchase", "customer_id": customer.group(1), "article_id": bought}
        assert service.call("/v1/events", event)[1]["accepted"] == 1
        after = service.get(f"/v1/customers/{customer.group(1)}/recommendations")[1]["articles"]
        assert bought not in {article["article_id"] for article in after}
        everyone = group_of(service) - {service.process.pid}
        os.killpg(service.process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
        service.process.wait(60)
        wait_until(lambda: not any(is_alive(process) for process in everyone))
    assert "Traceback" not in service.text

    with started(quick_start(project), project, environment()) as service:
        wait_until(lambda: is_up(service), PATIENCE)
        assert "training on" not in service.text
        assert "loading articles" not in service.text
        history = service.get(f"/v1/customers/{customer.group(1)}")[1]["history"]
        assert bought in {purchase["article_id"] for purchase in history}
        os.killpg(service.process.pid, signal.SIGINT)
        service.process.wait(60)
