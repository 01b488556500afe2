"""A running shop of the small bundle, without and with a generating half."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bundles import make_bundle
from redis_server import redis_url as redis_url  # noqa: PLC0414 - a fixture
from service_running import Shop, running

from service.settings import Settings


@pytest.fixture
def generating() -> bool:
    """Whether the bundle has a generating half; a file of tests may say otherwise."""
    return False


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, generating: bool) -> Settings:
    make_bundle(tmp_path / "store", version="test-1", generating=generating)
    return Settings(redis_url=redis_url, store=tmp_path / "store")


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    """A shop of 60 articles, without customers."""
    async with running(settings) as shop:
        yield shop
