"""Redis killed in the middle of load, twenty times: what it acknowledged is there again, and nothing is there twice.

With ``appendfsync always`` that holds even for a machine that loses power. With ``everysec`` Redis answers before the
file is synchronised: a killed server has still handed everything to the kernel, unless a slow disk held it up, which it
allows for two seconds (``redis.conf``).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from faults.ledger import by_customer, check_states, expected_events, stored_events
from faults.traffic import Event, Told, calls_of, draw_events, in_rounds, write
from faults.valkeys import KillableValkey
from house.serving import serving
from service_running import catalogue
from style_reference import served

pytestmark = pytest.mark.faults

ARTICLES, KILLS = 12, 20
BOUND = {"always": 0.0, "everysec": 2.0}  # seconds before a kill whose acknowledgements may be lost


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_killed_redis_loses_nothing_that_counts(tmp_path: Path, fsync: str) -> None:
    rng = random.Random(3)
    shop = served(tmp_path / "store", "one", 0, set(), ARTICLES)
    events = draw_events(50, 40, sorted(shop.dna), int(time.time()), rng)
    sent = by_customer(events)
    told = Told()
    with (
        KillableValkey(tmp_path / "redis", appendfsync=fsync) as valkey,
        serving(tmp_path, tmp_path / "store", redis_url=valkey.url, workers=2, llm_url="off") as service,
    ):
        assert service.call("/v1/articles", catalogue(ARTICLES), "PUT")[1]["rejected"] == []
        rounds = in_rounds(calls_of(events, 8, 0.3, rng), KILLS)
        kills = [asyncio.run(_write_and_kill(service.url, valkey, calls, told, rng)) for calls in rounds]
        assert told.failed > 0, "no call was cut off"
        stored = asyncio.run(stored_events(valkey.url, sent))
        lost = {
            name: event
            for customer, own in sent.items()
            for name, event in expected_events(own).items()
            if name not in stored[customer]
        }
        ages = [
            min(kill - told.acknowledged[name] for kill in kills if kill >= told.acknowledged[name]) for name in lost
        ]
        print(f"{fsync}: {KILLS} kills, {told.failed} calls cut off, {len(lost)} acknowledged events lost, {ages}")
        assert all(age < BOUND[fsync] for age in ages), ages
        kept = {name: {each: own[each] for each in own.keys() - lost.keys()} for name, own in sent.items()}
        assert stored == {name: expected_events(own) for name, own in kept.items()}
        asyncio.run(check_states(service.url, valkey.url, shop, kept))


async def _write_and_kill(
    url: str, valkey: KillableValkey, calls: Sequence[Sequence[Sequence[Event]]], told: Told, rng: random.Random
) -> float:
    """When it was killed (``time.monotonic``). Nobody is asked again before it is back."""
    writing = asyncio.create_task(write(url, calls, told))
    await asyncio.sleep(rng.uniform(0.02, 0.2))
    killed = time.monotonic()
    valkey.kill()
    await asyncio.to_thread(valkey.start)
    await writing
    return killed
