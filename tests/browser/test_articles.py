"""Articles are found, opened, added and sold out, and the recommendations follow at once."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from browser.lookbook import AT_REST, Lookbook, encoded, hold, ids
from browser.looking import Faults
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from browser.sample_shop import Shop
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)
CATEGORY = "cape"
"""No other article is of it: whatever is recommended of it, a test has added."""
_numbers = count(1)


@pytest.fixture
def own(shop: Shop) -> Iterator[str]:
    """The id of an article that a test may add; it is taken away again. It must be percent-encoded in paths."""
    article_id = f"own/é {next(_numbers)}"
    yield article_id
    shop.service.call(address(article_id), method="DELETE")


@pytest.fixture
def cape(shop: Shop, own: str) -> str:
    """An article that is there, of a category of its own."""
    article = {"article_id": own, "title": "Felt cape in red", "category": CATEGORY, "colour": "red", "price": 80}
    assert shop.service.call("/v1/articles", [article], "PUT")[1]["accepted"] == 1
    return own


def test_an_article_is_recommended_while_it_is_in_stock(
    page: Page, lookbook: Lookbook, newcomer: str, cape: str
) -> None:
    lookbook.open("customers", newcomer)
    lookbook.open("articles", cape)
    expect(lookbook.heading).to_have_text("Felt cape in red")
    expect(page.get_by_text(f"1st among all 1 in stock of “{CATEGORY}”")).to_be_visible()
    set_stock(page, 0)
    expect(page.locator("#stock-status")).to_have_text(re.compile("^Saved: out of stock"))
    expect(page.get_by_text(f"Not among all 0 in stock of “{CATEGORY}”")).to_be_visible()
    assert recommended(lookbook, newcomer) == []
    set_stock(page, 5)
    expect(page.locator("#stock-status")).to_have_text(re.compile("^Saved: 5 in stock"))
    expect(page.get_by_text(f"1st among all 1 in stock of “{CATEGORY}”")).to_be_visible()
    assert recommended(lookbook, newcomer) == [cape]


@ON_DESKTOP
def test_who_is_chosen_buys_an_article_where_it_is_shown(
    page: Page, lookbook: Lookbook, newcomer: str, cape: str
) -> None:
    lookbook.open("customers", newcomer)
    lookbook.open("articles", cape)
    page.get_by_role("button", name=f"Buy as {newcomer}").click()
    page.get_by_role("link", name="See what that changed").click()
    expect(lookbook.timeline).to_have_count(1)
    assert ids(lookbook.timeline) == [cape]
    lookbook.whole()


def test_an_added_article_is_shown_with_its_picture_and_recommended(
    page: Page, lookbook: Lookbook, newcomer: str, own: str
) -> None:
    lookbook.open("customers", newcomer)
    lookbook.open("articles")
    describe(page, own, price="49.90")
    page.get_by_label("Picture", exact=True).set_input_files(
        {"name": "cape.png", "mimeType": "image/png", "buffer": png()}
    )
    expect(page.locator("#photo-note")).to_have_text(re.compile(r"^\d+ KB are sent"))
    lookbook.looked_at("adding")
    page.get_by_role("button", name="Add article").click()
    expect(page.get_by_role("heading", name="Added")).to_be_focused()
    expect(page.locator("#added").get_by_text("1st among all 1")).to_be_visible()
    expect(lookbook.grid("Similar articles").first).to_be_visible()
    lookbook.looked_at("added")
    assert recommended(lookbook, newcomer) == [own]
    page.locator("#added-link").click()
    expect(lookbook.heading).to_have_text("Felt cape")
    expect(page.locator("#stock-status")).to_have_text("Now: 10 in stock.")
    lookbook.whole()
    page.evaluate(AT_REST)
    assert width_of(page.locator(".article .picture")) == 128
    assert told_of(lookbook, own)["picture"] is True


def test_a_price_below_zero_is_not_sent(page: Page, lookbook: Lookbook, own: str) -> None:
    lookbook.open("articles")
    describe(page, own, price="-5")
    page.get_by_role("button", name="Add article").click()
    expect(page.get_by_label("Price", exact=True)).to_be_focused()
    expect(page.locator("#new-price:invalid")).to_be_visible()
    assert lookbook.shop.service.get(f"/lookbook/articles/{encoded(own)}")[0] == 404


def test_the_field_that_the_service_refuses_is_shown(page: Page, lookbook: Lookbook, own: str) -> None:
    lookbook.open("articles")
    describe(page, own, title="   ")
    page.get_by_role("button", name="Add article").click()
    title = page.get_by_label("Title", exact=True)
    expect(page.locator("#add-form").get_by_role("alert")).to_contain_text("title: Field required")
    expect(title).to_have_attribute("aria-invalid", "true")
    expect(title).to_be_focused()
    lookbook.looked_at("refused")
    title.fill("Felt cape")
    page.get_by_role("button", name="Add article").click()
    expect(page.locator("#added-link")).to_have_text("Felt cape")
    expect(page.locator("#add-form").get_by_role("alert")).to_have_count(0)
    expect(title).not_to_have_attribute("aria-invalid", "true")
    lookbook.whole()


@ON_DESKTOP
def test_a_file_that_is_no_picture_is_told(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("articles")
    file = {"name": "cape.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.get_by_label("Picture", exact=True).set_input_files(file)
    expect(page.get_by_text("This file is no picture that can be read here.")).to_be_visible()


def test_an_article_that_never_was_is_told(page: Page, lookbook: Lookbook, own: str, faults: Faults) -> None:
    faults.expect("404")
    lookbook.open("articles")
    page.get_by_label("Article id", exact=True).first.fill(own)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_text("There is no such article")).to_be_visible()
    lookbook.looked_at("no-such-article")


@ON_DESKTOP
def test_a_deleted_article_is_shown_as_one(page: Page, lookbook: Lookbook, cape: str) -> None:
    lookbook.shop.service.call(address(cape), method="DELETE")
    lookbook.open("articles", cape)
    expect(page.get_by_text("It is recommended no more")).to_be_visible()
    expect(page.get_by_role("button", name="Save stock")).to_have_count(0)
    lookbook.looked_at("deleted")


@ON_DESKTOP
def test_of_two_searches_the_later_is_shown(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("articles")
    category = page.locator("#find").get_by_label("Category")
    early = hold(page, "**/recommendations?*")
    category.select_option(index=1)
    category.select_option(index=2)
    expect(lookbook.grid("Articles found").first).to_be_visible()
    lookbook.whole()
    expect(page.locator("#calls .latest")).to_contain_text("/lookbook/articles")
    later = ids(lookbook.grid("Articles found"))
    early[0].continue_()
    expect(page.locator("#calls .latest")).to_contain_text("/recommendations")
    assert ids(lookbook.grid("Articles found")) == later


def describe(page: Page, article_id: str, title: str = "Felt cape", price: str = "") -> None:
    """Fill the form of a new article in."""
    page.get_by_label("Title", exact=True).fill(title)
    page.locator("#add-form").get_by_label("Article id").fill(article_id)
    page.locator("#add-form").get_by_label("Category", exact=True).select_option(label="Another …")
    page.get_by_label("Another category").fill(CATEGORY)
    page.get_by_label("Price", exact=True).fill(price)


def set_stock(page: Page, quantity: int) -> None:
    page.get_by_label("Stock", exact=True).fill(str(quantity))
    page.get_by_role("button", name="Save stock").click()


def recommended(lookbook: Lookbook, customer_id: str) -> list[str]:
    return lookbook.answered(customer_id, category=CATEGORY)


def told_of(lookbook: Lookbook, article_id: str) -> dict[str, Any]:
    """What the page is told of an article."""
    status, answer = lookbook.shop.service.get(f"/lookbook/articles/{encoded(article_id)}")
    assert status == 200, answer
    return dict(answer)


def width_of(picture: Locator) -> int:
    """Of what is shown, in pixels of the picture itself."""
    return int(picture.evaluate("({naturalWidth}) => naturalWidth"))


def address(article_id: str) -> str:
    return f"/v1/articles/{encoded(article_id)}"


def png() -> bytes:
    """A picture twice as high as wide, larger than what is sent."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 600), (140, 47, 57)).save(buffer, "PNG")
    return buffer.getvalue()
