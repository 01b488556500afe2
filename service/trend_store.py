"""Sales per UTC day, shared by all workers, and the trend that follows from them.

    modiste:{trend}:<day>          HASH   article id → sales less returns of that day (Unix time // 86,400)
    modiste:{trend}:<day>:changes  ZSET   article id → the day's version that changed it last; "" → the version before
                                          all of these. Of the latest days only; expires
    modiste:{trend}:days           ZSET   days that sold anything, scored by themselves
    modiste:{trend}:versions       HASH   day → number of times that it was written, so that only what changed is read

Counts are for ranking, not for accounts: a sale whose acknowledgement was lost in a crash may be missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis

from service.cancelling import cancelled
from service.engine.trending import DAY, NO_TREND, TrendSnapshot, TrendWindow, WindowTotals, trend_window
from service.errors import StoreUnavailable
from service.events import Sale
from service.state.connection import Client, translated_errors
from service.state.redis_store import Script

log = logging.getLogger(__name__)

HOUR = 3_600  # seconds
REFRESH = 0.4
"""Seconds after which the present trend is read again behind the answers' back."""
STALE = 0.9
"""Seconds after which an answer waits for that: so every worker's sales count everywhere within a second."""
KEPT = 10.0
"""Seconds after which it is read again while nobody asks for it: it is to be known where the store does not answer."""
KEPT_TRENDS = 64
"""Windows of the past whose trend is kept in memory, the least lately used first to go; and days twice as many."""

PREFIX = "modiste:{trend}:"
DAYS, VERSIONS = PREFIX + "days", PREFIX + "versions"
WRITE_COUNTS = 1_000
"""Counts that one script is given at once, so that none keeps other clients of Redis waiting for long."""

LATEST_DAYS = 9
"""Days, back from the latest that sold anything, of which a store tells what changed: as many as a window can touch."""
_CHANGES_KEPT = 2 * DAY  # seconds

_ADD = Script("""
local counts, days, versions, changes, day, latest, kept = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2], ARGV[3]
local version, sold = redis.call('HINCRBY', versions, day, 1), false
local newest = tonumber(redis.call('ZREVRANGE', days, 0, 0)[1] or day)
if tonumber(day) > newest - latest then
  redis.call('ZADD', changes, 'NX', version - 1, '')
  for i = 4, #ARGV, 2 do redis.call('ZADD', changes, version, ARGV[i]) end
  redis.call('EXPIRE', changes, kept)
else
  redis.call('DEL', changes)
end
for i = 4, #ARGV, 2 do
  if redis.call('HINCRBY', counts, ARGV[i], ARGV[i + 1]) == 0 then redis.call('HDEL', counts, ARGV[i]) end
  sold = sold or tonumber(ARGV[i + 1]) > 0
end
if sold then redis.call('ZADD', days, day, day) end
""")

_CHANGES = Script("""
local counts, changes, since = KEYS[1], KEYS[2], tonumber(ARGV[1])
local first = redis.call('ZSCORE', changes, '')
if not first or tonumber(first) > since then return false end
local answer = {}
for _, article_id in ipairs(redis.call('ZRANGEBYSCORE', changes, '(' .. ARGV[1], '+inf')) do
  answer[#answer + 1] = article_id
  answer[#answer + 1] = redis.call('HGET', counts, article_id) or '0'
end
return answer
""")


class TrendStore(Protocol):
    """Sales per article and UTC day. All raise StoreUnavailable where the store does not answer."""

    async def add(self, sales: Sequence[Sale]) -> None:
        """Count sales and, as negative ones at the time of the sale, what was returned."""
        ...

    async def newest_day(self, until: int) -> int | None:
        """The latest day with sales that is no later than day ``until``; None where there is none."""
        ...

    async def versions(self, days: Sequence[int]) -> tuple[int, ...]:
        """Of each day a number that changes whenever its sales do."""
        ...

    async def sales(self, day: int) -> dict[str, int]:
        """Sales less returns per article of one day; what nets to 0 is left out."""
        ...

    async def changes(self, day: int, since: int) -> dict[str, int] | None:
        """Sales less returns of those articles whose sales of one day changed after its version ``since``, or more.

        None where nobody remembers which these are.
        """
        ...


class MemoryTrendStore:
    """A ``TrendStore`` of dictionaries."""

    def __init__(self) -> None:
        self._days: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._versions: Counter[int] = Counter()
        self._changed: defaultdict[int, dict[str, int]] = defaultdict(dict)  # day → article → version
        self._sold: set[int] = set()

    async def add(self, sales: Sequence[Sale]) -> None:
        for day, counts in _by_day(sales).items():
            self._versions[day] += 1
            for article_id, count in counts.items():
                self._days[day][article_id] += count
                self._changed[day][article_id] = self._versions[day]
            if any(count > 0 for count in counts.values()):
                self._sold.add(day)

    async def newest_day(self, until: int) -> int | None:
        return max((day for day in self._sold if day <= until), default=None)

    async def versions(self, days: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._versions[day] for day in days)

    async def sales(self, day: int) -> dict[str, int]:
        return {article_id: count for article_id, count in self._days[day].items() if count}

    async def changes(self, day: int, since: int) -> dict[str, int] | None:
        changed = self._changed[day].items()
        return {article_id: self._days[day][article_id] for article_id, version in changed if version > since}


class RedisTrendStore:
    """A ``TrendStore`` in Redis (6.2 or newer), Valkey, or a cluster of either."""

    def __init__(self, client: Client):
        self._client = client

    async def add(self, sales: Sequence[Sale]) -> None:
        calls = list(_additions(sales))
        with translated_errors():
            if len(calls) > 1 and isinstance(self._client, Redis):
                await _ADD.run_many(self._client, calls)
            else:
                for keys, arguments in calls:
                    await _ADD.run(self._client, keys, arguments)

    async def newest_day(self, until: int) -> int | None:
        with translated_errors():
            found = await self._commands.zrevrangebyscore(DAYS, until, "-inf", start=0, num=1)
        return int(found[0]) if found else None

    async def versions(self, days: Sequence[int]) -> tuple[int, ...]:
        if not days:
            return ()
        with translated_errors():
            found = await self._commands.hmget(VERSIONS, list(days))
        return tuple(int(version or 0) for version in found)

    async def sales(self, day: int) -> dict[str, int]:
        with translated_errors():
            found = await self._commands.hgetall(_day(day))
        return {article_id.decode(): int(count) for article_id, count in found.items()}

    async def changes(self, day: int, since: int) -> dict[str, int] | None:
        with translated_errors():
            found = await _CHANGES.run(self._client, (_day(day), _changes(day)), (since,))
        if found is None:
            return None
        return {name.decode(): int(count) for name, count in zip(found[::2], found[1::2], strict=True)}

    @property
    def _commands(self) -> Any:
        """The client, whose methods redis-py types as both synchronous and not."""
        return self._client


def _day(day: int) -> str:
    return f"{PREFIX}{day}"


def _changes(day: int) -> str:
    return f"{PREFIX}{day}:changes"


def _additions(sales: Sequence[Sale]) -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
    """Keys and arguments of each call of the script that counts ``sales``."""
    for day, counts in _by_day(sales).items():
        pairs = list(counts.items())
        for start in range(0, len(pairs), WRITE_COUNTS):
            written = (part for pair in pairs[start : start + WRITE_COUNTS] for part in pair)
            yield (_day(day), DAYS, VERSIONS, _changes(day)), (day, LATEST_DAYS, _CHANGES_KEPT, *written)


def _by_day(sales: Sequence[Sale]) -> dict[int, dict[str, int]]:
    days: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for sale in sales:
        days[sale.timestamp // DAY][sale.article_id] += sale.change
    return {day: {name: count for name, count in counts.items() if count} for day, counts in days.items()}


@dataclass(frozen=True)
class _Known:
    """A trend, the versions of the days that it was made from, and what makes it anew when some of that changes."""

    versions: tuple[int, ...]
    totals: WindowTotals
    snapshot: TrendSnapshot


class Trends:
    """What trends at a moment, from sales that all workers share.

    The trend stays the same object while no sale changes it: whoever derives something from it may keep that as long.
    ``clock`` gives Unix seconds, ``monotonic`` seconds that never go back.
    """

    def __init__(self, store: TrendStore, clock: Callable[[], int], monotonic: Callable[[], float]):
        self._store, self._clock, self._monotonic = store, clock, monotonic
        self._known: OrderedDict[TrendWindow, _Known] = OrderedDict()
        self._days: OrderedDict[int, tuple[int, dict[str, int]]] = OrderedDict()
        self._reading = asyncio.Lock()  # days and totals, which one reading takes from where the last one left them
        self._present = NO_TREND
        self._read_at: float | None = None
        self._failed = False
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def last_known(self) -> TrendSnapshot:
        """The present trend as it was read last, however long ago."""
        return self._present

    async def snapshot(self, at: int | None = None) -> TrendSnapshot:
        """The trend at ``at`` (Unix seconds, counted by whole hours), or now.

        Now's is at most a second old; while the store does not answer, it is the last one that was known. For a given
        ``at``, the past's in particular, raises StoreUnavailable instead.
        """
        if at is not None:
            return await self._trend(at - at % HOUR)
        age = None if self._read_at is None else self._monotonic() - self._read_at
        if age is None or age > REFRESH:
            refreshing = self._refresh()
            if age is None or (age > STALE and not self._failed):
                await asyncio.shield(refreshing)
        return self._present

    def keep_known(self) -> None:
        """Have the present trend read, behind the caller's back, where that is more than ``KEPT`` seconds ago."""
        if self._read_at is None or self._monotonic() - self._read_at > KEPT:
            self._refresh()

    async def aclose(self) -> None:
        """Read nothing more: what was begun behind an answer's back would outlive the store's connections."""
        await cancelled(self._refreshing)

    def _refresh(self) -> asyncio.Task[None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._read_present())
        return self._refreshing

    async def _read_present(self) -> None:
        now = self._clock()
        try:
            self._present = await self._trend(now + -now % HOUR)
        except StoreUnavailable as error:
            if not self._failed:
                log.warning("the trend stays as it was last known: %s", error)
            self._failed = True
        else:
            self._failed = False
        self._read_at = self._monotonic()

    async def _trend(self, at: int) -> TrendSnapshot:
        async with self._reading:
            window = trend_window(at, await self._store.newest_day(at // DAY), self._clock())
            days = [day for day, _ in window.days]
            versions = await self._store.versions(days)
            known = self._known.get(window)
            if known is None or known.versions != versions:
                known = await self._renewed(window, known, dict(zip(days, versions, strict=True)))
            _keep(self._known, window, known, KEPT_TRENDS)
            return known.snapshot

    async def _renewed(self, window: TrendWindow, known: _Known | None, versions: Mapping[int, int]) -> _Known:
        """The trend by those versions of the days; made from what is ``known``, where it can be told what changed."""
        before = {} if known is None else dict(zip(versions, known.versions, strict=True))
        changed: set[str] | None = set()
        for day, version in versions.items():
            of_day = await self._catch_up(day, version, before.get(day))
            changed = None if changed is None or of_day is None else changed | of_day
        counts = {day: self._days[day][1] for day in versions}
        totals, snapshot = await asyncio.to_thread(
            _trend, window, counts, None if known is None else known.totals, changed
        )
        return _Known(tuple(versions.values()), totals, snapshot)

    async def _catch_up(self, day: int, version: int, since: int | None) -> set[str] | None:
        """Know a day's sales; which of them changed after its version ``since``, None where any may have."""
        known = self._days.get(day)
        if known is not None and known[0] == version and since in {version, None}:
            _keep(self._days, day, known, 2 * KEPT_TRENDS)
            return set()
        changes = None
        if known is not None:
            changes = await self._store.changes(day, known[0] if since is None else min(since, known[0]))
        sales = await self._store.sales(day) if known is None or changes is None else known[1] | changes
        _keep(self._days, day, (version, sales), 2 * KEPT_TRENDS)
        return None if changes is None else set(changes)


def _trend(
    window: TrendWindow, counts: Mapping[int, Mapping[str, int]], totals: WindowTotals | None, changed: set[str] | None
) -> tuple[WindowTotals, TrendSnapshot]:
    """The trend, with its order made already, so that no answer has to wait for that."""
    if totals is None or changed is None:
        totals = WindowTotals(window, counts)
    else:
        totals.update(changed, counts)
    snapshot = totals.snapshot()
    assert len(snapshot.scores) == len(snapshot.places)
    return totals, snapshot


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
