"""A load test of a real service, by the command that everybody uses; and one that halts, which must show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from house.serving import ROOT, Service, clean_environment, serving
from service_running import catalogue

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef"
EASY = ["--p50=60000", "--p99=60000"]  # the machine may be busy


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    make_bundle(folder / "store")
    with serving(folder, folder / "store", llm_url="off") as service:
        assert service.call("/v1/articles", catalogue(), "PUT")[1]["rejected"] == []
        yield service


def loading(url: str, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [Path(sys.executable).with_name("locust"), "-f", "loadtests/locustfile.py", "--headless", "--host", url]
    ours = ["--think=0.1", "--customers=50", f"--out={out}", f"--html={out.with_suffix('.html')}", *options]
    environment = clean_environment({"MODISTE_API_KEYS": f"read:{KEY[::-1]},{KEY}"})
    return subprocess.Popen([*command, *ours], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def ended(loading: subprocess.Popen[str], out: Path) -> tuple[int, str, dict[str, Any]]:
    """Exit status, what was said, and the figures."""
    _, said = loading.communicate(timeout=120)
    return loading.returncode, said, json.loads(out.read_text())


def test_journeys_of_every_kind_succeed_and_are_told_of(service: Service, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    limits = [*EASY, "--latency-growth=1000", "--memory-growth=1000"]
    status, said, figures = ended(loading(service.url, out, "--rate=15", "--minutes=0.1", *limits), out)
    assert (status, figures["missed"], figures["failed_share"]) == (0, [], 0), said
    events = {f"/v1/events ({kind})" for kind in ("click", "search", "purchase", "return")}
    assert figures["calls"].keys() >= events | {"/v1/articles/{id}/similar", "/v1/customers/{id}/recommendations"}
    assert 45 < figures["journeys"] < 150
    assert all(part["memory_mib"].keys() >= {"workers", "redis"} for part in figures["parts"])
    assert "Everybody" in out.with_suffix(".html").read_text()


def test_waiting_counts_and_a_limit_that_does_not_hold_ends_with_1(service: Service, tmp_path: Path) -> None:
    """A worker halts for two of six seconds. Who asks one after the other would see one slow answer."""
    out = tmp_path / "figures.json"
    load = loading(service.url, out, "--rate=15", "--minutes=0.1", "--p50=60000", "--p99=1000", "--failures=1")
    (worker,) = service.children_named("service.worker")
    before = service.get("/v1/customers/loadtest-0")[1]
    while service.get("/v1/customers/loadtest-0")[1] == before:
        assert load.poll() is None
        time.sleep(0.05)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(2)
    os.kill(worker, signal.SIGCONT)
    status, said, figures = ended(load, out)
    assert status == 1
    assert [fault.partition(":")[0] for fault in figures["missed"]] == ["99th percentile of latency, ms"], said
    assert "99th percentile of latency, ms: " in said
    assert figures["latency_ms"]["p90"] > 500


def test_a_service_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    status, said, figures = ended(loading("http://127.0.0.1:9", out, "--minutes=0.1"), out)
    assert status == 1
    assert "http://127.0.0.1:9/v1/customers/loadtest/recommendations" in said
    assert figures["requests"] == 0
