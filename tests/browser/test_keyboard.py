"""All can be done with the keyboard alone, and its place is kept when the page is drawn anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser.lookbook import Lookbook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("device", ["desktop"], indirect=True)]

FOCUSED = "document.activeElement.ariaLabel || document.activeElement.innerText || document.activeElement.id"
LONGEST_WAY = 60
"""Times that Tab is pressed at most."""


def test_tab_leads_from_the_start_to_buying(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    way = walk(page, until="Buy")
    assert way[0] == "Skip to the page"
    views = ["Customers", "Taste", "Generation", "Articles", "Operations"]
    assert [each for each in way if each in views] == views
    page.keyboard.press("Enter")
    lookbook.has_read("Bought")
    expect(lookbook.timeline).to_have_count(1)
    expect(lookbook.status).to_be_focused()
    assert walk(page, until="Click")


def test_the_navigation_can_be_skipped(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(lookbook.heading).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('main').contains(document.activeElement)")


def test_focus_stays_on_what_was_pressed_while_it_is_there(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    walk(page, until="Click")
    page.keyboard.press("Enter")
    lookbook.has_read("Clicked")
    clicked = lookbook.stored(newcomer)["session"][0]["article_id"]
    button = f".cards [data-article='{clicked}'] [data-action=click]:focus"
    expect(page.locator(f"{button}, #moved:focus")).to_have_count(1)


def test_focus_stays_in_the_history_when_a_purchase_is_returned(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    lookbook.act("Buy")
    lookbook.has_read("Bought")
    lookbook.timeline.first.get_by_role("button", name="Return").press("Enter")
    expect(lookbook.status).to_contain_text("Returned")
    expect(lookbook.timeline).to_have_count(0)
    expect(lookbook.status).not_to_contain_text("language model")
    assert page.evaluate("document.getElementById('past').contains(document.activeElement)")


def test_a_view_that_was_chosen_begins_at_its_heading(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("customers")
    page.get_by_role("link", name="Operations").press("Enter")
    expect(lookbook.heading).to_have_text("Operations")
    expect(lookbook.heading).to_be_focused()


def walk(page: Page, until: str) -> list[str]:
    """Press Tab until what is focused begins with a word; all that was focused on the way."""
    way: list[str] = []
    while not (way and way[-1].startswith(until)):
        assert len(way) < LONGEST_WAY, way
        page.keyboard.press("Tab")
        way.append(page.evaluate(FOCUSED).strip())
    return way
