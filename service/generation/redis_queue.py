"""Requests for generations in Redis, under keys that share a hash tag, so that Redis Cluster keeps them together.

    modiste:{generation}:requests  STREAM  one entry per request: customer, query?, tries before, since (ms)
                        :queued    HASH    who waits → the entry that they wait by, and the query that they wait for
                        :counts    HASH    what became of requests, and how long they took

The stream has one consumer group, and that has one consumer: who has a request in hand makes no difference to anything,
only for how long. So nothing is left of processes that come and go. Every call is one Lua script, and so atomic; times
are the server's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

from service.generation.queue import MOST_TRIES, Figures, Outcome, Taken, figures_of, increments
from service.generation.records import GenerationRequest
from service.state.connection import Client, translated_errors
from service.state.redis_store import Script

PREFIX = "modiste:{generation}:"
REQUESTS, QUEUED, COUNTS = PREFIX + "requests", PREFIX + "queued", PREFIX + "counts"
_KEYS = (REQUESTS, QUEUED, COUNTS)
GROUP = "generators"
SCHEDULED_AT_ONCE = 256
"""Requests that one script is given, so that none keeps other clients of Redis waiting for long."""
LONGEST_WAIT = 0.2
"""Seconds that one call waits for a request: less than any timeout of the client."""

# A query is told by its presence, since it might be empty. Who waits is named by the customer's id, and by the same
# behind a NUL, which no id can hold, for a search.
_COMMON = (
    f"local group, consumer = '{GROUP}', 'generator'\n"
    + r"""
local stream, queued, counts = KEYS[1], KEYS[2], KEYS[3]

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function moment(id) return tonumber(string.match(id, '^%d+')) end

local function waiter(customer, query)
  if query then return '\0' .. customer end
  return customer
end

local function waits_by(who)
  local value = redis.call('HGET', queued, who)
  if not value then return nil end
  local id, query = string.match(value, '^([%d-]+) ?(.*)$')
  return id, query
end

local function read(entry)
  local fields = {id = entry[1]}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return fields
end

local function count(outcome, by) redis.call('HINCRBY', counts, outcome, by or 1) end

local function remove(id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end

local function place(customer, query, tries, since)
  local fields = {'customer', customer, 'tries', tries, 'since', since}
  if query then fields[7], fields[8] = 'query', query end
  local id = redis.call('XADD', stream, '*', unpack(fields))
  redis.call('HSET', queued, waiter(customer, query), query and id .. ' ' .. query or id)
end

local function drop_oldest(most)
  local over, start = redis.call('HLEN', queued) - most, '-'
  while over > 0 do
    local entries = redis.call('XRANGE', stream, start, '+', 'COUNT', over + 16)
    if #entries == 0 then return end
    for _, entry in ipairs(entries) do
      local fields = read(entry)
      local who = waiter(fields.customer, fields.query)
      if over > 0 and waits_by(who) == fields.id then  -- others are in hand
        redis.call('XDEL', stream, fields.id)
        redis.call('HDEL', queued, who)
        count('dropped')
        over = over - 1
      end
      start = '(' .. fields.id
    end
  end
end
"""
)

_SCHEDULE = Script(
    _COMMON
    + """
local since = string.format('%.0f', now())
for i = 2, #ARGV, 3 do
  local customer, query = ARGV[i], ARGV[i + 1] == '1' and ARGV[i + 2] or nil
  local id, earlier = waits_by(waiter(customer, query))
  if id and query and earlier ~= query then
    redis.call('XDEL', stream, id)
    id = nil
  end
  if not id then place(customer, query, 0, since) end
end
drop_oldest(tonumber(ARGV[1]))
"""
)

_FORGET = Script(
    _COMMON
    + """
for _, who in ipairs({waiter(ARGV[1]), waiter(ARGV[1], '')}) do
  local id = waits_by(who)
  if id then
    redis.call('XDEL', stream, id)
    redis.call('HDEL', queued, who)
  end
end
"""
)

# Answers {entry, customer, tries, waited, query?} with times in ms, or {ms until somebody is due}, or {the last entry's
# id} where nobody waits.
_TAKE = Script(
    _COMMON
    + """
local debounce, abandoned_after, most_tries = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

local function in_hand(fields, tries)
  local answer = {fields.id, fields.customer, tries, math.floor(now() - fields.since)}
  answer[5] = fields.query
  return answer
end

while true do
  local pending = redis.pcall('XPENDING', stream, group, 'IDLE', abandoned_after, '-', '+', 1)
  if pending.err then  -- the first one ever, or the first since the data were lost
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    break
  end
  if #pending == 0 then break end
  local id, deliveries = pending[1][1], pending[1][4]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  local fields = entry and read(entry)
  if not fields or waits_by(waiter(fields.customer, fields.query)) then
    remove(id)
  elseif fields.tries + deliveries >= most_tries then
    remove(id)
    count('given_up')
  else
    redis.call('XCLAIM', stream, group, consumer, 0, id)
    return in_hand(fields, fields.tries + deliveries + 1)
  end
end

local delivered = '0-0'
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  for i = 1, #info, 2 do
    if info[i] == 'last-delivered-id' then delivered = info[i + 1] end
  end
end
local entry = redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', 1)[1]
if not entry then
  local last = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #last, 2 do
    if last[i] == 'last-generated-id' then return {last[i + 1]} end
  end
end
local early = debounce - (now() - moment(entry[1]))
if early > 0 then return {math.ceil(math.min(early, debounce))} end
redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', stream, '>')
local fields = read(entry)
redis.call('HDEL', queued, waiter(fields.customer, fields.query))
return in_hand(fields, fields.tries + 1)
"""
)

_FINISH = Script(
    _COMMON
    + """
if redis.call('XACK', stream, group, ARGV[1]) == 0 then return end
redis.call('XDEL', stream, ARGV[1])
for i = 2, #ARGV, 2 do redis.call('HINCRBYFLOAT', counts, ARGV[i], ARGV[i + 1]) end
"""
)

_GIVE_BACK = Script(
    _COMMON
    + """
local id, tries, give_up = ARGV[2], ARGV[3], ARGV[4] == '1'
local entry = redis.call('XRANGE', stream, id, id)[1]
if redis.call('XACK', stream, group, id) == 0 or not entry then return end
redis.call('XDEL', stream, id)
local fields = read(entry)
if waits_by(waiter(fields.customer, fields.query)) then return end
if give_up then
  count('given_up')
else
  place(fields.customer, fields.query, tries, fields.since)
  count('retried')
  drop_oldest(tonumber(ARGV[1]))
end
"""
)

_FIGURES = Script(
    _COMMON
    + """
local pending = redis.pcall('XPENDING', stream, group)
return {redis.call('HLEN', queued), pending.err and 0 or pending[1], redis.call('HGETALL', counts)}
"""
)


class RedisGenerationQueue:
    """A ``GenerationQueue`` in Redis (6.2 or newer), Valkey, or a cluster of either. Times in seconds."""

    def __init__(self, client: Client, *, most: int = 10_000, debounce: float = 0.3, abandoned_after: float = 25.0):
        self._client, self._most = client, most
        self._debounce, self._abandoned_after = round(debounce * 1000), round(abandoned_after * 1000)

    async def schedule(self, requests: Sequence[GenerationRequest]) -> None:
        for start in range(0, len(requests), SCHEDULED_AT_ONCE):
            some = requests[start : start + SCHEDULED_AT_ONCE]
            await self._run(_SCHEDULE, self._most, *(part for request in some for part in _arguments(request)))

    async def forget(self, customer_id: str) -> None:
        await self._run(_FORGET, customer_id)

    async def take(self, wait: float) -> Taken | None:
        deadline = time.monotonic() + wait
        while True:
            answer = await self._run(_TAKE, self._debounce, self._abandoned_after, MOST_TRIES)
            if len(answer) > 1:
                return _taken(answer)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            await self._something_to_come(answer[0], min(left, LONGEST_WAIT))

    async def finish(self, taken: Taken, outcome: Outcome, seconds: float | None = None) -> None:
        added = increments(outcome, taken.waited, seconds)
        await self._run(_FINISH, taken.entry, *(part for pair in added.items() for part in pair))

    async def give_back(self, taken: Taken, *, failed: bool = True) -> None:
        give_up = failed and taken.tries >= MOST_TRIES
        await self._run(_GIVE_BACK, self._most, taken.entry, taken.tries - (not failed), int(give_up))

    async def figures(self) -> Figures:
        waiting, in_hand, counts = await self._run(_FIGURES)
        fields: Iterator[bytes] = iter(counts)
        return figures_of(waiting, in_hand, {name.decode(): float(next(fields)) for name in fields})

    async def _something_to_come(self, told: bytes | int, seconds: float) -> None:
        """Wait until the first who waits is due (``told`` in how many ms), or for one to come after the last entry."""
        if isinstance(told, int):
            await asyncio.sleep(min(told / 1000, seconds))
            return
        commands: Any = self._client
        with translated_errors():
            await commands.xread({REQUESTS: told}, count=1, block=max(1, round(seconds * 1000)))

    async def _run(self, script: Script, *arguments: Any) -> Any:
        with translated_errors():
            return await script.run(self._client, _KEYS, arguments)


def _arguments(request: GenerationRequest) -> tuple[str, int, str]:
    return request.customer_id, int(request.query is not None), request.query or ""


def _taken(answer: Sequence[Any]) -> Taken:
    entry, customer_id, tries, waited, *query = answer
    request = GenerationRequest(customer_id.decode(), query[0].decode() if query else None)
    return Taken(entry.decode(), request, tries, waited / 1000)
