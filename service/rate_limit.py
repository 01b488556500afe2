"""How many requests a second an API key may make, over all workers: a bucket of tokens for each, kept in Redis.

    modiste:{rate:<first half of the key's SHA-256>}   HASH  tokens, and when they were counted (Unix seconds)

A bucket holds as many tokens as one second brings, so a caller may send those at once and then as they come.
"""

from __future__ import annotations

from service.errors import StoreUnavailable
from service.state.connection import Client, translated_errors
from service.state.redis_store import Script

_TAKE = Script("""
local limit, time = tonumber(ARGV[1]), redis.call('TIME')
local now = time[1] + time[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(limit, (tonumber(kept[1]) or limit) + math.max(0, now - (tonumber(kept[2]) or now)) * limit)
local taken = 0
if tokens >= 1 then tokens, taken = tokens - 1, 1 end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], 2)
return taken
""")


class RateLimit:
    """``limit`` requests a second for each key."""

    def __init__(self, client: Client, limit: int):
        self._client, self._limit = client, limit

    async def allows(self, digest: bytes) -> bool:
        """Count one request of a key; whether it may be answered. All may while Redis does not tell."""
        try:
            with translated_errors():
                key = f"modiste:{{rate:{digest.hex()[:32]}}}"
                return bool(await _TAKE.run(self._client, [key], [self._limit]))
        except StoreUnavailable:
            return True
