"""How all workers come to answer from another bundle at the same moment: each loads it before any of them switches.

The worker that was asked announces what is to come, loads it, and invites the others to; when all that serve have
settled, it writes the choice (``service.choice``), and each of them switches to what lies ready. An announcement that
is not renewed, because its worker died, ends by itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from service.state.connection import Client, translated_errors
from service.state.redis_store import Script

ANNOUNCED = 10.0
"""Seconds for which an announcement lasts unless it is renewed."""
PRESENT = 3.0
"""Seconds after which a worker that was not seen counts as gone."""

PREFIX = "modiste:{rollout}:"
COMING, WORKERS, SETTLED = PREFIX + "coming", PREFIX + "workers", PREFIX + "settled"


class Coming(NamedTuple):
    """A bundle that all workers shall load. ``token`` names this announcement of it."""

    token: str
    version: str


class Rollout(Protocol):
    """What is to come, and who is ready for it. All calls raise StoreUnavailable."""

    async def look(self, worker: str, settled: str = "") -> Coming | None:
        """What to load, if anything, seen by a ``worker`` that serves.

        ``settled``: the token of the announcement whose bundle it has loaded, or cannot load.
        """
        ...

    async def announce(self, version: str) -> str | None:
        """The token of a new announcement, which invites nobody yet; None where another one lasts."""
        ...

    async def renew(self, token: str) -> bool:
        """Let the announcement last; False where it does not any more."""
        ...

    async def invite(self, token: str) -> None:
        """Let all workers load what was announced."""
        ...

    async def awaited(self) -> frozenset[str]:
        """Workers that serve and have not settled for what is announced."""
        ...

    async def withdraw(self, token: str) -> None:
        """End an announcement, whether or not it came true."""
        ...


@dataclass
class MemoryRollout:
    """A rollout among workers of one process. ``clock``: seconds."""

    clock: Callable[[], float] = time.monotonic
    _token: str = ""
    _version: str = ""
    _invited: bool = False
    _ends: float = 0.0
    _seen: dict[str, float] = field(default_factory=dict)
    _settled: set[str] = field(default_factory=set)

    async def look(self, worker: str, settled: str = "") -> Coming | None:
        self._seen[worker] = self.clock()
        if not self._lasts():
            return None
        if settled == self._token:
            self._settled.add(worker)
        return Coming(self._token, self._version) if self._invited else None

    async def announce(self, version: str) -> str | None:
        if self._lasts():
            return None
        self._token, self._version, self._invited = secrets.token_hex(8), version, False
        self._settled.clear()
        self._ends = self.clock() + ANNOUNCED
        return self._token

    async def renew(self, token: str) -> bool:
        if not self._lasts() or token != self._token:
            return False
        self._ends = self.clock() + ANNOUNCED
        return True

    async def invite(self, token: str) -> None:
        if token == self._token:
            self._invited = True

    async def awaited(self) -> frozenset[str]:
        present = {worker for worker, seen in self._seen.items() if self.clock() - seen <= PRESENT}
        return frozenset(present - self._settled)

    async def withdraw(self, token: str) -> None:
        if token == self._token:
            self._token = ""

    def _lasts(self) -> bool:
        return bool(self._token) and self.clock() < self._ends


_LOOK = Script("""
local coming, workers, settled, worker, token, present = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('ZADD', workers, now, worker)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - tonumber(present))
local found = redis.call('HMGET', coming, 'token', 'version', 'invited')
if not found[1] then return {} end
if found[1] == token then redis.call('SADD', settled, worker) end
if not found[3] then return {} end
return {found[1], found[2]}
""")

_ANNOUNCE = Script("""
local coming, settled, token, version, lasts = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', coming) == 1 then return 0 end
redis.call('DEL', settled)
redis.call('HSET', coming, 'token', token, 'version', version)
redis.call('PEXPIRE', coming, lasts)
return 1
""")

_RENEW = Script("""
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

_INVITE = Script("""
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('HSET', KEYS[1], 'invited', '1') end
""")

_AWAITED = Script("""
local time = redis.call('TIME')
local since = tonumber(time[1]) + tonumber(time[2]) / 1000000 - tonumber(ARGV[1])
local answer = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], since, '+inf')) do
  if redis.call('SISMEMBER', KEYS[2], worker) == 0 then answer[#answer + 1] = worker end
end
return answer
""")

_WITHDRAW = Script("""
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
""")


class RedisRollout:
    """A rollout among all workers of one Redis.

    modiste:{rollout}:coming     HASH  token, version, and "invited" once all shall load it; expires
                     :workers    ZSET  worker → when it was seen last, seconds
                     :settled    SET   workers that have loaded what is to come, or cannot
    """

    def __init__(self, client: Client):
        self._client = client

    async def look(self, worker: str, settled: str = "") -> Coming | None:
        found = await self._run(_LOOK, (COMING, WORKERS, SETTLED), worker, settled, PRESENT)
        return Coming(*(part.decode() for part in found)) if found else None

    async def announce(self, version: str) -> str | None:
        token = secrets.token_hex(8)
        done = await self._run(_ANNOUNCE, (COMING, SETTLED), token, version, round(1_000 * ANNOUNCED))
        return token if done else None

    async def renew(self, token: str) -> bool:
        return bool(await self._run(_RENEW, (COMING,), token, round(1_000 * ANNOUNCED)))

    async def invite(self, token: str) -> None:
        await self._run(_INVITE, (COMING,), token)

    async def awaited(self) -> frozenset[str]:
        return frozenset(worker.decode() for worker in await self._run(_AWAITED, (WORKERS, SETTLED), PRESENT))

    async def withdraw(self, token: str) -> None:
        await self._run(_WITHDRAW, (COMING, SETTLED), token)

    async def _run(self, script: Script, keys: tuple[str, ...], *arguments: Any) -> Any:
        with translated_errors():
            return await script.run(self._client, keys, arguments)
