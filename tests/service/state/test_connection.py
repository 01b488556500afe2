from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator

import numpy as np
import pytest
import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis_server import running_server

from model_store.errors import InvalidConfig
from model_store.records import Event
from service.errors import StoreUnavailable
from service.state.connection import Client, connect, translated_errors
from service.state.customer import NO_LOG, Addition, CustomerState
from service.state.redis_store import RedisStore, customer_keys
from service.state.store import CustomerStore

RAISED = [
    each
    for _, each in inspect.getmembers(redis.exceptions, inspect.isclass)
    if issubclass(each, Exception) and each.__module__ == redis.exceptions.__name__
]


@pytest.mark.parametrize("exception", [*RAISED, OSError, ConnectionResetError, TimeoutError, asyncio.TimeoutError])
def test_no_error_of_redis_py_stays_unmapped(exception: type[Exception]) -> None:
    error = exception.__new__(exception)
    with pytest.raises(StoreUnavailable, match="the store did not answer as it should: "), translated_errors():
        raise error


def test_errors_of_our_own_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated_errors():
        raise ZeroDivisionError


def event(number: int = 1) -> Event:
    return Event(event_id=f"e{number}", type="purchase", customer_id="a", article_id="x", timestamp=number)


async def every_call(store: CustomerStore) -> AsyncIterator[None]:
    state = CustomerState("b", 0, *np.zeros((2, 256), np.float32), None)
    for call in (
        lambda: store.read("a"),
        lambda: store.read_log("a"),
        lambda: store.append(Addition("a", (event(),))),
        lambda: store.append_many([Addition("a", (event(),))]),
        lambda: store.put_state("a", state, NO_LOG),
        lambda: store.erase("a"),
    ):
        with pytest.raises(StoreUnavailable):
            await call()
        yield


async def test_a_server_that_is_gone_is_reported_by_every_call() -> None:
    with running_server() as url:
        store = RedisStore(client := connect(url))
        await store.append(Addition("a", (event(),)))
    assert len([None async for _ in every_call(store)]) == 6
    await client.aclose()


async def test_a_server_that_hangs_is_reported_after_the_timeout() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = RedisStore(client := connect(f"redis://127.0.0.1:{port}", timeout=0.05))
    assert len([None async for _ in every_call(store)]) == 6
    await client.aclose()
    server.close()


async def test_a_server_that_restarts_is_found_again_and_taught_its_scripts(redis_url: str) -> None:
    store = RedisStore(client := connect(redis_url))
    await store.append(Addition("a", (event(1),)))
    await client.execute_command("SCRIPT FLUSH")
    await client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
    other = connect(redis_url)
    await other.execute_command("CLIENT KILL TYPE normal SKIPME yes")
    assert (await store.append(Addition("a", (event(2),)))).added == (True,)
    await client.aclose()
    await other.aclose()


async def test_a_server_that_refuses_to_write_is_reported_and_keeps_nothing() -> None:
    with running_server(maxmemory="1") as url:
        store = RedisStore(client := connect(url))
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await store.append(Addition("a", (event(),)))
        assert (await store.read_log("a")).events == ()
        await client.aclose()


async def test_a_key_of_another_kind_is_reported(redis_url: str) -> None:
    store = RedisStore(client := connect(redis_url))
    await client.execute_command("SET", customer_keys("a")[0], "no hash")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.read_log("a")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.append(Addition("a", (event(),)))
    await client.aclose()


async def test_calls_take_turns_at_few_connections(redis_url: str) -> None:
    store = RedisStore(client := connect(redis_url, timeout=10, connections=3))
    await asyncio.gather(*(store.append(Addition("a", (event(number),))) for number in range(100)))
    assert len((await store.read_log("a")).events) == 100
    assert len(await client.execute_command("CLIENT LIST")) <= 3
    with pytest.raises(StoreUnavailable):
        await asyncio.gather(*(client_error(client) for _ in range(9)))
    assert (await store.read("a")).state is None
    await client.aclose()


async def client_error(client: Client) -> None:
    with translated_errors():
        await client.execute_command("NO SUCH COMMAND")


async def test_who_waits_too_long_for_a_connection_is_told(redis_url: str) -> None:
    client = connect(redis_url, timeout=0.2, connections=1)
    other = connect(redis_url, timeout=10)
    await other.execute_command("CLIENT PAUSE", 1000, "ALL")
    calls = await asyncio.gather(*(RedisStore(client).read("a") for _ in range(4)), return_exceptions=True)
    assert all(isinstance(call, StoreUnavailable) for call in calls)
    await other.execute_command("PING")
    async with asyncio.timeout(20):  # on a busy machine one call or another may still take longer than its 0.2 s
        while True:
            with contextlib.suppress(StoreUnavailable):
                assert (await RedisStore(client).read("a")).state is None  # their turns are given back
                break
    await client.aclose()
    await other.aclose()


def test_what_a_url_says_is_done() -> None:
    assert isinstance(connect("redis://127.0.0.1:1/3"), Redis)
    assert isinstance(connect("unix:///tmp/none.sock?db=2"), Redis)
    assert isinstance(connect("redis://127.0.0.1:1?cluster=true"), RedisCluster)
    assert isinstance(connect("redis://127.0.0.1:1?cluster=false"), Redis)
    with pytest.raises(InvalidConfig, match="'http://x' is not a usable Redis URL"):
        connect("http://x")
    with pytest.raises(InvalidConfig, match="not a usable Redis URL"):
        connect("redis://127.0.0.1:port")


@pytest.mark.parametrize("size", [1, 20_000, 3_000_000])
async def test_commands_of_any_length_arrive(redis_url: str, size: int) -> None:
    """Short ones are written without redis-py's bound on how long that may take."""
    client: Redis = connect(redis_url, timeout=5.0)  # type: ignore[assignment]
    values = await asyncio.gather(*[client.execute_command("ECHO", bytes([n]) * size) for n in range(8)])
    assert values == [bytes([n]) * size for n in range(8)]
    await client.aclose()
