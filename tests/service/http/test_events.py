"""POST /v1/events: what is accepted, what is not, and what a repeat does."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from bundles import DAY
from service_running import NOW, Shop, ids

BUY = {"type": "purchase", "customer_id": "c1", "article_id": "a003"}


async def test_one_event_or_an_array(shop: Shop) -> None:
    assert await shop.tell(BUY) == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert await shop.tell([BUY, BUY]) == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert await shop.tell([]) == {"accepted": 0, "duplicates": 0, "rejected": []}


async def test_a_repeat_changes_nothing(shop: Shop) -> None:
    event = BUY | {"event_id": "e1"}
    await shop.tell(event)
    before = (await shop.http.get("/v1/customers/c1")).json()
    assert await shop.tell([event, event]) == {"accepted": 0, "duplicates": 2, "rejected": []}
    assert (await shop.http.get("/v1/customers/c1")).json() == before


async def test_the_sound_ones_count_beside_the_others(shop: Shop) -> None:
    answer = await shop.tell(
        [
            BUY | {"article_id": "nothing-here"},
            BUY | {"event_id": "e2"},
            BUY | {"type": "wink"},
            "not an event",
            BUY | {"timestamp": NOW + 2 * DAY},
            {"type": "search", "customer_id": "c1"},
        ]
    )
    assert answer["accepted"] == 1
    rejected = [(each["index"], each["error"]["type"], each["error"].get("field")) for each in answer["rejected"]]
    assert rejected == [
        (0, "unknown_article", "article_id"),
        (2, "invalid_event", "type"),
        (3, "invalid_event", None),
        (4, "timestamp_in_future", "timestamp"),
        (5, "invalid_event", "query"),
    ]


async def test_a_rejected_event_may_come_again_under_its_id(shop: Shop) -> None:
    event = BUY | {"event_id": "e1", "article_id": "new"}
    assert (await shop.tell(event))["rejected"][0]["error"]["type"] == "unknown_article"
    await shop.put({"article_id": "new", "title": "New", "category": "dress"})
    assert (await shop.tell(event))["accepted"] == 1


async def test_order_of_arrival_does_not_matter(shop: Shop) -> None:
    events = [
        {
            "type": "purchase",
            "customer_id": "X",
            "article_id": f"a{10 + i:03}",
            "timestamp": NOW - i * DAY,
            "event_id": f"{i}",
        }
        for i in range(5)
    ]
    for event in events:
        await shop.tell(event | {"customer_id": "late"})
    await shop.tell([event | {"customer_id": "sorted"} for event in reversed(events)])
    late, in_order = await shop.recommend("late", n=200), await shop.recommend("sorted", n=200)
    assert ids(late) == ids(in_order)
    assert [a["score"] for a in late["articles"]] == pytest.approx([a["score"] for a in in_order["articles"]], abs=1e-4)


async def test_an_article_that_was_deleted_can_still_be_returned(shop: Shop) -> None:
    await shop.tell(BUY)
    assert (await shop.http.delete("/v1/articles/a003")).status_code == 204
    assert (await shop.tell(BUY | {"type": "return"}))["accepted"] == 1
    assert (await shop.http.get("/v1/customers/c1")).json()["history"] == []


BODIES = [
    (b"{", 400, "malformed_json"),
    (b"", 400, "malformed_json"),
    (b'{"type": "\xff"}', 400, "malformed_json"),
    (b'[{"timestamp": NaN}]', 400, "malformed_json"),
    (b"[" * 100_000 + b"]" * 100_000, 400, "malformed_json"),
    (b'"purchase"', 422, "invalid_request"),
    (b"null", 422, "invalid_request"),
    (b"[" + b",".join([b"{}"] * 1001) + b"]", 422, "invalid_request"),
]


async def test_bodies_that_are_no_events(shop: Shop) -> None:
    for body, status, kind in BODIES:
        response = await shop.http.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status, body[:40]
        assert response.json()["error"]["type"] == kind, body[:40]


async def test_any_value_in_any_field_is_answered(shop: Shop) -> None:
    values: list[Any] = [{"deep": {"er": []}}, [1, [2]], 10**30, True, "", "\ud800", "x" * 200, None]
    for field, value in product(("customer_id", "article_id", "type"), values):
        body = json.dumps([BUY | {field: value}])
        response = await shop.http.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        if "\\ud800" in body:
            assert response.status_code == 400
        else:
            assert response.status_code == 200, body
            assert len(response.json()["rejected"]) == 1, body


async def test_only_json_is_taken(shop: Shop) -> None:
    response = await shop.http.post("/v1/events", content=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert response.json()["error"]["type"] == "unsupported_media_type"
