"""The way to Redis: one client for a whole process, and one place where redis-py's errors become ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis.exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from model_store.errors import InvalidConfig
from service.errors import StoreUnavailable

Client: TypeAlias = "Redis | RedisCluster"

REDIS_ERRORS: tuple[type[Exception], ...] = (
    redis.exceptions.RedisError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.ChildDeadlockedError,
    redis.exceptions.IncorrectPolicyType,
    OSError,
    TimeoutError,
)
"""All that redis-py raises: its exceptions have no common base."""


class _WaitingPool(ConnectionPool):
    """At most ``turns`` connections; whoever finds none free waits up to ``wait`` seconds for one.

    What redis-py's BlockingConnectionPool does, without the third of a short call's time that its locks take.
    """

    def __init__(self, turns: int, wait: float, **options: Any):
        super().__init__(**options)
        self._turns, self._wait = asyncio.Semaphore(turns), wait

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if self._turns.locked():
            async with asyncio.timeout(self._wait):
                await self._turns.acquire()
        else:
            await self._turns.acquire()
        try:
            return await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        except BaseException:
            self._turns.release()
            raise

    async def release(self, connection: Any) -> None:
        try:
            await super().release(connection)
        finally:
            self._turns.release()


def connect(url: str, *, timeout: float = 0.5, connections: int = 64) -> Client:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; ``?cluster=true`` makes it one for Redis Cluster.

    ``timeout`` in seconds bounds each connect, each answer and the wait for a free connection. A connection that the
    server closed while it lay idle is opened again once; nothing else is tried twice, so that a Redis that is down is
    reported at once. ``connections`` bounds those to a single server. Connects on first use.

    Raises InvalidConfig for an unusable URL.
    """
    plain, cluster = _take_cluster_flag(url)
    options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,))
    try:
        if cluster:
            return RedisCluster.from_url(plain, **options)  # at its limit it would fail, not wait: so it gets none
        pool = _WaitingPool.from_url(plain, turns=connections, wait=timeout, retry=retry, **options)
    except (ValueError, TypeError) as error:
        raise InvalidConfig(f"'{url}' is not a usable Redis URL: {error}") from None
    return Redis.from_pool(pool)


def _take_cluster_flag(url: str) -> tuple[str, bool]:
    parts = urlsplit(url)
    options = parse_qsl(parts.query)
    cluster = any(name == "cluster" and value.casefold() in {"1", "true", "yes"} for name, value in options)
    rest = urlencode([(name, value) for name, value in options if name != "cluster"])
    return urlunsplit(parts._replace(query=rest)), cluster


@contextmanager
def translated_errors() -> Iterator[None]:
    """Whatever redis-py raises inside becomes StoreUnavailable."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise StoreUnavailable(f"the store did not answer as it should: {error or type(error).__name__}") from error
