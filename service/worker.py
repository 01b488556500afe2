"""One service process, started by ``service.launcher``: the application of ``service.http`` on an inherited socket."""

from __future__ import annotations

import socket
import sys

import uvicorn

from model_store.errors import ModisteError
from service.http.app import from_environment
from service.lifeline import GRACE, follow
from service.log_lines import configure_logging


def main() -> int:
    """Serve on the socket whose descriptor is the first argument; the second is the launcher's process."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    follow(parent)
    configure_logging()
    try:
        server = uvicorn.Server(
            uvicorn.Config(
                from_environment(),
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


if __name__ == "__main__":
    sys.exit(main())
