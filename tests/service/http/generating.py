"""A shop in whose answers what a language model wrote takes part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import DAY, make_bundle, sample_articles
from service_running import NOW, Shop

from service.generation.records import StoredGeneration, view_mark
from service.generation.redis_queue import RedisGenerationQueue
from service.state.connection import connect

RECORDS = {raw.article.article_id: raw.article for raw in sample_articles()}
WEIGHT = 0.7  # of what was generated, in the small bundle's blend


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two bundles with generating halves, test-1 (live) and test-2."""
    make_bundle(tmp_path / "store", version="test-1", generating=True)
    make_bundle(tmp_path / "store", version="test-2", seed=1, generating=True)
    return tmp_path / "store"


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RedisGenerationQueue]:
    """The queue that the shop's customers wait in, due at once."""
    client = connect(redis_url)
    yield RedisGenerationQueue(client, debounce=0)
    await client.aclose()


async def write(
    shop: Shop, customer_id: str, article_id: str, title: str, query: str | None = None, **other: Any
) -> StoredGeneration:
    """What a generator would store for a customer whose state is kept, at this moment."""
    customers = shop.services.customers
    mark = view_mark(await customers.read(customer_id), query)
    bundle = shop.services.live.style.bundle_version
    written = replace(StoredGeneration(bundle, mark, 3, article_id, title, float(shop.clock()), 0.02), **other)
    assert await customers.put_generation(customer_id, written, searching=query is not None)
    return written


async def come(shop: Shop, customer_id: str = "c1") -> None:
    """A customer with a purchase and a click."""
    await shop.buy(customer_id, "a003", timestamp=NOW - 9 * DAY)
    await shop.tell({"type": "click", "customer_id": customer_id, "article_id": "a011"})


def everything(*but: str) -> set[str]:
    return RECORDS.keys() - set(but)
