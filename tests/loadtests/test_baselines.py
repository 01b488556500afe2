"""loadtests.baselines: they recommend what the service recommends, so that their speeds can be compared."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
from bundles import make_bundle
from redis.asyncio import Redis
from redis_server import redis_url
from service_running import Clock, ids, running

from loadtests.baselines import BareTrial, PlainStack, create_app
from model_store.dataset import DataSet
from service.bench import parts
from service.bench.world import make_world
from service.settings import Settings

__all__ = ["redis_url"]

NOW = 1_790_000_000


async def test_baselines_recommend_the_same_articles(tmp_path: Path, redis_url: str) -> None:
    world = make_world(make_bundle(tmp_path / "live"), tmp_path / "world", articles=300, customers=40, now=NOW)
    await asyncio.to_thread(parts.measure_backfill, world, redis_url)
    data = DataSet.open(world.data)
    known = sorted(set(data.purchases().customer_ids))
    clock = Clock(NOW + 86_400)
    nearly_same = []
    async with Redis.from_url(redis_url) as redis:
        stacks = [kind(world.bundle, data, world.dna, redis, clock) for kind in (PlainStack, BareTrial)]
        async with (
            httpx2.AsyncClient(transport=httpx2.ASGITransport(create_app(stacks[0])), base_url="http://plain") as plain,
            httpx2.AsyncClient(transport=httpx2.ASGITransport(create_app(stacks[1])), base_url="http://bare") as bare,
            running(Settings(store=world.store, redis_url=redis_url), filled=False, clock=clock) as shop,
        ):
            for customer in known:
                path = f"/v1/customers/{customer}/recommendations"
                answer = (await plain.get(path)).json()
                expected = await shop.recommend(customer, strategy="style")
                assert ids(answer) == ids(expected)
                for ours, theirs in zip(answer["articles"], expected["articles"], strict=True):
                    assert ours.pop("explain") is None
                    assert abs(ours.pop("score") - theirs.pop("score")) < 1e-3
                    assert ours == theirs
                nearly = (await bare.get(path)).json()
                assert nearly.keys() == expected.keys()
                assert nearly["articles"][0].keys() == theirs.keys() | {"score"}
                nearly_same.append(len({*ids(nearly)} & {*ids(expected)}))
            assert len((await plain.get("/v1/customers/nobody/recommendations")).json()["articles"]) == 20
    assert sum(nearly_same) > 0.95 * 20 * len(known)
