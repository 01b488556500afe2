"""GET and DELETE /v1/customers/{id}: everything that is stored, and nothing once it is erased."""

from __future__ import annotations

from bundles import DAY
from service_running import NOW, Shop, ids


async def test_all_that_is_stored_is_shown(shop: Shop) -> None:
    about = {"customer_id": "c1"}
    bought = about | {"type": "purchase"}
    await shop.tell(
        [
            bought | {"event_id": "p1", "article_id": "a003", "timestamp": NOW - 3 * DAY, "order_id": "o1"},
            bought | {"event_id": "p2", "article_id": "a004", "timestamp": NOW - 2 * DAY},
            about | {"event_id": "r1", "type": "return", "article_id": "a003", "timestamp": NOW - DAY},
            about | {"event_id": "s1", "type": "search", "query": "red dress", "timestamp": NOW - 60},
            about | {"event_id": "k1", "type": "click", "article_id": "a005", "timestamp": NOW, "position": 2},
        ]
    )
    shown = (await shop.http.get("/v1/customers/c1")).json()
    assert [event["event_id"] for event in shown["events"]] == ["p1", "p2", "r1"]
    assert [purchase["event_id"] for purchase in shown["history"]] == ["p2"]
    assert shown["returned"] == ["a003"]
    assert [(event["event_id"], event["query"], event["position"]) for event in shown["session"]] == [
        ("s1", "red dress", None),
        ("k1", None, 2),
    ]
    assert shown["events"][0]["timestamp"] == "2026-05-28T20:26:40Z"
    state = shown["state"]
    assert state["bundle"].startswith("test-1@")
    assert (state["consumed"], state["pending"]["event_id"], state["skipped"]) == (0, "p2", [])


async def test_a_customer_of_clicks_alone_is_known(shop: Shop) -> None:
    await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a003"})
    shown = (await shop.http.get("/v1/customers/c1")).json()
    assert shown["state"] is None
    assert shown["history"] == []


async def test_erasing_leaves_nothing(shop: Shop) -> None:
    await shop.buy("c1", "a003")
    await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a004"})
    nobody = await shop.recommend("nobody", n=200)
    for _ in range(2):  # the second time there is nothing to erase, which is no error
        assert (await shop.http.delete("/v1/customers/c1")).status_code == 204
    assert (await shop.http.get("/v1/customers/c1")).status_code == 404
    assert ids(await shop.recommend("c1", strategy="style", n=200)) == ids(
        await shop.recommend("nobody", strategy="style", n=200)
    )
    assert len(nobody["articles"]) == 60
