"""The whole quick start, killed in the middle; and known answers at full size: what is planted in the shop is found.

One `make serve` for both, with the profile and the sizes that everybody gets. Slow: minutes, so run by .ci/run alone.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from house.processes import wait_until
from house.serving import Service, clean_environment, copy_of_the_project, is_up, started
from whole_trainings import auc

from service.lifeline import is_alive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

QUICK_START = ["make", "--no-print-directory", "serve", "SHOP_OPTIONS=--end 2026-11-01"]
PATIENCE = 1_300.0  # seconds; only ends a hanging test


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


def environment() -> dict[str, str]:
    return clean_environment({"MODISTE_PORT": 0})


@pytest.fixture(scope="module")
def service(project: Path) -> Iterator[Service]:
    """`make serve`, killed while it trains; and again, to the end."""
    with started(QUICK_START, project, environment()) as killed:
        wait_until(lambda: "training on" in killed.text, PATIENCE)
        time.sleep(3)  # somewhere inside a stage
        os.killpg(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
    assert not (project / "model_store" / "bundles" / "CURRENT").exists()
    with started(QUICK_START, project, environment()) as service:
        wait_until(lambda: is_up(service), PATIENCE)
        yield service


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


def test_it_serves_after_a_kill_in_the_middle_and_again_at_once(project: Path, service: Service) -> None:
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

    with started(QUICK_START, project, environment()) as again:
        wait_until(lambda: is_up(again), PATIENCE)
        assert "training on" not in again.text
        assert "loading articles" not in again.text
        history = again.get(f"/v1/customers/{customer.group(1)}")[1]["history"]
        assert bought in {purchase["article_id"] for purchase in history}
        os.killpg(again.process.pid, signal.SIGINT)
        again.process.wait(60)


@pytest.fixture(scope="module")
def tables(project: Path, service: Service) -> dict[str, Any]:
    """The evaluation that is part of the quick start."""
    found: dict[str, Any] = orjson.loads((project / "var" / "reports" / "shop" / "report.json").read_bytes())
    return found["tables"]


@pytest.mark.parametrize("table", ["all", "new"])
def test_planted_structure_is_found(tables: dict[str, Any], table: str) -> None:
    """Dynamic ahead of static ahead of popularity, 95% intervals apart, new articles included."""
    found = tables[table]
    assert auc(found, "dynamic")["low"] > auc(found, "static")["high"]
    assert auc(found, "static")["low"] > auc(found, "popularity")["high"]
    assert auc(found, "blended")["value"] > auc(found, "static")["high"]


def test_popularity_says_something_and_what_is_served_most(tables: dict[str, Any]) -> None:
    found = tables["all"]
    assert auc(found, "popularity")["low"] > 0.55
    assert auc(found, "blended")["value"] > auc(found, "dynamic")["value"]


def test_what_is_served_is_ahead_of_each_half_in_the_first_ten_ranks(tables: dict[str, Any]) -> None:
    """What is searched and clicked foretells the next order; style alone, and generations alone, know half of it."""
    models = tables["next_order"]["models"]
    for figure in ("recall_10", "ndcg_10", "mrr"):
        for half in ("dynamic", "generated"):
            assert models["blended"][figure]["low"] > models[half][figure]["high"], (figure, half)
    assert models["generated"]["ndcg_10"]["low"] > models["popularity"]["ndcg_10"]["high"]
