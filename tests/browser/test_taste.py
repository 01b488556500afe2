"""The path of a style and what another month would bring, as the service tells them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser.lookbook import Lookbook, encoded, ids, purchases
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)
GRID = "Recommendations at that time"


@ON_DESKTOP
@pytest.mark.parametrize(("bought", "points"), [(0, 1), (4, 5), (55, 51)])
def test_a_path_has_a_point_before_and_after_each_purchase(
    page: Page, lookbook: Lookbook, newcomer: str, bought: int, points: int
) -> None:
    lookbook.tell(*purchases(newcomer, list(lookbook.shop.articles)[:bought]))
    lookbook.open("taste", newcomer)
    expect(page.locator(".plot .step")).to_have_count(points)
    told = lookbook.shop.service.get(f"/lookbook/customers/{encoded(newcomer)}/path")[1]["points"]
    page.get_by_text("The path as a table").click()
    rows = page.locator("#path-table tbody tr")
    expect(rows).to_have_count(points)
    assert [row.split("\t")[-2:] for row in rows.all_inner_texts()] == [two_digits(point) for point in told]
    if bought == 4:
        lookbook.looked_at("path")


@ON_DESKTOP
def test_arrow_keys_go_along_the_path(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    first, second = list(lookbook.shop.articles)[:2]
    lookbook.tell(*purchases(newcomer, [first, second]))
    lookbook.open("taste", newcomer)
    page.locator(".step.last").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[data-step='1']")).to_be_focused()
    expect(page.locator("#readout")).to_contain_text(lookbook.shop.articles[first].title)
    page.keyboard.press("Home")
    expect(page.locator("#readout")).to_contain_text("Before any purchase")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(lookbook.heading).to_have_text(lookbook.shop.articles[second].title)


def test_another_month_is_asked_for_and_compared_with_now(page: Page, lookbook: Lookbook) -> None:
    customer = lookbook.shop.customers[4]
    lookbook.write_for(customer)
    lookbook.open("taste", customer)
    now = ids(lookbook.grid(GRID))
    assert now == lookbook.answered(customer, strategy="style")
    at = moment_asked_for(page, lambda: page.get_by_role("slider").fill("6"))
    expect(page.locator("#season-moved")).to_contain_text("against now: ")
    then = ids(lookbook.grid(GRID))
    assert then == lookbook.answered(customer, strategy="style", at=at)
    expect(page.locator("#season-moved")).to_contain_text(moves(now, then))
    expect(page.locator(".plot .ahead circle")).to_have_count(1)
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#season-moved")).to_contain_text("Now. ")
    assert ids(lookbook.grid(GRID)) == now


@ON_DESKTOP
def test_december_is_the_next_one(page: Page, lookbook: Lookbook) -> None:
    lookbook.open("taste", lookbook.shop.customers[4])
    at = datetime.fromtimestamp(moment_asked_for(page, page.get_by_role("button", name="December").click), UTC)
    assert (at.month, at > datetime.now(UTC), (at - datetime.now(UTC)).days <= 366) == (12, True, True)
    expect(page.locator("#month-name")).to_have_text(f"December {at.year}")
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", f"December {at.year}")


@ON_DESKTOP
def test_a_month_is_compared_with_what_is_recommended_by_now(page: Page, lookbook: Lookbook) -> None:
    customer = lookbook.shop.customers[4]
    lookbook.write_for(customer)
    page.route("**/recommendations?n=24&strategy=style", in_reverse, times=1)
    lookbook.open("taste", customer)
    assert ids(lookbook.grid(GRID)) == lookbook.answered(customer, strategy="style")[::-1]
    at = moment_asked_for(page, lambda: page.get_by_role("slider").fill("1"))
    now, then = (lookbook.answered(customer, strategy="style", **wish) for wish in ({}, {"at": at}))
    expect(page.locator("#season-moved")).to_contain_text(f"against now: {moves(now, then)}")


def in_reverse(route: Route) -> None:
    """As if the language model wrote something after this answer."""
    response = route.fetch()
    answer = response.json()
    route.fulfill(response=response, json={**answer, "articles": answer["articles"][::-1]})


def moment_asked_for(page: Page, act: Callable[[], None]) -> int:
    """The `at` of the recommendations that are asked for once somebody acts, in Unix seconds."""
    with page.expect_response(lambda response: "/recommendations?" in response.url and "at=" in response.url) as asked:
        act()
    return int(parse_qs(urlsplit(asked.value.url).query)["at"][0])


def moves(before: list[str], after: list[str]) -> str:
    """How the page tells what moved."""
    new = len(set(after) - set(before))
    moved = sum(each in before and before.index(each) != place for place, each in enumerate(after))
    gone = len(set(before) - set(after))
    return f"{new} new, {moved} moved, {gone} gone" if new or moved else "Nothing moved"


def two_digits(point: dict[str, Any]) -> list[str]:
    return [f"{point[axis]:.2f}" for axis in ("x", "y")]
