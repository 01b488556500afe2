"""``modiste serve``: what it starts, watches and stops — an embedded Redis where none is named, workers, generators.

The launcher holds the listening socket, so that a worker that dies is replaced without a refused connection. Workers
share what connects to it fairly (``service.http.acceptor``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store.bundle import MANIFEST, current_version
from model_store.errors import InvalidConfig, ModisteError
from service import embedded, tracing, welcome
from service.generation.supervisor import Generators
from service.lifeline import GRACE, STOPPING, follow, stopping_waits
from service.settings import Settings, variable
from service.workers import Workers

log = logging.getLogger(__name__)

BACKLOG = 2_048
WATCH_INTERVAL = 0.2  # seconds between two looks at the children
REMINDER = 15.0  # seconds between two lines that say why the service is not ready
_CALM = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Set for all children, unless the environment says otherwise: each computes in one thread, so a heap for each thread,
which glibc would give it, only scatters what it holds."""


def check(settings: Settings, redis_folder: Path) -> None:
    """Raise InvalidConfig where serving would fail for a reason that can be seen at once."""
    listen(settings).close()
    tracing.check(settings.otlp_endpoint)
    folders = [] if current_version(settings.store) else [settings.store]
    for folder in folders if settings.redis_url else [*folders, redis_folder]:
        _check_writable(folder)
    if settings.redis_url:
        welcome.check_redis(settings.redis_url)
    else:
        embedded.refuse_if_in_use(redis_folder)


def listen(settings: Settings) -> socket.socket:
    """The socket that the workers share, bound and listening."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InvalidConfig(f"{variable('host')}: '{settings.host}' is no address ({error})") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidConfig(
            f"cannot listen on {settings.host}:{settings.port} ({(error.strerror or str(error)).lower()}); "
            f"stop what uses the port, or set {variable('port')} to another one"
        ) from None
    return listener


def _check_writable(folder: Path) -> None:
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InvalidConfig(f"{folder}: cannot be written ({(error.strerror or str(error)).lower()})") from None


@dataclass
class Launcher:
    """Starts everything that one service needs, and stops it again. ``run`` returns once asked to by a signal."""

    settings: Settings
    environment: Mapping[str, str]
    redis_folder: Path = embedded.FOLDER
    seed_data: Path | None = None

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP. Raises ModisteError where the service cannot start."""
        for number in STOPPING:
            signal.signal(number, signal.default_int_handler)
        try:
            with listen(self.settings) as listener:
                self._check_bundle()
                with self._redis() as (url, server):
                    self._seed(url)
                    self._serve(listener, url, server)
        except KeyboardInterrupt:
            welcome.say("stopped")

    def _check_bundle(self) -> None:
        store = self.settings.store
        version = current_version(store)
        if version is None:
            raise InvalidConfig(f"{store} has no live bundle; make one with 'modiste train' and 'modiste export'")
        if not (store / version / MANIFEST).is_file():
            raise InvalidConfig(f"{store}: CURRENT names '{version}', which is not there; export it again")

    @contextlib.contextmanager
    def _redis(self) -> Iterator[tuple[str, embedded.EmbeddedRedis | None]]:
        if self.settings.redis_url is not None:
            yield self.settings.redis_url, None
            return
        server = embedded.EmbeddedRedis(self.redis_folder)
        welcome.say(f"starting the embedded Redis over {self.redis_folder}")
        with server:
            try:
                yield server.url, server
            finally:
                _ignore_signals()

    def _seed(self, url: str) -> None:
        if self.seed_data is None or not welcome.wants_seed(url):
            return
        welcome.say(f"loading articles and history from {self.seed_data}")
        with welcome.seeding(url):
            arguments = [sys.executable, "-m", "modiste", "backfill", "--data", str(self.seed_data)]
            if _run_to_its_end(arguments, self._environment(url)) != 0:
                raise ModisteError(f"{self.seed_data} could not be loaded (see above)")

    def _serve(self, listener: socket.socket, url: str, server: embedded.EmbeddedRedis | None) -> None:
        port = listener.getsockname()[1]
        with tempfile.TemporaryDirectory(prefix="modiste-metrics-") as metrics:
            if self.settings.workers > 1:  # any worker then answers /metrics for all
                self.environment = {"PROMETHEUS_MULTIPROC_DIR": metrics, **self.environment}
            self._run_workers(listener, url, server, port)

    def _run_workers(self, listener: socket.socket, url: str, server: embedded.EmbeddedRedis | None, port: int) -> None:
        count, environment = self.settings.workers, self._environment(url)
        parts = _Parts(Workers(count, listener, environment), Generators(self.settings, environment), server)
        try:
            welcome.say(f"starting {count} worker{'s' if count > 1 else ''}")
            parts.workers.start()
            keys = self.environment.get(variable("api_keys"), "")
            address = welcome.Address(self.settings.host, port, keys, self.settings.lookbook)
            told = time.monotonic()
            while not parts.workers.ready:
                parts.watch()
                if time.monotonic() - told > REMINDER:
                    welcome.say(f"still not ready: {address.why_not_ready()}")
                    told = time.monotonic()
            address.announce(url)
            while True:
                parts.watch()
        finally:
            _ignore_signals()
            parts.generators.ask_to_stop()
            parts.workers.stop()
            parts.generators.stop()

    def _environment(self, url: str) -> dict[str, str]:
        return {**_CALM, **self.environment, variable("redis_url"): url}


@dataclass(frozen=True)
class _Parts:
    """What runs beside the launcher. ``server``: None where Redis is somebody else's."""

    workers: Workers
    generators: Generators
    server: embedded.EmbeddedRedis | None

    def watch(self) -> None:
        """Replace whatever has died, then wait a moment."""
        if self.server is not None:
            self.server.restart_if_dead()
        self.workers.replace_dead()
        self.generators.watch()
        time.sleep(WATCH_INTERVAL)


def _run_to_its_end(arguments: list[str], environment: Mapping[str, str]) -> int:
    """The status of a child. Ctrl-C is passed on once, and the child given time to end what it has begun."""
    launcher, child = os.getpid(), None
    try:
        with stopping_waits():
            child = subprocess.Popen(
                arguments,
                env=environment,
                process_group=0,
                preexec_fn=lambda: follow(launcher, signal.SIGINT),  # noqa: PLW1509 - no thread runs in the launcher
            )
        return child.wait()
    except KeyboardInterrupt:
        _ignore_signals()
        if child is not None:
            _interrupt(child)
        raise


def _interrupt(child: subprocess.Popen[bytes]) -> None:
    """End a child, the hard way where it misses the signal: one that comes while Python starts can be lost on it."""
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
            return
    child.wait()


def _ignore_signals() -> None:
    """While stopping, a second Ctrl-C must not leave a child behind."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
