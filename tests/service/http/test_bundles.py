"""Bundles: listed, activated without a dropped request, shared by workers, and refused where they are damaged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest
from bundles import make_bundle
from service_running import Shop, ids, running, starting, until

from model_store.bundle import GOLDEN_ARRAYS, STYLE_LSTM, current_version, set_current
from service.catalogue.follower import CatalogueFollower
from service.log_lines import request_id
from service.settings import Settings


def damage(store: Path, version: str, name: str) -> None:
    file = store / version / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


async def test_bundles_are_listed(shop: Shop, store: Path) -> None:
    (store / "broken").mkdir()
    answer = (await shop.http.get("/v1/bundles")).json()
    assert answer["live"] == "test-1"
    listed = {each["version"]: each for each in answer["bundles"]}
    assert listed["test-1"]["live"] is True
    assert listed["test-2"]["live"] is False
    assert listed["test-2"]["data_set"]["name"] == "sample"
    assert "manifest.json: cannot be read" in listed["broken"]["error"]


async def test_a_switch_drops_no_request_and_mixes_no_bundles(shop: Shop, store: Path) -> None:
    for customer in ("c1", "c2"):
        await shop.buy(customer, "a003")
        await shop.buy(customer, "a011")
    old = {customer: await shop.recommend(customer, strategy="style", n=60) for customer in ("c1", "c2")}
    switched = False
    seen: list[dict[str, object]] = []

    async def ask(customer: str) -> None:
        while not switched:
            seen.append(await shop.recommend(customer, strategy="style", n=60))  # asserts 200
            await asyncio.sleep(0)

    asking = [asyncio.create_task(ask(customer)) for customer in ("c1", "c2", "c1")]
    response = await shop.http.post("/v1/bundles/test-2/activate")
    assert response.json() == {"bundle": "test-2", "articles": 60}
    new = {customer: await shop.recommend(customer, strategy="style", n=60) for customer in ("c1", "c2")}
    switched = True
    await asyncio.gather(*asking)
    assert new["c1"]["bundle"] == "test-2"
    assert new["c1"]["articles"] != old["c1"]["articles"]
    assert {answer["bundle"] for answer in seen} >= {"test-1"}
    for answer in seen:
        expected = old if answer["bundle"] == "test-1" else new
        assert answer["articles"] == expected[str(answer["customer_id"])]["articles"]
    assert current_version(store) == "test-2"


async def test_a_state_of_another_bundle_is_replayed(shop: Shop, settings: Settings) -> None:
    """What the new bundle says of an old customer is what it says of one it has known from the start."""
    await shop.buy("before", "a003", timestamp=1_779_000_000)
    await shop.buy("before", "a011", timestamp=1_779_500_000)
    await shop.http.post("/v1/bundles/test-2/activate")
    await shop.buy("after", "a003", timestamp=1_779_000_000)
    await shop.buy("after", "a011", timestamp=1_779_500_000)
    before, after = await shop.recommend("before", strategy="style"), await shop.recommend("after", strategy="style")
    assert ids(before) == ids(after)
    assert all(
        abs(one["score"] - other["score"]) < 1e-3
        for one, other in zip(before["articles"], after["articles"], strict=True)
    )
    shown = (await shop.http.get("/v1/customers/before")).json()
    assert shown["state"]["bundle"].startswith("test-2@")


async def test_articles_added_since_training_go_along(shop: Shop) -> None:
    await shop.put({"article_id": "new", "title": "New", "category": "dress"})
    await shop.stock("a003", 0)
    await shop.http.delete("/v1/articles/a004")
    await shop.http.post("/v1/bundles/test-2/activate")
    answer = await shop.recommend("nobody", n=200)
    assert answer["bundle"] == "test-2"
    assert "new" in ids(answer)
    assert not {"a003", "a004"} & set(ids(answer))
    await shop.put({"article_id": "newer", "title": "Newer", "category": "dress"})
    assert "newer" in ids(await shop.recommend("nobody", n=200))


async def test_a_damaged_bundle_is_refused_and_the_old_one_answers(shop: Shop, store: Path) -> None:
    damage(store, "test-2", STYLE_LSTM)
    response = await shop.http.post("/v1/bundles/test-2/activate")
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["type"] == "invalid_bundle"
    assert STYLE_LSTM in error["message"]
    assert (await shop.recommend("nobody"))["bundle"] == "test-1"
    assert current_version(store) == "test-1"


async def test_other_workers_follow(shop: Shop, settings: Settings) -> None:
    async with running(settings, filled=False) as other:
        await shop.put({"article_id": "new", "title": "New", "category": "dress"})
        await until(lambda: other.recommend("nobody", n=200), lambda answer: "new" in ids(answer))
        await shop.stock("new", 0)
        await until(lambda: other.recommend("nobody", n=200), lambda answer: "new" not in ids(answer))
        await shop.http.post("/v1/bundles/test-2/activate")
        await until(lambda: other.recommend("nobody"), lambda answer: answer["bundle"] == "test-2")


async def test_a_restarted_worker_serves_what_was_activated(shop: Shop, settings: Settings, store: Path) -> None:
    await shop.http.post("/v1/bundles/test-2/activate")
    async with running(settings, filled=False) as again:
        assert (await again.recommend("nobody"))["bundle"] == "test-2"


async def test_a_newly_published_bundle_goes_live(shop: Shop, store: Path) -> None:
    set_current(store, "test-2")
    await until(lambda: shop.recommend("nobody"), lambda answer: answer["bundle"] == "test-2")


async def test_not_ready_says_why(settings: Settings, store: Path) -> None:
    damage(store, "test-1", GOLDEN_ARRAYS)
    async with starting(settings) as shop:
        response = await until(
            lambda: shop.http.get("/readyz"), lambda response: GOLDEN_ARRAYS in response.json()["error"]["message"]
        )
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert (await shop.http.get("/livez")).status_code == 200
        assert (await shop.http.get("/v1/customers/c/recommendations")).json()["error"]["type"] == "not_ready"
        # An operator can still choose another one.
        assert (await shop.http.post("/v1/bundles/test-2/activate")).status_code == 200
        assert (await shop.http.get("/readyz")).status_code == 200


async def test_activating_twice_at_once_is_refused_or_done(shop: Shop, store: Path) -> None:
    make_bundle(store, version="test-3")
    answers = await asyncio.gather(
        *(shop.http.post(f"/v1/bundles/{version}/activate") for version in ("test-2", "test-3"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert {answer.json().get("error", {}).get("type") for answer in answers} == {None, "activation_in_progress"}


async def test_what_goes_on_after_an_activation_is_not_logged_under_its_id(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[bytes | None] = []
    run = CatalogueFollower.run

    async def watched(self: CatalogueFollower) -> NoReturn:
        ids.append(request_id.get())
        await run(self)

    monkeypatch.setattr(CatalogueFollower, "run", watched)
    await shop.http.post("/v1/bundles/test-2/activate", headers={"X-Request-ID": "activation"})
    await asyncio.sleep(0)
    assert ids == [None]
