"""What the page is told of customers."""

from __future__ import annotations

import numpy as np
from bundles import DAY
from service_running import NOW, Shop

from .asking import ask


async def test_of_somebody_new_there_is_just_nothing_yet(shop: Shop) -> None:
    empty = {"history": [], "returned": [], "session": []}
    assert await ask(shop, "/customers/nobody") == {"customer_id": "nobody", **empty}
    (point,) = (await ask(shop, "/customers/nobody/path"))["points"]
    assert (point["article"], point["timestamp"]) == (None, None)


async def test_what_a_customer_did_is_shown_with_its_articles(shop: Shop) -> None:
    await shop.buy("ann", "a003", timestamp=NOW - 9 * DAY, order_id="o1")
    await shop.buy("ann", "a005", timestamp=NOW - 2 * DAY)
    await shop.buy("ann", "a007", timestamp=NOW - DAY)
    await shop.tell({"type": "return", "customer_id": "ann", "article_id": "a005"})
    await shop.tell({"type": "search", "customer_id": "ann", "query": "red dress", "timestamp": NOW - 60})
    await shop.tell({"type": "click", "customer_id": "ann", "article_id": "a011"})
    await shop.stock("a007", 0)
    shown = await ask(shop, "/customers/ann")
    assert [(each["article"]["article_id"], each["order_id"]) for each in shown["history"]] == [
        ("a003", "o1"),
        ("a007", None),
    ]
    assert [each["article_id"] for each in shown["returned"]] == ["a005"]
    assert [(each["type"], each["query"]) for each in shown["session"]] == [("search", "red dress"), ("click", None)]
    bought, sold_out = (each["article"] for each in shown["history"])
    assert (bought["quantity"], bought["in_stock"], bought["live"]) == (None, True, True)
    assert (sold_out["quantity"], sold_out["in_stock"]) == (0, False)


async def test_an_article_that_was_deleted_stays_in_the_history(shop: Shop) -> None:
    await shop.buy("ann", "a003")
    assert (await shop.http.delete("/v1/articles/a003")).status_code == 204
    (entry,) = (await ask(shop, "/customers/ann"))["history"]
    assert (entry["article"]["article_id"], entry["article"]["live"]) == ("a003", False)


async def test_customers_are_found_by_what_their_ids_hold_those_that_begin_with_it_first(shop: Shop) -> None:
    for name in ("Ann", "annika", "Joann", "bob", "a/b é"):
        await shop.buy(name, "a001")
    assert await ask(shop, "/customers", q="ann") == {"customers": ["Ann", "annika", "Joann"], "complete": True}
    assert await ask(shop, "/customers", q="ANN", n=2) == {"customers": ["Ann", "annika"], "complete": False}
    assert await ask(shop, "/customers", q="b é") == {"customers": ["a/b é"], "complete": True}
    assert await ask(shop, "/customers", q="nobody") == {"customers": [], "complete": True}
    assert len((await ask(shop, "/customers"))["customers"]) == 5


async def test_the_path_has_a_point_for_each_purchase_and_one_before(shop: Shop) -> None:
    bought = ["a003", "a011", "a020"]
    for days, article_id in zip((9, 5, 2), bought, strict=True):
        await shop.buy("ann", article_id, timestamp=NOW - days * DAY)
    path = await ask(shop, "/customers/ann/path")
    assert [point["article"] and point["article"]["article_id"] for point in path["points"]] == [None, *bought]
    assert path["at"] == NOW
    earlier = await ask(shop, "/customers/ann/path", at=NOW - 4 * DAY)
    assert [point["article"] and point["article"]["article_id"] for point in earlier["points"]] == [None, *bought[:2]]
    places = np.array([[point["x"], point["y"]] for point in path["points"]])
    assert len(np.unique(places.round(6), axis=0)) == 4
    np.testing.assert_allclose(places[:2], [[point["x"], point["y"]] for point in earlier["points"]][:2], atol=1e-5)


async def test_the_path_of_a_long_history_is_that_of_its_latest_purchases(shop: Shop) -> None:
    events = [
        {"type": "purchase", "customer_id": "ann", "article_id": f"a{i % 60:03d}", "timestamp": NOW - (90 - i) * 3_600}
        for i in range(70)
    ]
    await shop.tell(events)
    points = (await ask(shop, "/customers/ann/path"))["points"]
    assert len(points) == 51
    assert points[-1]["article"]["article_id"] == "a009"


async def test_without_a_generating_half_there_is_a_reason_instead_of_a_generation(shop: Shop) -> None:
    await shop.buy("ann", "a003")
    answer = await ask(shop, "/customers/ann/generation")
    assert answer["available"] is False
    assert "no generating half" in answer["reason"]
    assert (answer["prompt"], answer["written"], answer["mixup"]) == (None, None, [])


async def test_bad_parameters_are_told_by_name(shop: Shop) -> None:
    for path, field in (
        ("/customers?n=0", "n"),
        ("/customers?foo=1", "foo"),
        ("/customers/ann/path?at=soon", "at"),
        ("/customers/ann/generation?query=%20", "query"),
    ):
        response = await shop.http.get(f"/lookbook{path}")
        assert (response.status_code, response.json()["error"]["field"]) == (422, field), path
