"""Service processes killed in the middle of load: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from faults.ledger import by_customer, check_states, expected_events, stored_events
from faults.traffic import Event, Told, calls_of, draw_events, in_rounds, write
from faults.valkeys import KillableValkey
from house.processes import wait_until
from house.serving import Service, serving
from service_running import catalogue
from style_reference import served

pytestmark = pytest.mark.faults

ARTICLES, WORKERS, KILLS = 12, 4, 20


def test_killed_workers_lose_nothing_and_apply_nothing_twice(tmp_path: Path) -> None:
    rng = random.Random(2)
    shop = served(tmp_path / "store", "one", 0, set(), ARTICLES)
    events = draw_events(50, 60, sorted(shop.dna), int(time.time()), rng)
    sent = by_customer(events)
    told = Told()
    with (
        KillableValkey(tmp_path / "redis") as valkey,
        serving(tmp_path, tmp_path / "store", redis_url=valkey.url, workers=WORKERS, llm_url="off") as service,
    ):
        assert service.call("/v1/articles", catalogue(ARTICLES), "PUT")[1]["rejected"] == []
        for killed, calls in enumerate(in_rounds(calls_of(events, 8, 0.3, rng), KILLS)):
            wait_until(lambda killed=killed: _all_up(service, killed))  # type: ignore[misc]
            asyncio.run(_write_and_kill(service, calls, told, rng))
        print(f"{KILLS} kills, {told.failed} calls cut off")
        assert told.failed > 0, "no call was cut off"
        stored = asyncio.run(stored_events(valkey.url, sent))
        assert stored == {name: expected_events(own) for name, own in sent.items()}
        asyncio.run(check_states(service.url, valkey.url, shop, sent))
        assert service.process.poll() is None


def _all_up(service: Service, killed: int) -> bool:
    """Whether all workers answer, after so many were killed."""
    workers = service.children_named("service.worker")
    return len(workers) == WORKERS and service.text.count(" answers, with ") == WORKERS + killed


async def _write_and_kill(
    service: Service, calls: Sequence[Sequence[Sequence[Event]]], told: Told, rng: random.Random
) -> None:
    writing = asyncio.create_task(write(service.url, calls, told))
    await asyncio.sleep(rng.uniform(0.02, 0.2))
    os.kill(rng.choice(sorted(service.children_named("service.worker"))), signal.SIGKILL)
    await writing
