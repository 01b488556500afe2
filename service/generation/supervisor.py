"""The generator processes of one service: started, watched, replaced and stopped beside its workers.

They are never a reason not to serve: one that cannot start is tried again, less and less often.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store.bundle import read_manifest, versions
from model_store.errors import InvalidBundle
from service.generation.rest import Rest
from service.lifeline import GRACE, stopping_waits
from service.settings import Settings

log = logging.getLogger(__name__)

LOOK = 2.0  # seconds between two looks for a bundle that holds a language model
SOUND = 10.0  # seconds; a process that lives shorter counts as unable to start
LONGEST_PAUSE = 60.0  # seconds between two attempts to start one
_MODULE = "service.generation.worker"


@dataclass
class _Process:
    """One place for a process, taken or to be taken again."""

    rest: Rest
    running: subprocess.Popen[bytes] | None = None
    started: float = 0.0


class Generators:
    """As many generator processes as the settings say, from the moment on that the store has a bundle for them.

    ``environment``: theirs, with the Redis that they work for. ``command`` runs one, the launcher's process added.
    ``monotonic``: seconds.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        command: tuple[str, ...] = (sys.executable, "-m", _MODULE),
        monotonic: Callable[[], float] = time.monotonic,
    ):
        wanted = 0 if settings.llm_url == "off" else settings.generators
        self._environment, self._command = dict(environment), command
        self._monotonic = monotonic
        self._processes = [_Process(Rest(monotonic, 1.0, LONGEST_PAUSE)) for _ in range(wanted)]
        self._bundles = _Bundles(settings.store)
        self._look_again = 0.0
        self._needed = False

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [each.running.pid for each in self._processes if each.running is not None]

    def watch(self) -> None:
        """Start what is missing, as far as it is needed and time to."""
        if not self._processes or not self._are_needed():
            return
        for each in self._processes:
            self._bury(each)
            if each.running is None and not each.rest.left:
                self._start(each)

    def ask_to_stop(self) -> None:
        """Begin to stop all; ``stop`` then waits for it."""
        for each in self._processes:
            if each.running is not None:
                each.running.terminate()

    def stop(self) -> None:
        """Stop all; what they have in hand ends, or waits for the next start."""
        self.ask_to_stop()
        deadline = self._monotonic() + GRACE + 5
        for each in self._processes:
            if each.running is None:
                continue
            try:
                each.running.wait(max(0.0, deadline - self._monotonic()))
            except subprocess.TimeoutExpired:
                each.running.kill()
                each.running.wait()
            each.running = None

    def _are_needed(self) -> bool:
        if not self._needed and self._monotonic() >= self._look_again:
            self._look_again = self._monotonic() + LOOK
            self._needed = self._bundles.can_generate()
        return self._needed

    def _bury(self, each: _Process) -> None:
        """Note whether a process lives, and how long it did."""
        if each.running is None:
            return
        if self._monotonic() - each.started >= SOUND:
            each.rest.succeeded()
        status = each.running.poll()
        if status is None:
            return
        log.error("generator %d ended with status %d; another will be started", each.running.pid, status)
        each.running = None
        if self._monotonic() - each.started < SOUND:
            each.rest.failed()

    def _start(self, each: _Process) -> None:
        each.started = self._monotonic()
        try:
            with stopping_waits():
                each.running = subprocess.Popen(
                    [*self._command, str(os.getpid())],
                    env=self._environment,
                    process_group=0,  # Ctrl-C is for the launcher, which stops them before Redis
                )
        except OSError as error:
            log.error("a generator cannot be started: %s", error)
            each.rest.failed()


class _Bundles:
    """Finds out whether any bundle of a store holds a language model; reads no manifest twice."""

    def __init__(self, store: Path):
        self._store = store
        self._without: set[str] = set()

    def can_generate(self) -> bool:
        for version in versions(self._store):
            if version in self._without:
                continue
            try:
                if read_manifest(self._store / version).generation is not None:
                    return True
            except InvalidBundle as error:
                log.debug("bundle '%s' is not looked at further: %s", version, error)
            self._without.add(version)
        return False
