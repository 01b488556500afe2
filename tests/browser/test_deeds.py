"""What a customer does changes what they are recommended, on the page as in the service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from browser.lookbook import SHOWN, Lookbook, encoded, hold, ids, purchases
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)
MOVED = r"\d+ new, \d+ moved, \d+ gone\."


def test_a_purchase_leaves_the_list_and_ends_the_history(lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    before = ids(lookbook.recommended)
    bought = lookbook.act("Buy", place=2)
    title = lookbook.shop.articles[bought].title
    lookbook.has_read(f"Bought {title}: ")
    expect(lookbook.status).to_have_text(re.compile(MOVED))
    assert ids(lookbook.timeline)[-1] == bought
    shown = ids(lookbook.recommended)
    assert (len(shown), bought in before, bought in shown) == (SHOWN, True, False)
    assert shown == lookbook.answered(newcomer)
    assert [purchase["article_id"] for purchase in lookbook.stored(newcomer)["history"]] == [bought]
    lookbook.looked_at("bought")


@ON_DESKTOP
def test_a_purchase_comes_behind_all_others(lookbook: Lookbook, newcomer: str) -> None:
    others = list(lookbook.shop.articles)[:3]
    lookbook.tell(*purchases(newcomer, others))
    lookbook.open("customers", newcomer)
    assert ids(lookbook.timeline) == others
    bought = lookbook.act("Buy")
    lookbook.has_read("Bought")
    assert ids(lookbook.timeline) == [*others, bought]


@ON_DESKTOP
def test_cards_say_how_far_they_moved(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    before = ids(lookbook.recommended)
    lookbook.act("Buy")
    lookbook.has_read("Bought")
    after = ids(lookbook.recommended)
    rises = [before.index(each) - place if each in before else None for place, each in enumerate(after)]
    badges = ["new" if rise is None else f"▲{rise}" if rise > 0 else f"▼{-rise}" if rise else "" for rise in rises]
    shown = lookbook.recommended.locator(".badge").all_inner_texts()
    assert [text.partition("\n")[0] for text in shown] == badges
    assert set(ids(page.locator("#gone li"))) == set(before) - set(after)
    expect(lookbook.status).to_contain_text(f"{badges.count('new')} new, ")


@ON_DESKTOP
def test_a_click_counts_for_who_bought_nothing(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    clicked = lookbook.act("Click", place=3)
    title = lookbook.shop.articles[clicked].title
    lookbook.has_read(f"Clicked {title}: ")
    expect(page.locator("#session li").first).to_contain_text(f"clicked {title}")
    expect(lookbook.recommended.locator("[data-source=session]").first).to_be_visible()
    assert ids(lookbook.recommended) == lookbook.answered(newcomer)
    (event,) = lookbook.stored(newcomer)["session"]
    assert (event["type"], event["article_id"]) == ("click", clicked)


def test_a_search_is_stored_and_the_list_leans_to_it(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    query = lookbook.shop.queries[0]
    lookbook.open("customers", newcomer)
    before = ids(lookbook.recommended)
    page.get_by_label("Search as this customer").fill(query)
    page.get_by_role("search").get_by_role("button", name="Search").click()
    lookbook.has_read(f"Searched for “{query}”: ")
    expect(page.locator("#session li").first).to_contain_text(f"searched for “{query}”")
    expect(lookbook.recommended.locator("[data-source=generated]").first).to_be_visible()
    shown = ids(lookbook.recommended)
    assert shown == lookbook.answered(newcomer, query=query)
    assert shown != before
    (event,) = lookbook.stored(newcomer)["session"]
    assert (event["type"], event["query"]) == ("search", query)
    lookbook.looked_at("searched")


@ON_DESKTOP
def test_a_return_leaves_the_history_and_stays_out(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    returned, kept = lookbook.answered(newcomer, n=2)
    lookbook.tell(*purchases(newcomer, [returned, kept]))
    lookbook.open("customers", newcomer)
    lookbook.timeline.first.get_by_role("button", name="Return").click()
    lookbook.has_read(f"Returned {lookbook.shop.articles[returned].title}: ")
    assert ids(lookbook.timeline) == [kept]
    assert ids(page.locator("#returned li")) == [returned]
    stored = lookbook.stored(newcomer)
    assert [purchase["article_id"] for purchase in stored["history"]] == [kept]
    assert stored["returned"] == [returned]
    page.reload()
    lookbook.whole()
    assert ids(page.locator("#returned li")) == [returned]
    assert returned not in [*ids(lookbook.timeline), *ids(lookbook.recommended), *lookbook.answered(newcomer, n=200)]


@ON_DESKTOP
def test_what_was_known_earlier_does_not_return_when_it_comes_late(
    page: Page, lookbook: Lookbook, newcomer: str
) -> None:
    lookbook.open("customers", newcomer)
    late = hold(page, re.compile(r"/lookbook/customers/[^/?]+$"))
    bought = [lookbook.act("Buy")]
    lookbook.has_read("Bought")
    known = lookbook.shop.service.get(f"/lookbook/customers/{encoded(newcomer)}")[1]
    bought.append(lookbook.act("Buy"))
    expect(lookbook.timeline).to_have_count(2)
    late[0].fulfill(json=known)
    expect(page.locator("#calls .latest")).to_contain_text(f"/lookbook/customers/{newcomer} ")
    assert sorted(ids(lookbook.timeline)) == sorted(bought)
