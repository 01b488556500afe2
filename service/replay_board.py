"""Whose turn it is to replay states behind answers' backs, and how far that is (``service.replays``)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from service.state.connection import Client, translated_errors
from service.state.redis_store import Script

PREFIX = "modiste:{replay}:"
TURN, PROGRESS = PREFIX + "turn", PREFIX + "progress"
TURN_LASTS = 10.0
"""Seconds after which a worker that tells nothing has lost its turn."""


@dataclass(frozen=True)
class Progress:
    """How far the replay for ``bundle`` (``style.bundle_stamp``) is.

    Of ``total`` customers with a log, ``done`` have a state of that bundle, of which ``replayed`` had none before.
    """

    bundle: str
    total: int = 0
    done: int = 0
    replayed: int = 0
    ended: bool = False

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.rpartition("@")[0]


_TAKE = Script("""
local turn, progress, token, bundle, lasts = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', progress, 'bundle', 'ended')
if known[1] == bundle and known[2] == '1' then return 'ended' end
if not redis.call('SET', turn, token, 'NX', 'PX', lasts) then return 'taken' end
return 'yours'
""")

_TELL = Script("""
local turn, progress, token, lasts = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('GET', turn) ~= token then return 0 end
redis.call('HSET', progress, unpack(ARGV, 3))
redis.call('PEXPIRE', turn, lasts)
return 1
""")

_GIVE_BACK = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")


class ReplayBoard:
    """Whose turn it is among all workers of one Redis, and how far the replay is. All calls raise StoreUnavailable.

    modiste:{replay}:turn      STRING  the token of the worker whose turn it is; expires
                    :progress  HASH    the fields of ``Progress``
    """

    def __init__(self, client: Client):
        self._client, self._token = client, secrets.token_hex(8)

    async def take(self, bundle: str) -> bool | None:
        """Whether it is this worker's turn from now on; None where all is done for ``bundle``."""
        answer = await self._run(_TAKE, (TURN, PROGRESS), self._token, bundle, round(1_000 * TURN_LASTS))
        return None if answer == b"ended" else bool(answer == b"yours")

    async def tell(self, progress: Progress) -> bool:
        """Note how far it is, and keep the turn; False, and nothing noted, where that was lost."""
        fields = (part for name, value in vars(progress).items() for part in (name, _text(value)))
        return bool(await self._run(_TELL, (TURN, PROGRESS), self._token, round(1_000 * TURN_LASTS), *fields))

    async def give_back(self) -> None:
        """Let another worker take the turn."""
        await self._run(_GIVE_BACK, (TURN,), self._token)

    async def read(self) -> Progress | None:
        """How far it is; None where nothing was ever replayed."""
        call: Any = self._client.execute_command
        with translated_errors():
            found = await call("HMGET", PROGRESS, *Progress.__dataclass_fields__)
        if None in found:
            return None
        bundle, *counts = (value.decode() for value in found)
        total, done, replayed, ended = map(int, counts)
        return Progress(bundle, total, done, replayed, bool(ended))

    async def _run(self, script: Script, keys: tuple[str, ...], *arguments: Any) -> Any:
        with translated_errors():
            return await script.run(self._client, keys, arguments)


def _text(value: str | int) -> str:
    return value if isinstance(value, str) else str(int(value))
