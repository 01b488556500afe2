"""What the page is told of articles, and their pictures."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image
from service_running import NOW, Shop, catalogue, running

from model_store.records import Article
from service.lookbook.pictures import DRAWN, picture_of
from service.settings import Settings

from .asking import ask

RECORD = {"article_id": "new/ä", "title": "Aster <red> dress", "category": "dress", "colour": "red", "price": 30.0}


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (6, 9), colour).save(out, "PNG")
    return out.getvalue()


async def test_cards_come_in_the_order_that_was_asked_for_with_stock_as_it_is_now(shop: Shop) -> None:
    await shop.stock("a002", 7)
    found = (await ask(shop, "/articles", id=["a005", "nothing", "a002", "a005"]))["articles"]
    assert [(each["article_id"], each["quantity"]) for each in found] == [("a005", None), ("a002", 7), ("a005", None)]
    assert (await ask(shop, "/articles"))["articles"] == []


async def test_all_that_is_known_of_an_article(shop: Shop) -> None:
    await shop.put(RECORD | {"image": base64.b64encode(png()).decode(), "materials": {"wool": 80.0, "silk": 20.0}})
    answer = await ask(shop, "/articles/new%2F%C3%A4")
    assert answer["article"]["materials"] == {"wool": 80.0, "silk": 20.0}
    assert (answer["article"]["title"], answer["created_at"]) == (RECORD["title"], NOW)
    assert (answer["quantity"], answer["in_stock"], answer["live"], answer["picture"]) == (None, True, True, True)
    assert set(answer["place"]) == {"x", "y"}


async def test_a_picture_is_what_was_sent_and_is_not_sent_twice(shop: Shop) -> None:
    content = png()
    await shop.put(RECORD | {"image": base64.b64encode(content).decode()})
    path = "/lookbook/articles/new%2F%C3%A4/picture"
    response = await shop.http.get(path)
    assert (response.content, response.headers["content-type"]) == (content, "image/png")
    assert response.headers["x-content-type-options"] == "nosniff"
    again = await shop.http.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    await shop.put(RECORD | {"image": base64.b64encode(png("blue")).decode()})
    changed = await shop.http.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert changed.content == png("blue")


async def test_without_a_picture_one_is_drawn(shop: Shop) -> None:
    await shop.put(RECORD | {"category": "<b>"})
    response = await shop.http.get("/lookbook/articles/new%2F%C3%A4/picture")
    assert response.headers["content-type"] == DRAWN
    assert b"&lt;" in response.content


async def test_an_unknown_article_is_told(shop: Shop) -> None:
    for path in ("/articles/nothing", "/articles/nothing/picture"):
        response = await shop.http.get(f"/lookbook{path}")
        assert (response.status_code, response.json()["error"]["type"]) == (404, "unknown_article")


@pytest.mark.parametrize("kept", [b"BM not for browsers", b"<svg onload=alert(1)>", b"RIFF1234WAVE"])
def test_what_is_no_picture_for_browsers_is_not_handed_to_one(kept: bytes) -> None:
    assert picture_of(Article(**RECORD), kept).media_type == DRAWN


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_pictures_are_told_by_their_first_bytes(kind: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, kind)
    found = picture_of(Article(**RECORD), out.getvalue())
    assert found == (out.getvalue(), f"image/{kind.lower()}")


async def test_the_shop_says_what_it_can_be_narrowed_by(shop: Shop) -> None:
    answer = await ask(shop, "/shop")
    assert (answer["bundle"], answer["generating"], answer["articles"]) == ("test-1", False, 60)
    categories = [record["category"] for record in catalogue()]
    assert set(answer["categories"]) == set(categories)
    counts = [sum(record["category"] == each for record in catalogue()) for each in answer["categories"]]
    assert counts == sorted(counts, reverse=True)
    for facet in ("brands", "colours", "genders"):
        assert isinstance(answer[facet], list)
    for record in catalogue():
        await shop.stock(record["article_id"], 0)
    assert (await ask(shop, "/shop"))["categories"] == []


async def test_the_map_shows_what_is_in_stock(shop: Shop) -> None:
    await shop.stock("a007", 0)
    answer = await ask(shop, "/map")
    assert "a007" not in {each["article_id"] for each in answer["articles"]}
    assert len(answer["articles"]) == 59
    assert sum(cluster["articles"] for cluster in answer["clusters"]) == 59
    assert all(cluster["label"] for cluster in answer["clusters"])
    assert all(abs(each["x"]) <= 1 and abs(each["y"]) <= 1 for each in answer["articles"])
    here = await ask(shop, "/articles/a001")
    (there,) = (each for each in answer["articles"] if each["article_id"] == "a001")
    assert (here["place"]["x"], here["place"]["y"]) == pytest.approx((there["x"], there["y"]), abs=1e-3)


async def test_a_shop_with_nothing_in_stock_has_an_empty_map(shop: Shop) -> None:
    for record in catalogue():
        await shop.stock(record["article_id"], 0)
    answer = await ask(shop, "/map")
    assert (answer["clusters"], answer["articles"]) == ([], [])
    assert len((await ask(shop, "/customers/nobody/path"))["points"]) == 1


async def test_every_worker_has_the_same_plane_whatever_is_in_stock(shop: Shop, settings: Settings) -> None:
    before = await ask(shop, "/map")
    for record in catalogue()[::2]:
        await shop.stock(record["article_id"], 0)
    async with running(settings, filled=False) as other:
        there = {each["article_id"]: each for each in (await ask(other, "/map"))["articles"]}
    assert len(there) == 30
    for each in before["articles"]:
        if each["article_id"] in there:
            assert (each["x"], each["y"]) == pytest.approx(
                (there[each["article_id"]]["x"], there[each["article_id"]]["y"]), abs=1e-3
            )
