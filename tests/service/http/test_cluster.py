"""The whole application on a Redis Cluster of three nodes: the keys of a call that are used together lie together."""

from __future__ import annotations

from pathlib import Path

from bundles import make_bundle
from redis_server import cluster_url as cluster_url  # noqa: PLC0414 - a fixture
from service_running import ids, running

from service.settings import Settings


async def test_everything_works_on_a_cluster(cluster_url: str, tmp_path: Path) -> None:
    make_bundle(tmp_path / "store", generating=True)
    settings = Settings(redis_url=cluster_url, store=tmp_path / "store", redis_timeout=5)
    async with running(settings) as shop, running(settings, filled=False) as other:
        customers = [f"customer {number}" for number in range(12)]
        bought = {customer: f"a{number:03}" for number, customer in enumerate(customers)}
        events = [{"type": "purchase", "customer_id": name, "article_id": article} for name, article in bought.items()]
        assert (await shop.tell(events))["accepted"] == len(events)
        await shop.tell([{"type": "click", "customer_id": name, "article_id": "a050"} for name in customers])
        for name, article in bought.items():
            for each in (shop, other):
                answer = await each.recommend(name, n=200)
                assert answer["degraded"] is False
                assert article not in ids(answer)
        assert (await shop.tell(events[0] | {"type": "return"}))["accepted"] == 1
        assert (await other.http.get("/v1/customers/customer 0")).json()["returned"] == ["a000"]
        await shop.stock("a030", 0)
        assert "a030" not in ids(await shop.recommend("customer 1", n=200))
        assert (await shop.http.delete("/v1/articles/a031")).status_code in {200, 204}
        for name in customers:
            assert (await other.http.delete(f"/v1/customers/{name}")).status_code == 204
            assert (await shop.http.get(f"/v1/customers/{name}")).status_code == 404
