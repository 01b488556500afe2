"""The catalogue in Redis, under keys that share a hash tag, so that Redis Cluster keeps them together.

    modiste:{catalogue}:articles       HASH    article id → {"format", "fingerprint", "article"}, JSON
                       :graveyard      HASH    the same, of deleted articles
                       :images         HASH    article id → the picture's bytes
                       :stock          HASH    article id → quantity|set_time
                       :dna:<bundle>   HASH    article id → fingerprint and DNA (records.pack_dna)
                       :changes        STREAM  one entry per change; its id is <epoch>-<number>
                       :sequence       HASH    epoch (Unix microseconds of the first change), number of the latest
                       :bundles        SET     those that have a :dna:<bundle>
                       :held           SET     articles that a history holds, or is about to
                       :unheld         ZSET    other articles that are deleted, by the number of that change

Each writing call is one Lua script, or several, each atomic for the articles that it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from model_store.records import Article
from service.catalogue.records import (
    CatalogueEntry,
    Float32,
    StockLevel,
    StockOutcome,
    StoredArticle,
    pack_dna,
    unpack_dna,
)
from service.catalogue.store import KEPT_CHANGES, KEPT_UNHELD, Changes, ChangesLost, Page, Position
from service.state.connection import Client, translated_errors
from service.state.redis_store import Script

log = logging.getLogger(__name__)

PREFIX = "modiste:{catalogue}:"
ARTICLES, GRAVEYARD, IMAGES, STOCK = PREFIX + "articles", PREFIX + "graveyard", PREFIX + "images", PREFIX + "stock"
CHANGES, SEQUENCE = PREFIX + "changes", PREFIX + "sequence"
BUNDLES, HELD, UNHELD = PREFIX + "bundles", PREFIX + "held", PREFIX + "unheld"

RECORD_FORMAT = 1
PAGE_SIZE = 256
MOST_CHANGES = 1_000  # per answer
READ_AT_ONCE = 1_000  # articles; Lua can unpack some thousands
WRITE_BYTES = 1_000_000
"""About how much one script is given at once, so that none keeps other clients of Redis waiting for long."""

_ANNOUNCE = """
local stream, sequence, kept = KEYS[1], KEYS[2], ARGV[1]
local function announce(article_id)
  local epoch = redis.call('HGET', sequence, 'epoch')
  if not epoch then
    local now = redis.call('TIME')
    epoch = now[1] .. string.format('%06d', now[2])
    redis.call('HSET', sequence, 'epoch', epoch)
  end
  local number = redis.call('HINCRBY', sequence, 'number', 1)
  redis.call('XADD', stream, 'MAXLEN', '~', kept, epoch .. '-' .. string.format('%.0f', number), 'article', article_id)
  return number
end
"""

_UPSERT = Script(
    _ANNOUNCE
    + """
local articles, graveyard, images, dna, bundles, unheld = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
redis.call('SADD', bundles, ARGV[2])
for i = 3, #ARGV, 4 do
  local article_id, record, image, packed = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  redis.call('HSET', articles, article_id, record)
  if redis.call('HDEL', graveyard, article_id) == 1 then redis.call('ZREM', unheld, article_id) end
  if image == '' then redis.call('HDEL', images, article_id) else redis.call('HSET', images, article_id, image) end
  redis.call('HSET', dna, article_id, packed)
  announce(article_id)
end
"""
)

_DELETE = Script(
    _ANNOUNCE
    + """
local articles, graveyard, images, stock, held, unheld = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local article_id, most = ARGV[2], tonumber(ARGV[3])
local record = redis.call('HGET', articles, article_id)
if not record then return 0 end
redis.call('HSET', graveyard, article_id, record)
redis.call('HDEL', articles, article_id)
redis.call('HDEL', stock, article_id)
local number = announce(article_id)
if redis.call('SISMEMBER', held, article_id) == 0 then redis.call('ZADD', unheld, number, article_id) end
if redis.call('ZCARD', unheld) > most then
  local oldest = redis.call('ZPOPMIN', unheld)[1]
  redis.call('HDEL', graveyard, oldest)
  redis.call('HDEL', images, oldest)
  for i = 9, #KEYS do redis.call('HDEL', KEYS[i], oldest) end
  announce(oldest)
end
return 1
"""
)

_HOLD = Script("""
redis.call('SADD', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
""")

_SET_STOCK = Script(
    _ANNOUNCE
    + """
local articles, stock, answer = KEYS[3], KEYS[4], {}
for i = 2, #ARGV, 3 do
  local article_id, quantity, set_time = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local outcome = 'applied'
  if redis.call('HEXISTS', articles, article_id) == 0 then
    outcome = 'unknown_article'
  else
    local was_in_stock, stored = true, redis.call('HGET', stock, article_id)
    if stored then
      local before, before_time = string.match(stored, '^(%d+)|(%d+)$')
      was_in_stock = tonumber(before) > 0
      if tonumber(set_time) < tonumber(before_time) then outcome = 'stale' end
    end
    if outcome == 'applied' then
      redis.call('HSET', stock, article_id, quantity .. '|' .. set_time)
      if was_in_stock ~= (tonumber(quantity) > 0) then announce(article_id) end
    end
  end
  answer[#answer + 1] = outcome
end
return answer
"""
)

_READ = Script("""
local answer = {}
for i, key in ipairs(KEYS) do answer[i] = redis.call('HMGET', key, unpack(ARGV)) end
return answer
""")

_POSITION = Script("""
local place = redis.call('HMGET', KEYS[1], 'epoch', 'number')
return {string.match(redis.call('INFO', 'server'), 'run_id:(%w+)'), place[1] or '0', place[2] or '0'}
""")


class RedisCatalogue:
    """A ``CatalogueStore`` in Redis (6.2 or newer), Valkey, or a cluster of either."""

    def __init__(self, client: Client, kept_changes: int = KEPT_CHANGES, kept_unheld: int = KEPT_UNHELD):
        self._client, self._kept, self._kept_unheld = client, kept_changes, kept_unheld

    async def upsert(self, articles: Sequence[StoredArticle], bundle: str, dna: Float32) -> None:
        keys = (CHANGES, SEQUENCE, ARTICLES, GRAVEYARD, IMAGES, _dna_key(bundle), BUNDLES, UNHELD)
        writes = (_upsert_arguments(stored, vector) for stored, vector in zip(articles, dna, strict=True))
        for arguments in _portions(writes):
            await self._run(_UPSERT, keys, [bundle, *arguments])

    async def delete(self, article_id: str) -> bool:
        keys = (CHANGES, SEQUENCE, ARTICLES, GRAVEYARD, IMAGES, STOCK, HELD, UNHELD)
        dna = map(_dna_key, await self.encoded_by())
        return bool(await self._run(_DELETE, (*keys, *dna), [article_id, self._kept_unheld]))

    async def hold(self, article_ids: Sequence[str]) -> None:
        for start in range(0, len(article_ids), READ_AT_ONCE):
            with translated_errors():
                await _HOLD.run(self._client, (HELD, UNHELD), article_ids[start : start + READ_AT_ONCE])

    async def set_stock(self, levels: Sequence[StockLevel]) -> list[StockOutcome]:
        outcomes: list[StockOutcome] = []
        for arguments in _portions((level.article_id, level.quantity, level.set_time) for level in levels):
            answer = await self._run(_SET_STOCK, (CHANGES, SEQUENCE, ARTICLES, STOCK), arguments)
            outcomes += (StockOutcome(outcome.decode()) for outcome in answer)
        return outcomes

    async def read(self, article_ids: Sequence[str], bundle: str) -> list[CatalogueEntry | None]:
        entries: list[CatalogueEntry | None] = []
        for start in range(0, len(article_ids), READ_AT_ONCE):
            some = article_ids[start : start + READ_AT_ONCE]
            with translated_errors():
                parts = await _READ.run(self._client, (ARTICLES, GRAVEYARD, STOCK, _dna_key(bundle)), some)
            entries += map(_entry, some, *parts)
        return entries

    async def read_images(self, article_ids: Sequence[str]) -> list[bytes | None]:
        if not article_ids:
            return []
        with translated_errors():
            images: list[bytes | None] = await self._commands.hmget(IMAGES, list(article_ids))
        return images

    async def put_dna(self, bundle: str, entries: Sequence[CatalogueEntry], dna: Float32) -> None:
        writes = (
            (entry.article.article_id, pack_dna(entry.fingerprint, vector))
            for entry, vector in zip(entries, dna, strict=True)
        )
        for arguments in _portions(writes):
            with translated_errors():
                await self._commands.sadd(BUNDLES, bundle)
                await self._commands.hset(_dna_key(bundle), items=arguments)

    async def drop_dna(self, bundle: str) -> None:
        with translated_errors():
            await self._commands.unlink(_dna_key(bundle))
            await self._commands.srem(BUNDLES, bundle)

    async def encoded_by(self) -> list[str]:
        with translated_errors():
            return sorted(bundle.decode() for bundle in await self._commands.smembers(BUNDLES))

    async def count(self) -> int:
        with translated_errors():
            return int(await self._commands.hlen(ARTICLES))

    async def page(self, cursor: str, bundle: str) -> Page:
        # The dead come last: one that is deleted in between is then found there, and never in neither.
        key, _, place = (cursor or f"{ARTICLES} 0").rpartition(" ")
        with translated_errors():
            following, found = await self._commands.hscan(key, int(place), count=PAGE_SIZE)
        read = await self.read([name.decode() for name in found], bundle)
        entries = tuple(entry for entry in read if entry is not None)
        if following:
            return Page(entries, f"{key} {following}")
        return Page(entries, f"{GRAVEYARD} 0" if key == ARTICLES else None)

    async def position(self) -> Position:
        with translated_errors():
            server, epoch, number = await _POSITION.run(self._client, (SEQUENCE,), ())
        return Position(server.decode(), int(epoch), int(number))

    async def changes(self, since: Position, wait: float) -> Changes:
        now = await self.position()
        if not _continues(since, now):
            raise ChangesLost
        place = {CHANGES: f"{since.epoch}-{since.number}"}
        with translated_errors():
            answer = await self._commands.xread(place, count=MOST_CHANGES, block=max(1, round(wait * 1000)))
        entries = _entries_of(answer)
        if not entries:
            return Changes((), since, now.number - since.number)
        if entries[0][0].number != since.number + 1 or not _continues(
            since, entries[0][0]._replace(server=since.server)
        ):
            raise ChangesLost
        last = entries[-1][0]._replace(server=since.server)
        behind = max(0, now.number - last.number)
        return Changes(tuple(dict.fromkeys(article_id for _, article_id in entries)), last, behind)

    @property
    def _commands(self) -> Any:
        """The client, whose methods redis-py types as both synchronous and not."""
        return self._client

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        with translated_errors():
            return await script.run(self._client, keys, (self._kept, *arguments))


def _dna_key(bundle: str) -> str:
    return f"{PREFIX}dna:{bundle}"


def _continues(since: Position, now: Position) -> bool:
    """Whether ``now`` can be reached from ``since`` by changes alone."""
    same_epoch = now.epoch == since.epoch or not since.number
    return now.server == since.server and same_epoch and now.number >= since.number


def _entries_of(answer: Any) -> list[tuple[Position, str]]:
    """(position, article id) of each entry in XREAD's answer: a list of streams, or a dictionary (RESP3)."""
    if not answer:
        return []
    entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
    parsed = []
    for place, fields in entries:
        epoch, _, number = place.decode().partition("-")
        parsed.append((Position("", int(epoch), int(number)), fields[b"article"].decode()))
    return parsed


def _upsert_arguments(stored: StoredArticle, dna: Float32) -> tuple[str, bytes, bytes, bytes]:
    article = stored.article
    fields = article.model_dump(mode="json", exclude_defaults=True)
    record = orjson.dumps({"format": RECORD_FORMAT, "fingerprint": stored.fingerprint, "article": fields})
    return article.article_id, record, stored.image or b"", pack_dna(stored.fingerprint, dna)


def _portions(writes: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    """Arguments of several writes, together of about ``WRITE_BYTES``."""
    portion: list[Any] = []
    size = 0
    for write in writes:
        portion += write
        size += sum(len(part) if isinstance(part, bytes) else 32 for part in write)
        if size >= WRITE_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


_DEFAULTS = {name: field.default for name, field in Article.model_fields.items() if not field.is_required()}


def _article(fields: dict[str, Any]) -> Article:
    """An article as it was written, not validated again: a whole catalogue takes long enough to load.

    What ``Article.model_construct`` does, which looks every default up for itself, in a fifth of the time.
    """
    article = Article.__new__(Article)
    known = _DEFAULTS | {"materials": {}} | fields
    known["tags"] = tuple(known["tags"])
    object.__setattr__(article, "__dict__", known)
    object.__setattr__(article, "__pydantic_fields_set__", set(fields))
    object.__setattr__(article, "__pydantic_extra__", None)
    object.__setattr__(article, "__pydantic_private__", None)
    return article


def _entry(
    article_id: str, live: bytes | None, dead: bytes | None, stock: bytes | None, dna: bytes | None
) -> CatalogueEntry | None:
    content = live if live is not None else dead
    if content is None:
        return None
    record = orjson.loads(content)
    if record["format"] != RECORD_FORMAT:
        log.error("article '%s' in the store is left out: another release wrote it, send it again", article_id)
        return None
    level = None
    if stock is not None:
        quantity, _, set_time = stock.partition(b"|")
        level = StockLevel(article_id, int(quantity), int(set_time))
    vector = unpack_dna(dna, record["fingerprint"])
    return CatalogueEntry(_article(record["article"]), record["fingerprint"], live is not None, level, vector)
