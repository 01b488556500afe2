"""PUT and DELETE /v1/articles, PATCH /v1/stock, GET …/similar: what is written shows in the very next answer."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from bundles import sample_articles
from service_running import NOW, Shop, catalogue, ids, running

from model_store.article_table import load_articles
from model_store.bundle import open_bundle
from service.settings import Settings


async def test_a_new_article_with_a_picture_is_recommended_at_once(shop: Shop) -> None:
    """Its Fashion DNA comes from its record and picture: being the twin of the best one, it is second to none."""
    await shop.buy("c1", "a003")
    best = (await shop.recommend("c1", strategy="style", n=1))["articles"][0]
    twin = next(each for each in catalogue() if each["article_id"] == best["article_id"]) | {"article_id": "twin"}
    assert await shop.put(twin) == {"accepted": 1, "rejected": []}
    first, second = (await shop.recommend("c1", strategy="style", n=2))["articles"]
    assert {first["article_id"], second["article_id"]} == {best["article_id"], "twin"}
    assert first["score"] == pytest.approx(second["score"], abs=1e-3)
    assert first["score"] == pytest.approx(best["score"], abs=1e-3)


async def test_the_picture_counts(shop: Shop) -> None:
    """The same record with another picture has another Fashion DNA."""
    one, other = (each for each in catalogue()[:2])
    await shop.put(one | {"article_id": "x"}, one | {"article_id": "y", "image": other["image"]})
    found = (await shop.http.get("/v1/articles/x/similar", params={"n": 60})).json()["articles"]
    scores = {article["article_id"]: article["score"] for article in found}
    assert scores["a000"] == pytest.approx(1.0, abs=1e-4)
    assert scores["y"] < 0.999


async def test_a_picture_may_lie_under_the_image_root(settings: Settings, tmp_path: Path) -> None:
    one = sample_articles(1)[0]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(one.image or b"")
    (tmp_path / "secret.png").write_bytes(one.image or b"")
    async with running(settings.model_copy(update={"image_root": tmp_path / "pictures"})) as shop:
        record = catalogue(1)[0]
        answer = await shop.put(
            record | {"article_id": "x", "image": "one.png"}, record | {"article_id": "y", "image": "../secret.png"}
        )
        assert answer["accepted"] == 1
        assert [(each["index"], each["error"]["field"]) for each in answer["rejected"]] == [(1, "image")]
        found = (await shop.http.get("/v1/articles/x/similar", params={"n": 1})).json()["articles"]
        assert found[0]["article_id"] == "a000"
        assert found[0]["score"] == pytest.approx(1.0, abs=1e-4)
        shown = await shop.recommend("nobody", n=200)
        assert {article["article_id"]: article["image"] for article in shown["articles"]}["x"] == "one.png"


async def test_sound_articles_are_taken_beside_the_others(shop: Shop) -> None:
    answer = await shop.put(
        {"article_id": "n1", "title": "One", "category": "dress"},
        {"article_id": "n2", "title": "Two"},
        {"article_id": "n3", "title": "Three", "category": "dress", "price": -1},
        {
            "article_id": "n4",
            "title": "Four",
            "category": "dress",
            "image": base64.b64encode(b"no picture" * 9).decode(),
        },
        ["not an article"],  # type: ignore[arg-type]
        {"article_id": "n6", "title": "Six", "category": "dress", "colour": "\n"},
        {"article_id": "n7", "title": "Seven", "category": "dress", "fabric": "silk"},
    )
    assert answer["accepted"] == 2
    assert [(each["index"], each["error"]["field"]) for each in answer["rejected"] if "field" in each["error"]] == [
        (1, "category"),
        (2, "price"),
        (3, "image"),
        (6, "fabric"),
    ]
    assert {"n1", "n6"} <= set(ids(await shop.recommend("nobody", n=200)))


async def test_a_change_of_an_article_shows_at_once(shop: Shop) -> None:
    await shop.put({"article_id": "a003", "title": "Another", "category": "hat", "price": 5})
    answer = await shop.recommend("nobody", n=200, category="hat")
    assert [(article["article_id"], article["title"], article["price"]) for article in answer["articles"]] == [
        ("a003", "Another", 5.0)
    ]


async def test_a_deleted_article_leaves_every_answer_and_stays_in_histories(shop: Shop) -> None:
    await shop.buy("c1", "a003")
    before = await shop.recommend("c1", strategy="style", n=200)
    assert (await shop.http.delete("/v1/articles/a003")).status_code == 204
    assert (await shop.http.delete("/v1/articles/a003")).status_code == 404
    assert await shop.recommend("c1", strategy="style", n=200) == before  # what was bought still counts
    assert "a003" not in ids(await shop.recommend("nobody", n=200))
    assert (await shop.http.get("/v1/articles/a003/similar")).status_code == 404


async def test_stale_and_unknown_stock(shop: Shop) -> None:
    assert await shop.stock("a003", 0, set_time=NOW - 10) == {"accepted": 1, "rejected": []}
    assert await shop.stock("a003", 9, set_time=NOW - 20) == {"accepted": 1, "rejected": []}  # stale: ignored
    assert "a003" not in ids(await shop.recommend("nobody", n=200))
    assert await shop.stock("a003", 9, set_time="2026-05-31T20:26:40Z") == {"accepted": 1, "rejected": []}
    assert "a003" in ids(await shop.recommend("nobody", n=200))
    answer = await shop.stock("none", 1)
    assert answer["rejected"][0]["error"]["type"] == "unknown_article"
    assert (await shop.stock("a003", -1))["rejected"][0]["error"]["field"] == "quantity"


async def test_similar_is_brute_force_by_cosine(shop: Shop, store: Path) -> None:
    await shop.stock("a009", 0)
    found = (await shop.http.get("/v1/articles/a005/similar", params={"n": 200, "exclude": "a001"})).json()
    article_ids, _, dna = load_articles(open_bundle(store / "test-1"))
    unit = dna / np.linalg.norm(dna, axis=1, keepdims=True)
    expected = dict(zip(article_ids, (unit @ unit[5]).tolist(), strict=True))
    for left_out in ("a005", "a001", "a009"):
        del expected[left_out]
    scores = {article["article_id"]: article["score"] for article in found["articles"]}
    assert scores == pytest.approx(expected, abs=1e-4)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


async def test_similar_takes_filters_and_unusual_ids(shop: Shop) -> None:
    await shop.put(catalogue()[0] | {"article_id": "a/b {😀}"})
    found = (
        await shop.http.get("/v1/articles/a%2Fb%20%7B%F0%9F%98%80%7D/similar", params={"category": "dress"})
    ).json()
    assert found["article_id"] == "a/b {😀}"
    assert {article["category"] for article in found["articles"]} == {"dress"}
