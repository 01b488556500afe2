"""Where a key is asked for, the page asks before its first call, keeps the key in its tab and out of every address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from browser.lookbook import AT_REST, Lookbook
from browser.looking import Faults, watched
from browser.sample_shop import KEY, Shop
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

pytestmark = pytest.mark.browser

OPEN = re.compile(r"/(lookbook/assets/[^/]+)?")
"""What is asked for without a key: the page itself."""


@pytest.fixture
def guarded(page: Page, guarded_shop: Shop) -> Lookbook:
    return Lookbook(page, guarded_shop)


@pytest.fixture
def asked(page: Page) -> list[Request]:
    """All that the page asks for, from the beginning."""
    requests: list[Request] = []

    def note(request: Request) -> None:
        requests.append(request)

    page.on("request", note)
    return requests


def test_nothing_is_asked_for_without_a_key(page: Page, guarded: Lookbook, asked: list[Request]) -> None:
    guarded.go("customers")
    expect(page.get_by_role("dialog", name="This page needs a key")).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()
    guarded.looked_at_dialog("key")
    page.get_by_role("button", name="Not now").click()
    expect(page.get_by_text("An API key is needed").first).to_be_visible()
    guarded.looked_at("no-key")
    assert [request.url for request in asked if not OPEN.fullmatch(urlsplit(request.url).path)] == []
    page.get_by_role("button", name="Try again").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_the_key_is_sent_in_a_header_and_never_in_an_address(
    page: Page, guarded: Lookbook, asked: list[Request]
) -> None:
    guarded.go("customers", guarded.shop.customers[0])
    give(page, KEY)
    guarded.whole()
    guarded.recommended.first.scroll_into_view_if_needed()
    expect(guarded.recommended.first.locator("img")).to_have_attribute("src", re.compile("^blob:"))
    page.evaluate(AT_REST)
    assert guarded.recommended.first.locator("img").evaluate("({naturalWidth}) => naturalWidth") > 0
    guarded.looked_at("with-key")
    calls = [request for request in asked if urlsplit(request.url).path.startswith(("/v1/", "/lookbook/"))]
    closed = [request for request in calls if not OPEN.fullmatch(urlsplit(request.url).path)]
    assert closed
    assert all(request.headers.get("x-api-key") == KEY for request in closed)
    assert not [request.url for request in asked if KEY in request.url]
    assert KEY not in page.url


def test_a_wrong_key_is_asked_for_again_with_the_reason(page: Page, guarded: Lookbook, faults: Faults) -> None:
    faults.expect("401")
    guarded.go("customers", guarded.shop.customers[0])
    give(page, "a-key-that-nobody-knows")
    expect(page.locator("#key-problem")).to_contain_text("API key")
    guarded.looked_at_dialog("wrong-key")
    give(page, KEY)
    guarded.whole()
    expect(guarded.recommended.first).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("device", ["desktop"], indirect=True)
def test_the_key_is_known_in_its_tab_alone(page: Page, guarded: Lookbook, browser: Browser) -> None:
    guarded.go("operations")
    give(page, KEY)
    expect(page.get_by_role("heading", name="Requests", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Requests", exact=True)).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()
    with browser.new_context() as context, watched(context, Faults()) as elsewhere:
        Lookbook(elsewhere, guarded.shop).go("operations")
        expect(elsewhere.get_by_role("dialog")).to_be_visible()


@pytest.mark.parametrize("device", ["desktop"], indirect=True)
def test_the_report_is_saved_where_a_frame_could_not_send_a_key(page: Page, guarded: Lookbook) -> None:
    guarded.go("operations")
    give(page, KEY)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the report").click()
    assert download.value.suggested_filename == "evaluation-report.html"
    assert "<h1>" in download.value.path().read_text()


def give(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
