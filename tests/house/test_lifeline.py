"""A signal that asks to stop, wherever it comes, leaves no child that nobody ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle

from service.embedded import EmbeddedRedis
from service.generation.supervisor import Generators
from service.lifeline import STOPPING, is_alive, stopping_waits
from service.settings import Settings
from service.workers import Workers

Start = Callable[[Path, ExitStack], None]


@pytest.fixture(autouse=True)
def _signals_interrupt() -> Iterator[None]:
    """As in a launcher."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_waits_until_the_end_of_the_block(number: signal.Signals) -> None:
    passed = []

    def block() -> None:
        with stopping_waits():
            signal.raise_signal(number)
            passed.append("the signal")
        passed.append("the end")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert passed == ["the signal"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with stopping_waits():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_a_thread_that_gets_no_signals_starts_its_children_as_before() -> None:
    done = []

    def start() -> None:
        with stopping_waits():
            done.append(subprocess.run([sys.executable, "-c", ""], check=False).returncode)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert done == [0]


def start_worker(folder: Path, at_end: ExitStack) -> None:
    listener = at_end.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
    workers = Workers(1, listener, {**os.environ, "MODISTE_STORE": str(folder)})
    at_end.callback(workers.stop)
    workers.start()


def start_generator(folder: Path, at_end: ExitStack) -> None:
    make_bundle(folder, generating=True)
    generators = Generators(
        Settings(store=folder), os.environ, command=(sys.executable, "-c", "import time; time.sleep(600)")
    )
    at_end.callback(generators.stop)
    generators.watch()


def start_redis(folder: Path, at_end: ExitStack) -> None:
    server = EmbeddedRedis(folder)
    at_end.callback(server.stop)
    server.start()


@pytest.mark.parametrize("start", [start_worker, start_generator, start_redis])
def test_a_child_that_begins_while_the_signal_comes_is_ended_too(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = []

    class Interrupted(subprocess.Popen[Any]):
        """The signal comes once the child runs, and before whoever starts it can note that."""

        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options)
            children.append(self.pid)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with ExitStack() as at_end, pytest.raises(KeyboardInterrupt):
        start(tmp_path, at_end)
    assert len(children) == 1
    assert not is_alive(children[0])
