"""uvicorn's server, that takes connections when it can answer them, and lets nobody down when it ends."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from fastapi import FastAPI

from service.lifeline import GRACE

LINGER = 0.5
"""Seconds in which those who are connected when the server is asked to end may still ask; it then ends connections
that are idle. A request that is on its way meanwhile would otherwise find its connection closed."""


class Server(uvicorn.Server):
    """Serves one application until SIGTERM or SIGINT."""

    def __init__(self, app: FastAPI):
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,  # nobody asks for the caller's address
                timeout_graceful_shutdown=GRACE,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no further connections, answer what is asked on those that there are, and tell each that it ends."""
        for server in self.servers:
            server.close()
        if self.server_state.connections:
            self.server_state.default_headers.append((b"connection", b"close"))
            await asyncio.sleep(LINGER)
        await super().shutdown(sockets)
