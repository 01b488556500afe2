"""The way to Redis: one client for a whole process, and one place where redis-py's errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
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
        pool = BlockingConnectionPool.from_url(
            plain, max_connections=connections, timeout=timeout, retry=retry, **options
        )
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
