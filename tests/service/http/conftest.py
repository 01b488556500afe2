"""Bundles and settings for tests of the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bundles import make_bundle
from redis_server import redis_url as redis_url  # noqa: PLC0414 - a fixture
from service_running import Shop, running

from service.settings import Settings


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of two sound bundles, test-1 (live) and test-2: same article ids, other articles and weights."""
    make_bundle(tmp_path / "store", version="test-1")
    make_bundle(tmp_path / "store", version="test-2", seed=1)
    return tmp_path / "store"


@pytest.fixture
def settings(store: Path, redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, store=store)


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    """A running shop of 60 articles, without customers."""
    async with running(settings) as shop:
        yield shop
