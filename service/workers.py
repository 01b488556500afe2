"""The service processes: started together, replaced when one dies, and ready once each has said so itself.

Workers are fresh processes, never forks: FAISS and ONNX Runtime do not survive a fork. They share one listening socket,
so what asks for readiness over HTTP cannot tell who answered: each worker tells it over a pipe of its own.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from prometheus_client.multiprocess import mark_process_dead

from model_store.errors import ModisteError
from service.fair_share import ABSENT, FairShare
from service.lifeline import GRACE, stopping_waits

log = logging.getLogger(__name__)

MOST_STILLBORN = 3
"""Workers in a row that end before they were ready, after which no other is started."""


class Workers:
    """``count`` workers on ``listener``, in an environment of variables."""

    def __init__(self, count: int, listener: socket.socket, environment: Mapping[str, str]):
        self._listener, self._environment = listener, environment
        self._share = FairShare.among(count)
        self._workers: list[_Worker] = []
        self._stillborn = 0
        self._count = count

    def start(self) -> None:
        """Start all of them. They are ready some time later.

        The first one takes connections at once, and says until then that it is not; the others when they can answer.
        """
        while len(self._workers) < self._count:
            with stopping_waits():
                self._workers.append(self._new(len(self._workers), others=bool(self._workers)))

    def _new(self, place: int, others: bool) -> _Worker:
        return _Worker(self._listener, self._share, place, self._environment, others)

    @property
    def ready(self) -> bool:
        """Whether each of them answers from a bundle."""
        return all(worker.is_ready() for worker in self._workers)

    def replace_dead(self) -> None:
        """Start another for each that has ended. Raises ModisteError where none lives long enough to be ready."""
        for place, worker in enumerate(self._workers):
            status = worker.process.poll()
            if status is None:
                continue
            self._stillborn = 0 if worker.is_ready() else self._stillborn + 1
            if self._stillborn >= MOST_STILLBORN:
                raise ModisteError(f"a worker cannot start (status {status}); see above")
            log.error("worker %d ended with status %d; starting another", worker.process.pid, status)
            self._forget_gauges(worker.process.pid)
            self._share.tell(place, ABSENT)
            others = any(each.is_ready() and each.process.poll() is None for each in self._workers)
            with stopping_waits():
                worker.close()
                self._workers[place] = self._new(place, others)

    def _forget_gauges(self, process: int) -> None:
        """Let those who live no longer show how one was that has ended."""
        folder = self._environment.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is not None:
            mark_process_dead(process, folder)  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """End all of them: what they are asked already, they may still answer."""
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + GRACE + 5
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.close()
        self._share.close()


class _Worker:
    """One process, and the end of the pipe at which it says that it is ready.

    ``others`` take connections already: then it takes none before it can answer.
    """

    def __init__(
        self, listener: socket.socket, share: FairShare, place: int, environment: Mapping[str, str], others: bool
    ):
        self._said_so = False
        self._pipe, worker_end = os.pipe()
        os.set_blocking(self._pipe, False)
        descriptors = (listener.fileno(), worker_end, share.descriptor)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.worker", *map(str, (os.getpid(), *descriptors, place, int(others)))],
                env=environment,
                pass_fds=descriptors,
                process_group=0,  # Ctrl-C is for the launcher, which stops the workers before Redis
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(worker_end)

    def is_ready(self) -> bool:
        """Whether it was ready once, also where it has ended since."""
        if not self._said_so:
            try:
                self._said_so = os.read(self._pipe, 1) != b""
            except BlockingIOError:
                return False
        return self._said_so

    def close(self) -> None:
        os.close(self._pipe)
