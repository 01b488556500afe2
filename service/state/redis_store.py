"""Customers kept in Redis, under keys that share a hash tag, so that Redis Cluster keeps them together.

    modiste:{<customer id, percent-encoded>}:log         HASH  event_id → packed purchase or return; "" → id of the log
                                            :state       STRING  packed state
                                            :session     STRING  rows of the session, JSON
                                            :generation  STRING  what the language model wrote last, JSON
                                            :searching   STRING  the same for a query of the last hour, JSON

Each writing call is one Lua script, and so atomic.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import orjson
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from model_store.records import Event
from service.gathered import Gathered
from service.generation.records import Footing, StoredGeneration, pack_generation, unpack_generation
from service.generation.store import SEARCHING_KEPT
from service.state.codec import (
    pack_log_entry,
    pack_state,
    session_row,
    unpack_log_entry,
)
from service.state.connection import Client, translated_errors
from service.state.customer import (
    NO_LOG,
    SESSION_LENGTH,
    Addition,
    Appended,
    CustomerLog,
    CustomerState,
    CustomerView,
    Packed,
    Revision,
)
from service.state.store import new_log_id
from service.state.views import unpack_view

Given = TypeVar("Given")
Answer = TypeVar("Answer")

PAGE_SIZE = 512
"""Keys that one step through all of them looks at, and customers of one page."""
PIPELINE_SIZE = 256
"""Customers that one pipeline reads or writes."""
CLUSTER_CALLS = 16
"""Calls to a cluster that run at once on behalf of one, where a single server would get a pipeline."""

# The log's id is the value of the empty field, which no event can have. Ids are compared as text, and only by equality:
# 63 bits do not fit Lua's numbers, and Redis compares text by the server's locale.
APPEND = """
local log, state, session = KEYS[1], KEYS[2], KEYS[3]
local expected_log, expected_entries, new_log = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local packed_state, log_events, keep = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local log_id, entries = redis.call('HGET', log, ''), 0
if log_id then entries = redis.call('HLEN', log) - 1 end
local answer, added = {0, 0, 0}, 0
for i = 1, log_events do
  local new = redis.call('HSETNX', log, ARGV[5 + 2 * i], ARGV[6 + 2 * i])
  answer[3 + i] = new
  added = added + new
end
local fits = (log_id or '0') == expected_log and entries == expected_entries and added == log_events
if added > 0 then
  if not log_id then
    log_id = new_log
    redis.call('HSET', log, '', log_id)
  end
  if fits and packed_state ~= '' then
    redis.call('SET', state, packed_state)
    answer[3] = 1
  else
    redis.call('DEL', state)
  end
end
answer[1], answer[2] = log_id or '0', entries + added

local first = 7 + 2 * log_events
if #ARGV >= first then
  local text = redis.call('GET', session)
  local rows = text and cjson.decode(text) or {}
  local known = {}
  for _, row in ipairs(rows) do known[row[2]] = true end
  local before = #rows
  for i = first, #ARGV do
    local row = cjson.decode(ARGV[i])
    local new = not known[row[2]]
    answer[#answer + 1] = new and 1 or 0
    if new then
      known[row[2]] = true
      rows[#rows + 1] = row
    end
  end
  if #rows > before then
    table.sort(rows, function(a, b)
      if a[1] ~= b[1] then return a[1] < b[1] end
      local x, y = a[2], b[2]
      for i = 1, math.min(#x, #y) do
        local p, q = string.byte(x, i), string.byte(y, i)
        if p ~= q then return p < q end
      end
      return #x < #y
    end)
    local latest = {}
    for i = math.max(1, #rows - keep + 1), #rows do latest[#latest + 1] = rows[i] end
    redis.call('SET', session, cjson.encode(latest))
  end
end
return answer
"""

PUT_STATE = """
local log_id = redis.call('HGET', KEYS[1], '')
if not log_id or log_id ~= ARGV[1] or redis.call('HLEN', KEYS[1]) - 1 ~= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""

# What cannot be decoded is replaced: another release wrote it.
PUT_GENERATION = """
local log, session, kept = KEYS[1], KEYS[2], KEYS[3]
local packed, reflects, seconds = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if redis.call('EXISTS', log, session) == 0 then return 0 end
if #ARGV > 3 then
  local log_id, event_id = ARGV[4], ARGV[5]
  if log_id ~= '0' and redis.call('HGET', log, '') ~= log_id then return 0 end
  if event_id ~= '' then
    local text, found = redis.call('GET', session), false
    for _, row in ipairs(text and cjson.decode(text) or {}) do found = found or row[2] == event_id end
    if not found then return 0 end
  end
end
local before = redis.call('GET', kept)
if before then
  local ok, later = pcall(function()
    local fields = cjson.decode(before)
    return fields.format == 1 and fields.written_at - fields.seconds > reflects
  end)
  if ok and later then return 0 end
end
if seconds == '' then redis.call('SET', kept, packed) else redis.call('SET', kept, packed, 'EX', seconds) end
return 1
"""


class Script:
    """A Lua script, called by its hash, and sent whole where the server does not know it (yet, or after a restart)."""

    def __init__(self, text: str):
        self.text = text.strip()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Client, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The script's answer. All ``keys`` lie in one slot."""
        call: Any = client.execute_command
        try:
            return await call("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await call("EVAL", self.text, len(keys), *keys, *arguments)

    async def run_many(self, client: Redis, calls: Iterable[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """The answers to many (keys, arguments), in their order, by one round trip; not to a cluster."""
        async with client.pipeline(transaction=False) as pipeline:
            call: Any = pipeline.execute_command
            call("SCRIPT LOAD", self.text)
            for keys, arguments in calls:
                call("EVALSHA", self.sha, len(keys), *keys, *arguments)
            return (await pipeline.execute())[1:]


_APPEND, _PUT_STATE, _PUT_GENERATION = Script(APPEND), Script(PUT_STATE), Script(PUT_GENERATION)


class CustomerKeys(NamedTuple):
    """All that is kept of one customer."""

    log: str
    state: str
    session: str
    generation: str
    searching: str


def customer_keys(customer_id: str) -> CustomerKeys:
    """Keys of a customer. Whatever the id holds, it cannot leave its braces."""
    tag = "modiste:{" + quote(customer_id, safe="") + "}:"
    return CustomerKeys(tag + "log", tag + "state", tag + "session", tag + "generation", tag + "searching")


def _customer_of(log: bytes) -> str:
    """Whose log it is: the other way round."""
    return unquote(log.decode().removeprefix("modiste:{").removesuffix("}:log"))


class RedisStore:
    """A ``CustomerStore`` and ``GenerationStore`` in Redis (6.2 or newer), Valkey, or a cluster of either."""

    def __init__(self, client: Client, log_ids: Callable[[], int] = new_log_id):
        self._client = client
        self._log_ids = log_ids
        self._reads = Gathered(self.read_many)

    async def read(self, customer_id: str) -> CustomerView:
        return await self._reads.one(customer_id)

    async def read_many(self, customer_ids: Sequence[str]) -> list[CustomerView]:
        if isinstance(self._client, Redis):
            return await self._read_together(customer_ids) if customer_ids else []
        # Their keys may lie on several nodes.
        return [view for views in await _each(self._read_together, [[name] for name in customer_ids]) for view in views]

    async def _read_together(self, customer_ids: Sequence[str]) -> list[CustomerView]:
        keys = [key for customer_id in customer_ids for key in _read_together(customer_keys(customer_id))]
        with translated_errors():
            values: list[bytes | None] = await self._command("MGET", *keys)
        return [
            unpack_view(customer_id, Packed(*values[3 * index : 3 * index + 3]))
            for index, customer_id in enumerate(customer_ids)
        ]

    async def read_log(self, customer_id: str) -> CustomerLog:
        with translated_errors():
            fields: dict[bytes, bytes] = await self._command("HGETALL", customer_keys(customer_id)[0])
        return _log(customer_id, fields)

    async def read_logs(self, customer_ids: Sequence[str]) -> list[CustomerLog]:
        if len(customer_ids) == 1:
            return [await self.read_log(customer_ids[0])]
        logs: list[CustomerLog] = []
        for start in range(0, len(customer_ids), PIPELINE_SIZE):
            some = customer_ids[start : start + PIPELINE_SIZE]
            with translated_errors():
                async with self._client.pipeline(transaction=False) as pipeline:
                    for customer_id in some:
                        pipeline.hgetall(customer_keys(customer_id)[0])
                    logs += map(_log, some, await pipeline.execute())
        return logs

    async def append(self, addition: Addition) -> Appended:
        with translated_errors():
            answer = await _APPEND.run(self._client, customer_keys(addition.customer_id)[:3], self._arguments(addition))
        return _appended(addition, answer)

    async def append_many(self, additions: Sequence[Addition]) -> list[Appended]:
        appended: list[Appended] = []
        if len(additions) == 1:
            return [await self.append(additions[0])]
        for start in range(0, len(additions), PIPELINE_SIZE):
            appended += await self._append_some(additions[start : start + PIPELINE_SIZE])
        return appended

    async def _append_some(self, additions: Sequence[Addition]) -> list[Appended]:
        if not isinstance(self._client, Redis):  # redis-py's pipelines for clusters refuse scripts
            return await _each(self.append, additions)
        calls = ((customer_keys(addition.customer_id)[:3], self._arguments(addition)) for addition in additions)
        with translated_errors():
            answers = await _APPEND.run_many(self._client, calls)
        return [_appended(addition, answer) for addition, answer in zip(additions, answers, strict=True)]

    async def put_state(self, customer_id: str, state: CustomerState, revision: Revision) -> bool:
        keys = customer_keys(customer_id)
        arguments = (revision.log, revision.entries, pack_state(state, revision))
        with translated_errors():
            return bool(await _PUT_STATE.run(self._client, (keys.log, keys.state), arguments))

    async def pages(self) -> AsyncIterator[list[str]]:
        names: list[str] = []
        with translated_errors():
            async for key in self._client.scan_iter(match="modiste:{*}:log", count=PAGE_SIZE):
                names.append(_customer_of(key))
                if len(names) == PAGE_SIZE:
                    yield names
                    names = []
        if names:
            yield names

    async def read_searching(self, customer_id: str) -> StoredGeneration | None:
        with translated_errors():
            return unpack_generation(await self._command("GET", customer_keys(customer_id).searching))

    async def put_generation(
        self,
        customer_id: str,
        generation: StoredGeneration,
        searching: bool = False,
        footing: Footing | None = None,
    ) -> bool:
        keys = customer_keys(customer_id)
        kept, seconds = (keys.searching, SEARCHING_KEPT) if searching else (keys.generation, "")
        arguments = [pack_generation(generation), generation.reflects, seconds, *(footing or ())]
        with translated_errors():
            return bool(await _PUT_GENERATION.run(self._client, (keys.log, keys.session, kept), arguments))

    async def erase(self, customer_id: str) -> bool:
        with translated_errors():
            return bool(await self._command("DEL", *customer_keys(customer_id)))

    async def _command(self, *arguments: Any) -> Any:
        call: Any = self._client.execute_command
        return await call(*arguments)

    def _arguments(self, addition: Addition) -> list[Any]:
        """ARGV of the append script."""
        logged = addition.logged
        expected = addition.expected
        log_id = self._log_ids()  # of the log that begins here, if one does
        state = b""
        if addition.state is not None and expected is not None:
            after = Revision(log_id if expected == NO_LOG else expected.log, expected.entries).after(len(logged))
            state = pack_state(addition.state, after)
        arguments: list[Any] = [*(expected or (-1, -1)), log_id, state, len(logged), SESSION_LENGTH]
        for event in logged:
            arguments += (event.event_id, _entry(event))
        arguments += (orjson.dumps(session_row(event)) for event in addition.seen)
        return arguments


async def _each(call: Callable[[Given], Awaitable[Answer]], arguments: Iterable[Given]) -> list[Answer]:
    """The answers to some calls, in order, ``CLUSTER_CALLS`` at a time."""
    turns = asyncio.Semaphore(CLUSTER_CALLS)

    async def one(argument: Given) -> Answer:
        async with turns:
            return await call(argument)

    return list(await asyncio.gather(*map(one, arguments)))


def _read_together(keys: CustomerKeys) -> tuple[str, str, str]:
    return keys.state, keys.session, keys.generation


def _log(customer_id: str, fields: dict[bytes, bytes]) -> CustomerLog:
    if not fields:
        return CustomerLog()
    log_id = int(fields.pop(b""))
    events = tuple(unpack_log_entry(customer_id, name.decode(), packed) for name, packed in fields.items())
    return CustomerLog(events, Revision(log_id, len(events)))


def _entry(event: Event) -> bytes:
    return pack_log_entry(event.type, event.timestamp, event.article_id or "", event.order_id, event.position)


def _appended(addition: Addition, answer: Sequence[Any]) -> Appended:
    """What the script answers, which lists the log's events before the session's."""
    log_id, entries, stored, *flags = answer
    size = len(addition.logged)
    added = addition.in_order(map(bool, flags[:size]), map(bool, flags[size:]))
    return Appended(added, Revision(int(log_id), int(entries)), bool(stored))
