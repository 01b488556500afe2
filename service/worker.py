"""One service process, started by ``service.launcher``: the application of ``service.http`` on an inherited socket."""

from __future__ import annotations

import os
import socket
import sys

from model_store.errors import ModisteError
from service.fair_share import FairShare
from service.http.app import from_environment
from service.http.server import Server
from service.lifeline import follow
from service.log_lines import configure_logging, tell_failure


def main() -> int:
    """Serve, with six arguments.

    The launcher's process; the descriptors of the socket, of the pipe to be ready on and of all workers' counts of
    connections; its own place among these; and 1 where others answer already, so that no connection is taken before
    this one can answer, too, else 0.
    """
    parent, descriptor, pipe, counts, place, others = map(int, sys.argv[1:])
    follow(parent)
    configure_logging()
    try:
        app = from_environment(on_ready=lambda: _tell(pipe), waits=lambda: bool(others) and not server.should_exit)
    except ModisteError as error:
        tell_failure("modiste serve", error)
        return 1
    server = Server(app, FairShare(counts), place)
    server.run(sockets=[socket.socket(fileno=descriptor)])
    return 0 if server.started else 1


def _tell(pipe: int) -> None:
    """Let the launcher know that this worker answers."""
    os.write(pipe, b"!")
    os.close(pipe)


if __name__ == "__main__":
    sys.exit(main())
