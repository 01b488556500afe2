"""The memory of a service that runs on this machine, process by process."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

WORKER = "service.worker"
KINDS = {WORKER: "workers", "service.generation": "generators", "valkey-server": "redis"}


def launcher(port: int) -> psutil.Process | None:
    """The process that started what listens on ``port``; None where it is not to be seen from here."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            process = psutil.Process(connection.pid)
            return process.parent() if WORKER in process.cmdline() else process
    return None


def memory(process: psutil.Process) -> Mapping[str, int]:
    """Resident bytes of a process and all below it, by kind: launcher, workers, generators and an embedded Redis."""
    found: dict[str, int] = {}
    for each in [process, *process.children(recursive=True)]:
        try:
            words, resident = " ".join(each.cmdline()), each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        kind = next((kind for part, kind in KINDS.items() if part in words), "others")
        found[kind] = found.get(kind, 0) + resident
    return found
