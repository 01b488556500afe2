"""A million changes through what the service makes of calls: one index writes, another follows, over a real Valkey."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.changing_shop import CHANGED, REPLACED, ROUND, Shop
from service.bench.results import Result
from service.cancelling import cancelled
from service.catalogue.follower import CatalogueFollower
from service.catalogue.intake import CatalogueIntake
from service.catalogue.redis_store import CHANGES, RedisCatalogue
from service.live import open_live
from service.state.connection import Client

PATIENCE = 60.0  # seconds until all that was written must be everywhere


@dataclass(frozen=True)
class Memory:
    """MiB that this process and the Redis hold, and how many changes the latter keeps."""

    process: float
    redis: float
    changes: int


@dataclass(frozen=True)
class Endured:
    """What many changes came to. ``wrong``: articles that an index has otherwise than it should.

    ``known``: articles, deleted ones included, of which the index that follows knows the Fashion DNA.
    """

    updates: int
    seconds: float
    half_way: Memory
    end: Memory
    wrong: int
    known: int

    @property
    def growth(self) -> Memory:
        """What the second half added."""
        end, half_way = self.end, self.half_way
        return Memory(end.process - half_way.process, end.redis - half_way.redis, end.changes - half_way.changes)

    @property
    def results(self) -> list[Result]:
        """As lines of the table."""
        return [
            Result("changes, written and followed", self.updates / self.seconds, "/s", failed=self.wrong),
            Result("memory of the process with two indexes", self.end.process, "MiB"),
            Result("what the second half added to it", self.growth.process, "MiB"),
            Result("memory of Redis", self.end.redis, "MiB"),
            Result("what the second half added to it", self.growth.redis, "MiB"),
        ]


async def endure(
    bundle: Path,
    catalogue: RedisCatalogue,
    client: Client,
    shop: Shop,
    articles: int,
    updates: int,
    told: Callable[[int], None],
) -> Endured:
    """``updates`` changes of a ``shop`` of ``articles``, in rounds; ``told`` hears of each how many it had.

    ``bundle``: the folder of one. The catalogue that ``client`` leads to is empty.
    """
    writer, other = (open_live(bundle, catalogue) for _ in range(2))
    intake = CatalogueIntake(catalogue, None, lambda: int(time.time()))
    for follower in (writer.follower, other.follower):
        await follower.load()
    for _ in range(0, articles, ROUND):
        await intake.put(shop.new(ROUND), writer.encoder, writer.follower)
    following = asyncio.create_task(other.follower.run())
    try:
        half_way = await read_memory(client)
        begun = time.perf_counter()
        for done in range(0, updates, ROUND):
            if done <= updates // 2 < done + ROUND:
                half_way = await read_memory(client)
            await intake.set_stock(shop.levels(ROUND - CHANGED - 2 * REPLACED), writer.follower)
            await intake.put(shop.changed(CHANGED), writer.encoder, writer.follower)
            for article_id in shop.gone(REPLACED):
                await intake.delete(article_id, writer.follower)
            await intake.put(shop.new(REPLACED), writer.encoder, writer.follower)
            told(ROUND)
        await _until(lambda: not wrong_in(other.follower, shop))
        seconds = time.perf_counter() - begun
        wrong = sum(len(wrong_in(each.follower, shop)) for each in (writer, other))
        known = len(other.index.known_ids())
        return Endured(updates, seconds, half_way, await read_memory(client), wrong, known)
    finally:
        await cancelled(following)


def wrong_in(follower: CatalogueFollower, shop: Shop) -> set[str]:
    """Articles that an index does not have as they should be."""
    index = follower.index
    held = {(article_id, index.in_stock(article_id)) for article_id in index.article_ids()}
    return {article_id for article_id, _ in held ^ set(shop.in_stock.items())}


async def read_memory(client: Client) -> Memory:
    """What is held at this moment."""
    call: Any = client.execute_command
    used = (await call("INFO", "memory"))["used_memory"]
    return Memory(_resident(), used / 2**20, await call("XLEN", CHANGES))


def _resident() -> float:
    """MiB of this process's memory (VmRSS)."""
    status = Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 2**10


async def _until(true: Callable[[], bool]) -> None:
    """Wait for something to become true, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < deadline:  # noqa: ASYNC110 - others make it true
        await asyncio.sleep(0.02)
