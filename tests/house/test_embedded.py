"""The embedded Redis: data outlive it, it outlives nobody, and one folder serves one Modiste."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from house.processes import wait_until

from model_store.errors import InvalidConfig
from service.embedded import MAX_SOCKET_PATH, EmbeddedRedis, live_url, refuse_if_in_use
from service.lifeline import is_alive

OWNER = """
import sys, time
from pathlib import Path
from service.embedded import EmbeddedRedis
with EmbeddedRedis(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=5)


@contextmanager
def owner_of(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process with a server over ``folder``, and the server's process id; killed at the end."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_finds_its_data_again_after_stopping(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server, client(server.url) as connection:
        connection.set("customer", "Ada")
    assert server.pid is None
    with EmbeddedRedis(tmp_path / "redis") as server, client(server.url) as connection:
        assert connection.get("customer") == b"Ada"


def test_loses_nothing_acknowledged_when_the_server_is_killed(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with client(server.url) as connection:
            for number in range(200):
                connection.rpush("events", number)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(server.restart_if_dead)
        with client(server.url) as connection:
            assert connection.llen("events") == 200
        assert not server.restart_if_dead()


def test_a_deep_folder_gets_a_short_socket_path(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    with EmbeddedRedis(folder) as server, client(server.url) as connection:
        assert connection.ping()
        socket = Path(server.url.removeprefix("unix://"))
        assert len(str(socket)) <= MAX_SOCKET_PATH
        assert live_url(folder) == server.url
    assert not socket.parent.exists()


def test_the_server_ends_with_a_killed_parent_and_the_next_start_finds_the_data(tmp_path: Path) -> None:
    with owner_of(tmp_path) as (_, server_process):
        url = live_url(tmp_path)
        assert url is not None
        with client(url) as connection:
            connection.set("kept", "yes")
    with EmbeddedRedis(tmp_path) as server, client(server.url) as connection:
        assert connection.get("kept") == b"yes"
    wait_until(lambda: not is_alive(server_process))


def test_a_folder_in_use_is_refused_and_its_owner_not_disturbed(tmp_path: Path) -> None:
    with owner_of(tmp_path) as (owner, server_process):
        with pytest.raises(InvalidConfig, match=rf"in use by another Modiste \(process {owner.pid}\)"):
            EmbeddedRedis(tmp_path).start()
        with pytest.raises(InvalidConfig, match="in use"):
            refuse_if_in_use(tmp_path)
        assert is_alive(server_process)


def test_a_free_folder_is_not_refused(tmp_path: Path) -> None:
    refuse_if_in_use(tmp_path / "new")
    with EmbeddedRedis(tmp_path):
        pass
    refuse_if_in_use(tmp_path)
    assert live_url(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match="cannot be written"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").touch()  # the server wants a folder there
    with pytest.raises(InvalidConfig, match=r"does not start: .*appendonlydir"):
        EmbeddedRedis(tmp_path).start()
    refuse_if_in_use(tmp_path)
