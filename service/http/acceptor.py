"""How connections are taken from a listening socket that workers share: each time by one that has fewest.

Left to itself, the worker that happens to wake first takes all that wait. A shop's back end opens its connections
together and keeps them, so that one worker would answer everything, and the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from service.fair_share import ABSENT, FairShare

log = logging.getLogger(__name__)

YIELDED = 0.001
"""Seconds for which a worker that is ahead leaves a connection to the others. It takes it where none of them has."""
AT_ONCE = 64
"""Connections taken before those that are open are looked after again."""
_PAUSE = 1.0  # seconds before it tries again, where the system has no file descriptor left


class Acceptor:
    """Takes connections from ``listener`` for the worker at ``place``, as an asyncio.Server would.

    ``protocol`` makes what speaks on a connection, given what is to be called when that is lost.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Callable[[], None]], asyncio.BaseProtocol],
        share: FairShare,
        place: int,
    ):
        self._listener, self._protocol = listener, protocol
        self._share, self._place = share, place
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._opening: set[asyncio.Task[Any]] = set()
        self._waiting: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        self._share.tell(self._place, 0)
        self._loop.add_reader(listener, self._take)

    def close(self) -> None:
        """Take no more connections, and close the listening socket: of this process, others may go on."""
        if self._closed:
            return
        self._closed = True
        if self._waiting is None:
            self._loop.remove_reader(self._listener)
        else:
            self._waiting.cancel()
        self._listener.close()
        self._share.tell(self._place, ABSENT)

    async def wait_closed(self) -> None:
        """Wait until each connection that was taken is open."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _take(self) -> None:
        """Take what waits, for as long as no other worker should."""
        for _ in range(AT_ONCE):
            if self._share.is_ahead(self._place):
                self._pause(YIELDED)
                return
            if not self._take_one():
                return

    def _take_one(self) -> bool:
        """Take one connection; False where none waits."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            log.error("no connection can be taken (%s)", error.strerror)
            self._pause(_PAUSE)
            return False
        self._recount(1)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(lambda: self._protocol(self._lost), connection)
        except OSError:  # whoever asked has gone
            connection.close()
            self._lost()

    def _lost(self) -> None:
        self._recount(-1)

    def _recount(self, more: int) -> None:
        self._count += more
        if not self._closed:
            self._share.tell(self._place, self._count)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._waiting = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        """Take one that nobody took, and look again from then on."""
        self._waiting = None
        self._loop.add_reader(self._listener, self._take)
        self._take_one()
