"""uvicorn's server, that takes connections when it can answer them, and lets nobody down when it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.fair_share import FairShare
from service.http.acceptor import Acceptor
from service.lifeline import GRACE

LINGER = 0.5
"""Seconds in which those who are connected when the server is asked to end may still ask; it then ends connections
that are idle. A request that is on its way meanwhile would otherwise find its connection closed."""

LOOKS = 5
"""Times within LINGER at which it looks for what has come. A process that stood still for longer than that finds its
time over before it sees what has been asked meanwhile: it must look again before it ends anything."""

UNASKED = 3.0
"""Seconds for which a new connection is not called idle: whoever opens one is about to ask."""


class Server(uvicorn.Server):
    """Serves one application until SIGTERM or SIGINT.

    ``share``, ``place``: what it may take of the connections to a socket that others listen on, too.
    """

    def __init__(self, app: FastAPI, share: FairShare | None = None, place: int = 0):
        self._share, self._place = share or FairShare.among(1), place
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,  # nobody asks for the caller's address
                timeout_graceful_shutdown=GRACE,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections from ``sockets``."""
        await super().startup([])
        acceptors = [Acceptor(each, self._protocol, self._share, self._place) for each in sockets or []]
        self.servers = cast("list[asyncio.Server]", acceptors)

    def _protocol(self, on_lost: Callable[[], None]) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state, on_lost=on_lost)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no further connections, answer what is asked on those that there are, and tell each that it ends."""
        for server in self.servers:
            server.close()
        if self.server_state.connections:
            self.server_state.default_headers.append((b"connection", b"close"))
            for _ in range(LOOKS):
                await asyncio.sleep(LINGER / LOOKS)
            connections = cast("set[Protocol]", self.server_state.connections)
            while any(connection.is_about_to_ask() for connection in connections):  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(LINGER / LOOKS)
        await super().shutdown(sockets)


class Protocol(HttpToolsProtocol):
    """uvicorn's, whose answers leave in one piece.

    It writes the head and the body of an answer one after the other, and uvloop hands each to the kernel at once, which
    passes it on to the other side and wakes that: twice as much as it need be. ``on_lost``: called at its end.
    """

    def __init__(self, *arguments: Any, on_lost: Callable[[], None]):
        super().__init__(*arguments)
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._made = self.loop.time()
        super().connection_made(cast("asyncio.Transport", InPairs(transport, self.loop)))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()

    def is_about_to_ask(self) -> bool:
        """Whether the connection is new, and nothing was asked on it so far."""
        return self.cycle is None and self.loop.time() < self._made + UNASKED


class InPairs:
    """A ``transport`` for which what is written waits for what is written next, but no longer than this turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        self._transport, self._loop = transport, loop
        self._waiting: bytes | None = None

    def write(self, data: bytes) -> None:
        """Have ``data`` sent: the first of two a little later, the second with it."""
        if self._waiting is None:
            self._waiting = data
            self._loop.call_soon(self._send)
        else:
            first, self._waiting = self._waiting, None
            self._transport.writelines((first, data))

    def close(self) -> None:
        """Send what is left, then close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        data, self._waiting = self._waiting, None
        if data is not None and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
