"""service.metrics: what generators counted in the store, on the page of a process that counted none of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.generation.memory_queue import MemoryGenerationQueue
from service.generation.queue import Outcome
from service.generation.records import GenerationRequest
from service.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Value by name and labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.page().decode())
        for sample in family.samples
        if sample.name.startswith("modiste_generation")
    }


async def worked_off() -> MemoryGenerationQueue:
    """Three of four ended, one of them badly, and one dropped."""
    queue = MemoryGenerationQueue(most=4, debounce=0)
    await queue.schedule([GenerationRequest(f"customer {number}") for number in range(5)])
    for outcome, seconds in ((Outcome.WRITTEN, 0.03), (Outcome.WRITTEN, 3.0), (Outcome.UNPARSEABLE, 100.0)):
        taken = await queue.take(0)
        assert taken is not None
        await queue.finish(taken, outcome, seconds)
    return queue


def test_a_worker_that_was_killed_as_it_began_takes_no_figures_away(tmp_path: Path) -> None:
    """In a process of its own, since the library looks for the folder once."""
    for kind in ("counter", "gauge_liveall", "histogram"):
        (tmp_path / f"{kind}_1.db").touch()
    shows = "from service.metrics import Metrics; it = Metrics(); it.show_index(20, 15); print(it.page().decode())"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    page = subprocess.run([sys.executable, "-c", shows], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r'^modiste_index_articles{pid="\d+",stock="in"} 15.0$', page.stdout, re.MULTILINE), page.stdout


@pytest.mark.parametrize("several_processes", [False, True])
async def test_what_generators_did_is_shown(
    several_processes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if several_processes:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics = Metrics()
    assert samples(metrics) == {}
    metrics.show_generations(await (await worked_off()).figures())
    shown = samples(metrics)
    assert shown["modiste_generation_queue", "waiting"] == 1
    assert shown["modiste_generation_queue", "in_hand"] == 0
    assert {key[1]: value for key, value in shown.items() if key[0] == "modiste_generations_total" and value} == {
        "written": 2, "unparseable": 1, "dropped": 1
    }  # fmt: skip
    assert shown["modiste_generation_seconds_count", "writing"] == 3
    assert shown["modiste_generation_seconds_sum", "writing"] == pytest.approx(103.03)
    buckets = {key[1]: value for key, value in shown.items() if key[0].endswith("_bucket") and key[2] == "writing"}
    assert (buckets["0.02"], buckets["0.05"], buckets["2.0"], buckets["5.0"], buckets["60.0"], buckets["+Inf"]) == (
        0, 1, 1, 2, 2, 3
    )  # fmt: skip
    assert shown["modiste_generation_seconds_count", "waiting"] == 3
