"""Eight writers at four service processes, all about the same fifty customers: the outcome is that of one at a time."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from faults.ledger import by_customer, check_states, expected_events, stored_events
from faults.traffic import CALM, Told, calls_of, draw_events, write
from faults.valkeys import KillableValkey
from house.serving import serving
from service_running import catalogue
from style_reference import served

pytestmark = pytest.mark.faults

ARTICLES = 12


def test_many_writers_leave_what_one_would(tmp_path: Path) -> None:
    rng = random.Random(1)
    shop = served(tmp_path / "store", "one", 0, set(), ARTICLES)
    events = draw_events(50, 40, sorted(shop.dna), int(time.time()), rng)
    sent = by_customer(events)
    told = Told()
    with (
        KillableValkey(tmp_path / "redis") as valkey,
        serving(tmp_path, tmp_path / "store", redis_url=valkey.url, workers=4, **CALM) as service,
    ):
        assert service.call("/v1/articles", catalogue(ARTICLES), "PUT")[1]["rejected"] == []
        asyncio.run(write(service.url, calls_of(events, 8, 0.3, rng), told))
        assert told.failed == 0, told.reasons
        assert len(told.workers) == 4, "not all workers were written to"
        assert told.duplicates > len(events) // 5
        assert told.accepted == len(events)
        stored = asyncio.run(stored_events(valkey.url, sent))
        assert stored == {name: expected_events(own) for name, own in sent.items()}
        asyncio.run(check_states(service.url, valkey.url, shop, sent))
