"""Bundles switched and workers replaced while customers ask: each request is answered, and by one bundle alone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from bundles import CUTOFF, make_bundle
from faults.traffic import CALM
from faults.valkeys import KillableValkey
from house.processes import wait_until
from house.serving import serving
from service_running import catalogue

pytestmark = pytest.mark.faults

ASKING = 8
CONVERGED = 2.0  # seconds in which all workers follow
SWITCHES, RESTARTS, WORKERS = 12, 6, 3
ASKED = {"strategy": "style", "at": CUTOFF, "n": 30}
BOUGHT = [
    {"type": "purchase", "customer_id": "Ada", "article_id": f"a{index:03}", "timestamp": CUTOFF - (9 - index) * 86_400}
    for index in range(6)
]


@dataclass
class Heard:
    """What customers were answered. ``failed``: errors of the connection, or answers other than 200.

    ``asked``: when each answer was asked for (``time.monotonic``).
    """

    answers: list[dict[str, Any]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@asynccontextmanager
async def asking(url: str, heard: Heard) -> AsyncIterator[None]:
    """Customers that ask for as long as the block lasts, each on a connection of its own each time."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(base_url=url, timeout=20, limits=limits) as http, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(http, heard)) for _ in range(ASKING)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _ask(http: httpx2.AsyncClient, heard: Heard) -> None:
    while True:
        asked = time.monotonic()
        try:
            answer = await http.get("/v1/customers/Ada/recommendations", params=ASKED)
        except httpx2.TransportError as error:
            heard.failed.append(repr(error))
        else:
            if answer.status_code == 200:
                heard.answers.append(answer.json())
                heard.asked.append(asked)
            else:
                heard.failed.append(answer.text)


def test_bundles_are_switched_without_a_dropped_or_mixed_answer(tmp_path: Path) -> None:
    for number in (1, 2):
        make_bundle(tmp_path / "store", version=f"test-{number}", seed=number)
    heard = Heard()
    with (
        KillableValkey(tmp_path / "redis") as valkey,
        serving(tmp_path, tmp_path / "store", redis_url=valkey.url, workers=WORKERS, **CALM) as service,
    ):
        assert service.call("/v1/articles", catalogue(), "PUT")[1]["rejected"] == []
        assert service.call("/v1/events", BOUGHT)[1]["accepted"] == len(BOUGHT)
        expected = {}
        for version in ("test-2", "test-1"):
            _activate(service.url, version)
            expected[version] = _all_answer(service.url, version)
        assert expected["test-1"]["articles"] != expected["test-2"]["articles"]

        async def switch() -> list[float]:
            seconds = []
            async with asking(service.url, heard):
                for number in range(SWITCHES):
                    version = f"test-{2 - number % 2}"
                    await asyncio.to_thread(_activate, service.url, version)
                    switched = time.monotonic()
                    await asyncio.to_thread(_all_answer, service.url, version)
                    seconds.append(_last_of_another(heard, version, switched))
            return seconds

        seconds = asyncio.run(switch())
        print(f"{len(heard.answers)} answers; the last worker followed after {np.round(seconds, 2)} s")
    assert heard.failed == []
    other = [answer for answer in heard.answers if answer != expected[answer["bundle"]]]
    assert not other, (len(other), other[0], expected[other[0]["bundle"]])
    assert {answer["bundle"] for answer in heard.answers} == {"test-1", "test-2"}
    assert np.median(seconds) < CONVERGED


def _last_of_another(heard: Heard, version: str, switched: float) -> float:
    """Seconds after the switch at which somebody asked who was answered by another bundle."""
    return max(
        asked - switched
        for asked, answer in [*zip(heard.asked, heard.answers, strict=True), (switched, {"bundle": ""})]
        if asked >= switched and answer["bundle"] != version
    )


def _activate(url: str, version: str) -> None:
    assert httpx2.post(f"{url}/v1/bundles/{version}/activate", timeout=30).status_code == 200


def _all_answer(url: str, version: str) -> dict[str, Any]:
    """The answer, once it comes from ``version`` many times in a row, on connections of their own."""
    answer: dict[str, Any] = {}

    def same() -> bool:
        nonlocal answer
        answers = [
            httpx2.get(f"{url}/v1/customers/Ada/recommendations", params=ASKED, timeout=20).json()
            for _ in range(4 * WORKERS)
        ]
        answer = answers[-1]
        return all(each["bundle"] == version for each in answers)

    wait_until(same)
    return answer


def test_workers_are_replaced_one_by_one_without_a_dropped_request(tmp_path: Path) -> None:
    make_bundle(tmp_path / "store")
    heard = Heard()
    with (
        KillableValkey(tmp_path / "redis") as valkey,
        serving(tmp_path, tmp_path / "store", redis_url=valkey.url, workers=WORKERS, **CALM) as service,
    ):
        assert service.call("/v1/articles", catalogue(), "PUT")[1]["rejected"] == []
        assert service.call("/v1/events", BOUGHT)[1]["accepted"] == len(BOUGHT)

        def replace_one(number: int) -> None:
            before = service.children_named("service.worker")
            os.kill(min(before), signal.SIGTERM)
            wait_until(lambda: service.text.count(" answers, with ") == WORKERS + number + 1)

        async def replace() -> None:
            async with asking(service.url, heard):
                for number in range(RESTARTS):
                    await asyncio.to_thread(replace_one, number)

        asyncio.run(replace())
        print(f"{len(heard.answers)} answers while {RESTARTS} workers were replaced")
    assert heard.failed == []
    assert len({str(answer) for answer in heard.answers}) == 1
