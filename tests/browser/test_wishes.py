"""What is wished for (strategy, filters) is what the service is asked: the page shows its answer, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser.lookbook import SHOWN, Lookbook, ids
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)


@pytest.fixture
def customer(lookbook: Lookbook) -> str:
    """Somebody with a history whose page is open, and whom the language model has written for."""
    customer_id = lookbook.shop.customers[3]
    lookbook.write_for(customer_id)
    lookbook.open("customers", customer_id)
    return customer_id


@ON_DESKTOP
def test_each_strategy_shows_its_own_list(page: Page, lookbook: Lookbook, customer: str) -> None:
    lists = {"blended": lookbook.answered(customer)}
    assert ids(lookbook.recommended) == lists["blended"]
    for strategy in ("style", "generated", "trending", "blended"):
        page.get_by_role("radio", name=strategy.capitalize()).check()
        lookbook.whole()
        lists[strategy] = ids(lookbook.recommended)
        assert lists[strategy] == lookbook.answered(customer, strategy=strategy)
    assert len({tuple(each) for each in lists.values()}) == 4


@ON_DESKTOP
def test_category_and_colour_leave_what_is_of_both(page: Page, lookbook: Lookbook, customer: str) -> None:
    one = lookbook.shop.articles[ids(lookbook.recommended)[0]]
    wish = {"category": one.category, "colour": one.colour or ""}
    page.get_by_label("Category", exact=True).select_option(wish["category"])
    lookbook.whole()
    page.get_by_label("Colour", exact=True).select_option(wish["colour"])
    lookbook.whole()
    shown = ids(lookbook.recommended)
    assert one.article_id in shown
    assert shown == lookbook.answered(customer, **wish)
    found = {(article.category, article.colour) for article in map(lookbook.shop.articles.__getitem__, shown)}
    assert found == {(one.category, one.colour)}


@ON_DESKTOP
def test_prices_leave_what_lies_between(page: Page, lookbook: Lookbook, customer: str) -> None:
    prices = sorted(lookbook.shop.articles[each].price or 0 for each in ids(lookbook.recommended))
    least, most = prices[SHOWN // 3], prices[2 * SHOWN // 3]
    ask_for_prices(page, lookbook, least, most)
    shown = ids(lookbook.recommended)
    assert shown == lookbook.answered(customer, price_min=least, price_max=most)
    assert shown
    assert all(least <= (lookbook.shop.articles[each].price or 0) <= most for each in shown)


@ON_DESKTOP
def test_prices_that_cross_are_told_and_not_asked_for(page: Page, lookbook: Lookbook, customer: str) -> None:
    ask_for_prices(page, lookbook, 50, 60)
    before = ids(lookbook.recommended)
    page.get_by_label("Price from").fill("70")
    page.get_by_label("Price from").blur()
    expect(page.get_by_role("alert").filter(has_text="From must not be above to.")).to_be_visible()
    assert ids(lookbook.recommended) == before
    page.get_by_label("Price from").fill("-1")
    page.get_by_label("Price from").blur()
    expect(page.get_by_role("alert").filter(has_text="Prices are numbers from 0.")).to_be_visible()
    page.get_by_label("Price from").fill("")
    page.get_by_label("Price from").blur()
    lookbook.whole()
    assert ids(lookbook.recommended) == lookbook.answered(customer, price_max=60)


def test_where_nothing_passes_the_page_says_so_and_recovers(page: Page, lookbook: Lookbook, customer: str) -> None:
    before = ids(lookbook.recommended)
    ask_for_prices(page, lookbook, 900_000, "")
    expect(page.get_by_text("Nothing fits", exact=True)).to_be_visible()
    expect(lookbook.recommended).to_have_count(0)
    lookbook.looked_at("nothing-fits")
    ask_for_prices(page, lookbook, "", "")
    assert ids(lookbook.recommended) == before


@ON_DESKTOP
def test_what_was_bought_comes_again_where_that_is_wished_for(page: Page, lookbook: Lookbook, customer: str) -> None:
    bought = {purchase["article_id"] for purchase in lookbook.stored(customer)["history"]}
    assert not bought & set(ids(lookbook.recommended))
    page.get_by_label("Leave out what was bought").uncheck()
    lookbook.whole()
    assert ids(lookbook.recommended) == lookbook.answered(customer, exclude_purchased="false")


def ask_for_prices(page: Page, lookbook: Lookbook, least: float | str, most: float | str) -> None:
    """As somebody who types the one, goes on to the other, and leaves that."""
    page.get_by_label("Price from").fill(str(least))
    page.get_by_label("to", exact=True).fill(str(most))
    page.get_by_label("to", exact=True).blur()
    lookbook.whole()
