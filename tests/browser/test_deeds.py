"""What a customer does changes what they are recommended, on the page as in the service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from browser.lookbook import SHOWN, Lookbook, ids
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

MOVED = r"\d+ new, \d+ moved, \d+ gone\."


def test_a_purchase_leaves_the_list_and_ends_the_history(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    before = ids(lookbook.recommended)
    bought = lookbook.act("Buy", place=2)
    title = lookbook.shop.articles[bought].title
    expect(lookbook.status).to_contain_text(re.compile(f"^Bought {re.escape(title)}: {MOVED}"))
    expect(lookbook.timeline).to_have_count(1)
    expect(lookbook.timeline.last).to_have_attribute("data-article", bought)
    lookbook.has_read()
    shown = ids(lookbook.recommended)
    assert (len(shown), bought in before, bought in shown) == (SHOWN, True, False)
    stored = lookbook.stored(newcomer)
    assert [purchase["article_id"] for purchase in stored["history"]] == [bought]
    assert bought not in lookbook.answered(newcomer, n=200)
    lookbook.looked_at("bought")


def test_cards_say_how_far_they_moved(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    before = ids(lookbook.recommended)
    lookbook.act("Buy")
    lookbook.has_read()
    after = ids(lookbook.recommended)
    expected = {}
    for place, article_id in enumerate(after):
        rise = before.index(article_id) - place if article_id in before else None
        expected[article_id] = "new" if rise is None else f"▲{rise}" if rise > 0 else f"▼{-rise}" if rise else ""
    shown = lookbook.recommended.locator(".badge").all_inner_texts()
    assert [text.strip().split("\n")[0] for text in shown] == list(expected.values())
    assert sorted(ids(page.locator("#gone li"))) == sorted(set(before) - set(after))
