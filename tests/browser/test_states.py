"""Where an answer is late, degraded or missing the page says so, and goes on as soon as there is one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from browser.lookbook import Lookbook, hold, ids
from browser.looking import Faults
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)
RECOMMENDATIONS = re.compile(r"/recommendations\?")
KINDS = {"store_unavailable": "Redis does not answer", "not_ready": "The service is getting ready"}
CALLS = {
    "customers": r"/lookbook/customers/[^/?]+$",
    "taste": r"/path$",
    "generation": r"/generation$",
    "articles": r"/lookbook/articles/[^/?]+$",
    "operations": r"/lookbook/operations$",
}
"""A call that each view makes."""


@ON_DESKTOP
@pytest.mark.parametrize("view", CALLS)
def test_each_view_says_what_failed_and_recovers(page: Page, lookbook: Lookbook, faults: Faults, view: str) -> None:
    faults.expect("503")
    page.route(re.compile(CALLS[view]), refused("store_unavailable"), times=1)
    lookbook.open(view, {"articles": next(iter(lookbook.shop.articles))}.get(view, lookbook.shop.customers[0]))
    failure = page.get_by_role("alert").filter(has_text=KINDS["store_unavailable"])
    expect(failure).to_be_visible()
    expect(failure).to_contain_text("503 store_unavailable: for a test")
    lookbook.looked_at(f"without-{view}")
    failure.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    lookbook.whole()


@ON_DESKTOP
@pytest.mark.parametrize("kind", KINDS)
def test_recommendations_that_fail_are_asked_for_again(
    page: Page, lookbook: Lookbook, faults: Faults, kind: str
) -> None:
    faults.expect("503")
    customer = lookbook.shop.customers[5]
    page.route(RECOMMENDATIONS, refused(kind))
    lookbook.open("customers", customer)
    expect(page.get_by_role("alert").filter(has_text=KINDS[kind])).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert").filter(has_text=KINDS[kind])).to_be_visible()
    page.unroute(RECOMMENDATIONS)
    page.get_by_role("button", name="Try again").click()
    expect(lookbook.recommended).to_have_count(24)
    expect(page.get_by_role("alert").filter(has_text=KINDS[kind])).to_have_count(0)


@ON_DESKTOP
def test_without_a_network_the_service_is_out_of_reach(page: Page, lookbook: Lookbook, faults: Faults) -> None:
    faults.expect("ERR_CONNECTION_REFUSED")
    page.route("**/lookbook/map", lambda route: route.abort("connectionrefused"), times=1)
    lookbook.open("taste", lookbook.shop.customers[0])
    expect(page.get_by_text("The service cannot be reached")).to_be_visible()
    lookbook.looked_at("out-of-reach")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".step.last")).to_be_visible()


@ON_DESKTOP
def test_a_month_that_fails_leaves_no_skeleton(page: Page, lookbook: Lookbook, faults: Faults) -> None:
    faults.expect("503")
    page.route(RECOMMENDATIONS, refused("not_ready"), times=1)
    lookbook.open("taste", lookbook.shop.customers[0])
    expect(page.get_by_text(KINDS["not_ready"])).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)
    page.get_by_role("button", name="Try again").click()
    expect(lookbook.grid("Recommendations at that time")).to_have_count(24)


@ON_DESKTOP
def test_a_purchase_that_fails_is_made_once(page: Page, lookbook: Lookbook, faults: Faults, newcomer: str) -> None:
    faults.expect("503")
    lookbook.open("customers", newcomer)
    before = ids(lookbook.recommended)
    page.route("**/v1/events", refused("store_unavailable"), times=1)
    bought = lookbook.act("Buy")
    expect(page.get_by_role("alert").filter(has_text=KINDS["store_unavailable"])).to_be_visible()
    assert ids(lookbook.recommended) == before
    page.get_by_role("button", name="Try again").click()
    lookbook.has_read("Bought")
    assert [purchase["article_id"] for purchase in lookbook.stored(newcomer)["history"]] == [bought]


def test_an_answer_from_memory_is_told_as_one(page: Page, lookbook: Lookbook) -> None:
    page.route(RECOMMENDATIONS, from_memory, times=1)
    lookbook.open("customers", lookbook.shop.customers[0])
    expect(page.get_by_text("Degraded answer.")).to_be_visible()
    expect(lookbook.recommended).to_have_count(24)
    lookbook.looked_at("degraded")
    page.get_by_role("radio", name="Style").check()
    lookbook.whole()
    expect(page.get_by_text("Degraded answer.")).to_have_count(0)


@ON_DESKTOP
@pytest.mark.parametrize("box", ["#past", ".grid-box"])
def test_what_is_awaited_is_drawn_as_a_skeleton(page: Page, lookbook: Lookbook, box: str) -> None:
    late = hold(page, {"#past": re.compile(CALLS["customers"]), ".grid-box": RECOMMENDATIONS}[box])
    lookbook.go("customers", lookbook.shop.customers[0])
    waiting = page.locator(f"{box}[aria-busy=true]")
    expect(waiting.locator(".skeleton")).to_be_visible()
    expect(waiting.get_by_role("status")).to_have_text("Loading …")
    late[0].continue_()
    lookbook.whole()
    expect(page.locator(".skeleton")).to_have_count(0)


def refused(kind: str) -> Callable[[Route], None]:
    """Answers 503 as the service does."""
    answer = {"error": {"type": kind, "message": "for a test"}}
    return lambda route: route.fulfill(status=503, json=answer)


def from_memory(route: Route) -> None:
    response = route.fetch()
    route.fulfill(response=response, json={**response.json(), "degraded": True})
