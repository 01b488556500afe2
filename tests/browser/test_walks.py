"""Every view of the lookbook is reached, holds what it should, can be used by everybody, and fits its window."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from browser.lookbook import Lookbook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)


def test_a_customer_is_chosen_with_the_keyboard(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("customers")
    expect(lookbook.heading).to_have_text("Whose lookbook?")
    box = page.get_by_role("combobox", name="Customer")
    box.focus()
    box.press_sequentially("c00000")
    expect(page.get_by_role("listbox", name="Customers")).to_be_visible()
    expect(lookbook.offered.first).to_contain_text("c00000")
    lookbook.looked_at("choosing")
    box.press("ArrowDown")
    box.press("ArrowDown")
    option = page.get_by_role("listbox").get_by_role("option", selected=True)
    chosen = option.inner_text()
    expect(box).to_have_attribute("aria-activedescendant", option.get_attribute("id") or "none")
    box.press("Enter")
    expect(lookbook.heading).to_have_text(chosen)
    expect(lookbook.heading).to_be_focused()
    expect(box).to_have_value(chosen)
    expect(page).to_have_title(f"{chosen} · Customers · Modiste lookbook")


@ON_DESKTOP
def test_what_is_typed_is_given_up_with_escape_and_a_customer_pointed_at(page: Page, lookbook: Lookbook) -> None:
    chosen, other = lookbook.shop.customers[1], lookbook.shop.customers[2]
    lookbook.open("customers", chosen)
    box = page.get_by_role("combobox", name="Customer")
    box.fill(other)
    expect(lookbook.offered).to_have_count(1)
    box.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    box.press("Escape")
    expect(box).to_have_value(chosen)
    box.fill(other)
    lookbook.offered.click()
    expect(lookbook.heading).to_have_text(other)


def test_someone_new_begins_with_what_sells(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("customers")
    page.get_by_role("button", name="Someone new").click()
    expect(lookbook.heading).to_have_text(re.compile("^new-"))
    expect(page.get_by_text("Nothing bought yet")).to_be_visible()
    expect(lookbook.recommended).to_have_count(24)
    lookbook.looked_at("someone-new")


def test_a_customer_is_shown(page: Page, lookbook: Lookbook) -> None:
    customer = lookbook.shop.customers[0]
    lookbook.open("customers", customer)
    expect(lookbook.heading).to_have_text(customer)
    expect(lookbook.recommended).to_have_count(24)
    expect(lookbook.timeline).to_have_count(min(60, len(lookbook.stored(customer)["history"])))
    lookbook.looked_at("customer")


def test_taste_is_shown(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("taste", lookbook.shop.customers[0])
    expect(page.locator(".step.last")).to_be_visible()
    expect(lookbook.grid("Recommendations at that time")).to_have_count(24)
    lookbook.looked_at("taste")


def test_generation_is_shown(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("generation", lookbook.shop.customers[0])
    expect(page.get_by_role("heading", name="The prompt")).to_be_visible()
    expect(page.locator("#prompt-text")).to_be_visible()
    lookbook.looked_at("generation")


def test_articles_are_found_and_one_is_opened(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("articles")
    found = lookbook.grid("Articles found")
    expect(found.first).to_be_visible()
    lookbook.looked_at("articles")
    page.get_by_label("Words").fill(lookbook.shop.queries[0])
    page.locator("#find").get_by_role("button", name="Search").click()
    lookbook.whole()
    article_id = found.first.get_attribute("data-article") or ""
    found.first.get_by_role("link").click()
    expect(lookbook.heading).to_have_text(lookbook.shop.articles[article_id].title)
    expect(lookbook.grid("Similar articles").first).to_be_visible()
    lookbook.looked_at("article")


def test_operations_show_the_report_in_a_frame(page: Page, lookbook: Lookbook) -> None:
    lookbook.answered(lookbook.shop.customers[0])
    lookbook.open("operations")
    for name in ("Latency of recommendations by stage", "Requests", "Live bundle", "How it was evaluated"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    lookbook.looked_at("operations")
    page.get_by_role("button", name="Show the report").click()
    report = page.frame_locator("iframe[title^='Evaluation report']")
    expect(report.get_by_role("heading", level=1)).to_be_visible()
    report.get_by_role("heading", level=1).scroll_into_view_if_needed()
    lookbook.looked_at("report")
    page.get_by_role("button", name="Hide the report").click()
    expect(page.locator("iframe")).to_have_count(0)


def test_operations_draw_what_is_asked_while_they_are_seen(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("operations")
    latency = page.locator("#latency")
    words = latency.locator("#recent")
    expect(words).to_have_text(re.compile("In the last . seconds 0 recommendations"), timeout=20_000)
    expect(latency.locator("canvas")).to_have_count(0)
    for customer_id in lookbook.shop.customers[:6]:
        lookbook.answered(customer_id)
    expect(latency.locator("canvas")).to_be_visible(timeout=20_000)
    chart = latency.get_by_role("img")
    expect(chart).to_have_attribute("aria-label", re.compile(r"Line chart of \d+ readings?\. In the last"))
    told = re.compile(r"In the last \d+ seconds [1-9]\d* recommendations?: p50 .+ ms")
    for _ in range(30):  # one for each second, so that no reading is without
        if told.search(words.inner_text()):
            break
        lookbook.answered(lookbook.shop.customers[0])
        page.wait_for_timeout(1_000)
    expect(words).to_have_text(told)
    words.scroll_into_view_if_needed()
    lookbook.looked_at("latency")
    page.set_viewport_size({"width": 600, "height": 900})
    lookbook.looked_at("latency-narrower")
    lookbook.open("articles")
    page.wait_for_timeout(6_000)  # in which the view that was left would have been brought up to date


@pytest.mark.parametrize("view", ["taste", "generation"])
def test_views_of_customers_let_one_be_chosen_and_keep_them(page: Page, lookbook: Lookbook, view: str) -> None:
    lookbook.open(view)
    expect(lookbook.heading).to_have_text(f"Whose {view}?")
    lookbook.looked_at(f"whose-{view}")
    one = page.locator("#some-customers a").first
    chosen = one.inner_text()
    one.click()
    expect(page).to_have_url(f"{lookbook.shop.url}/#/{view}/{chosen}")
    expect(lookbook.heading).to_have_text(chosen)
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Customers").click()
    expect(lookbook.heading).to_have_text(chosen)


@ON_DESKTOP
def test_going_back_shows_what_was_shown(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    lookbook.open("articles")
    page.go_back()
    expect(lookbook.heading).to_have_text(newcomer)
    expect(page.get_by_role("link", name="Customers")).to_have_attribute("aria-current", "page")


@ON_DESKTOP
@pytest.mark.parametrize("view", ["customers", "taste", "generation", "operations"])
def test_everybody_can_use_it_at_night(page: Page, lookbook: Lookbook, view: str) -> None:
    page.emulate_media(color_scheme="dark")
    lookbook.open(view, None if view == "operations" else lookbook.shop.customers[0])
    lookbook.looked_at(f"night-{view}")


@ON_DESKTOP
def test_the_page_itself_is_small(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("customers")
    sent = page.evaluate("""performance.getEntries()
        .filter(({entryType, name}) => entryType === "navigation" || name.includes("/lookbook/assets/"))
        .map(({transferSize}) => transferSize)""")
    assert len(sent) > 1
    assert min(sent) > 0
    assert sum(sent) < 300_000
