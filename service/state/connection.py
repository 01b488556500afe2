"""The way to Redis: one client for a whole process, and one place where redis-py's errors become ours."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis.exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer

from model_store.errors import InvalidConfig
from service.errors import StoreFailure, StoreUnavailable

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


_REASONS: tuple[tuple[tuple[type[Exception], ...], StoreFailure], ...] = (
    ((redis.exceptions.TimeoutError, TimeoutError), "slow"),
    ((redis.exceptions.OutOfMemoryError,), "full"),
    ((redis.exceptions.ReadOnlyError,), "read_only"),
    ((redis.exceptions.ConnectionError, redis.exceptions.ClusterError, OSError), "unreachable"),
)


_SERIALIZER = HiredisRespSerializer()
_SENT_AT_ONCE = 16_384
"""Bytes that never wait for room: uvloop and asyncio hold back who writes once 64 KB are left to be sent."""


class _Connection:
    """What is added to redis-py's connections.

    One to a server that has become a replica is given up: the address may lead to another one by now. Commands are
    packed by hiredis, as redis-py's synchronous connections do: 48 keys in 7 µs, not 73. A short one is written without
    the task, and the turn of the event loop, that redis-py spends on bounding how long that takes: it takes no time.
    """

    def pack_command(self, *arguments: Any) -> Any:
        return _SERIALIZER.pack(*arguments)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        writer = self._writer  # type: ignore[attr-defined]
        simple = writer is not None and not writer.is_closing() and isinstance(command, list)
        if not simple or sum(map(len, command)) > _SENT_AT_ONCE:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
        else:
            writer.writelines(command)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.exceptions.ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[attr-defined]
            raise


class _Timely(Redis):
    """A client each of whose calls ends after ``limit`` seconds, a connection to be made for it included.

    By itself redis-py bounds each attempt to connect, each greeting and each answer, which adds up.
    """

    limit = math.inf

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(self.limit):
                return await super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise redis.exceptions.TimeoutError(f"no answer within {self.limit:g} s") from None


class _WaitingPool(ConnectionPool):
    """At most ``turns`` connections; whoever finds none free waits up to ``wait`` seconds for one.

    What redis-py's BlockingConnectionPool does, without the third of a short call's time that its locks take.
    """

    def __init__(self, turns: int, wait: float, **options: Any):
        super().__init__(**options)
        self.connection_class = type("_Connection", (_Connection, self.connection_class), {})
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
        given_up = connection.should_reconnect()
        try:
            await super().release(connection)
            if given_up:  # those that lie idle lead to the same server
                await self.disconnect(inuse_connections=False)
        finally:
            self._turns.release()


def connect(url: str, *, timeout: float = 0.5, connections: int = 64) -> Client:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; ``?cluster=true`` makes it one for Redis Cluster.

    ``timeout`` in seconds bounds each call as a whole; to a cluster, or in a pipeline, each connect and each answer. A
    connection that the server closed while it lay idle is opened again once; nothing else is tried twice, so that a
    Redis that is down is reported at once. Where a server answers that it is a replica, the next call connects anew,
    and so finds the primary behind a name or an address that has moved. ``connections`` bounds those to a single
    server. Connects on first use.

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
    client = cast("_Timely", _Timely.from_pool(pool))
    client.limit = timeout
    return client


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
        message = f"the store did not answer as it should: {str(error) or type(error).__name__}"
        raise StoreUnavailable(message, _reason(error)) from error


def _reason(error: BaseException) -> StoreFailure:
    """Why the store failed. A connection that is not greeted in time fails because of that."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return next((reason for kinds, reason in _REASONS if any(isinstance(each, kinds) for each in chain)), "other")
