"""Workers killed while states are replayed for a new bundle: others end it, and all states are those of a replay."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from faults.ledger import by_customer, check_states
from faults.traffic import draw_events
from faults.valkeys import KillableValkey
from house.processes import wait_until
from house.serving import Service, serving
from service_running import catalogue
from style_reference import served

from service.state.connection import connect
from service.state.redis_store import RedisStore

pytestmark = pytest.mark.faults

ARTICLES, CUSTOMERS, WORKERS = 12, 200, 2


def test_killed_workers_leave_no_state_of_the_bundle_before(tmp_path: Path) -> None:
    served(tmp_path / "store", "one", 1, set(), ARTICLES)
    shop = served(tmp_path / "store", "two", 0, set(), ARTICLES)  # of the articles that are sold
    events = draw_events(CUSTOMERS, 5, sorted(shop.dna), int(time.time()), random.Random(4))
    with (
        KillableValkey(tmp_path / "redis") as valkey,
        serving(
            tmp_path,
            tmp_path / "store",
            redis_url=valkey.url,
            workers=WORKERS,
            llm_url="off",
            replay_share=0.02,  # so that they can be killed in the middle
        ) as service,
    ):
        assert service.call("/v1/articles", catalogue(ARTICLES), "PUT")[1]["rejected"] == []
        time.sleep(1)  # the other worker hears of them
        assert service.call("/v1/events", events)[1]["accepted"] == len(events)
        httpx2.post(f"{service.url}/v1/bundles/two/activate", timeout=60).raise_for_status()
        wait_until(lambda: 0 < _replay(service).get("done", 0) < CUSTOMERS)
        for worker in service.children_named("service.worker"):
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: service.text.count(" answers, with ") == 3 * WORKERS, 60)
        assert not _replay(service)["ended"]
        wait_until(lambda: _replay(service)["ended"], 60)
        logs = {name: own for name, own in by_customer(events).items() if _in_log(own)}
        assert _replay(service) == {"total": len(logs), "done": len(logs), "ended": True}
        assert asyncio.run(_bundles(valkey.url, logs)) == {shop.model.bundle_version}
        asyncio.run(check_states(service.url, valkey.url, shop, logs))


def _replay(service: Service) -> dict[str, Any]:
    """What GET /v1/bundles says of it, empty where that is nothing."""
    try:
        answer: dict[str, Any] = httpx2.get(f"{service.url}/v1/bundles", timeout=20).json()
    except httpx2.TransportError:
        return {}
    return (answer["live"] == "two" and answer["replay"]) or {}


def _in_log(events: dict[str, Any]) -> bool:
    return any(event["type"] in {"purchase", "return"} for event in events.values())


async def _bundles(redis_url: str, customers: Any) -> set[str | None]:
    """Which bundles the stored states are of."""
    client = connect(redis_url, timeout=10)
    try:
        views = await RedisStore(client).read_many(list(customers))
        return {None if view.state is None else view.state.bundle for view in views}
    finally:
        await client.aclose()
