"""One service process, started by ``service.launcher``: the application of ``service.http`` on an inherited socket."""

from __future__ import annotations

import os
import socket
import sys

import uvicorn

from model_store.errors import ModisteError
from service.http.app import from_environment
from service.lifeline import GRACE, follow
from service.log_lines import configure_logging


def main() -> int:
    """Serve. Arguments: the launcher's process, and the descriptors of the socket and of the pipe to be ready on."""
    parent, descriptor, pipe = map(int, sys.argv[1:])
    follow(parent)
    configure_logging()
    try:
        server = uvicorn.Server(
            uvicorn.Config(
                from_environment(on_ready=lambda: _tell(pipe)),
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
    except ModisteError as error:
        print(f"modiste serve: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    server.run(sockets=[socket.socket(fileno=descriptor)])
    return 0 if server.started else 1


def _tell(pipe: int) -> None:
    """Let the launcher know that this worker answers."""
    os.write(pipe, b"!")
    os.close(pipe)


if __name__ == "__main__":
    sys.exit(main())
