"""What the language model reads and writes, and the lists that follow, as the service has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from browser.lookbook import Lookbook, encoded, ids
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)
LISTS = {"by-id": "by_id", "merged": "mixup", "by-title": "by_title"}
"""How lists are called on the page, and by the service."""


@pytest.fixture
def searcher(lookbook: Lookbook, newcomer: str) -> str:
    """Somebody who searched once, which the language model has written about."""
    lookbook.tell({"type": "search", "customer_id": newcomer, "query": lookbook.shop.queries[0]})
    lookbook.write_for(newcomer)
    return newcomer


def test_prompt_text_and_lists_are_those_of_the_service(page: Page, lookbook: Lookbook, searcher: str) -> None:
    lookbook.open("generation", searcher)
    told = told_of(lookbook, searcher)
    assert page.locator("#prompt-text").text_content() == told["prompt"]
    assert lookbook.shop.queries[0] in told["prompt"]
    expect(page.locator("#written-text")).to_have_text(told["written"]["text"])
    expect(page.locator("#written")).to_contain_text("fresh")
    for name, key in LISTS.items():
        assert ids(page.locator(f"#list-{name} li")) == [entry["article"]["article_id"] for entry in told[key]]
    lookbook.looked_at("written")


@ON_DESKTOP
def test_the_merged_list_is_what_is_recommended_as_generated(page: Page, lookbook: Lookbook, searcher: str) -> None:
    lookbook.open("generation", searcher)
    merged = page.locator("#list-merged li")
    assert ids(merged) == lookbook.answered(searcher, strategy="generated", n=12)
    from_id = ids(page.locator("#list-merged [data-from=id]"))
    assert from_id == ids(page.locator("#list-by-id li"))[: len(from_id)]


@ON_DESKTOP
def test_a_search_that_is_only_supposed_is_read_and_not_stored(page: Page, lookbook: Lookbook, searcher: str) -> None:
    query = lookbook.shop.queries[1]
    before = lookbook.stored(searcher)
    lookbook.open("generation", searcher)
    page.get_by_label("If they searched for").fill(query)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#prompt-text")).to_contain_text(query)
    expect(page.locator("#list-merged li")).to_have_count(12)
    lookbook.whole()
    after = lookbook.stored(searcher)
    assert (after["events"], after["session"]) == (before["events"], before["session"])


@ON_DESKTOP
def test_the_language_model_is_made_to_write(page: Page, lookbook: Lookbook, searcher: str) -> None:
    page.route("**/generation", not_yet_written, times=1)
    lookbook.open("generation", searcher)
    expect(page.get_by_text("Nothing is written yet")).to_be_visible()
    page.get_by_role("button", name="Let it write").click()
    expect(page.locator("#written-text")).to_have_text(told_of(lookbook, searcher)["written"]["text"])


@ON_DESKTOP
def test_about_nothing_it_is_not_made_to_write(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("generation", newcomer)
    expect(page.get_by_text("Nothing to read")).to_be_visible()
    page.get_by_label("If they searched for").fill(lookbook.shop.queries[0])
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#prompt-text")).to_contain_text(lookbook.shop.queries[0])
    lookbook.whole()
    expect(page.get_by_text("It writes about what a customer did.")).to_be_visible()
    expect(page.get_by_role("button", name="Let it write")).to_have_count(0)


@ON_DESKTOP
def test_nobody_waits_for_what_is_not_written(page: Page, lookbook: Lookbook, newcomer: str) -> None:
    lookbook.open("customers", newcomer)
    with page.expect_response("**/recommendations?*strategy=generated*"):
        page.get_by_role("radio", name="Generated").check()
    lookbook.whole()
    expect(page.locator("#how")).to_contain_text("Nothing that a language model wrote takes part.")
    expect(lookbook.status).not_to_contain_text("language model")


@ON_DESKTOP
def test_an_article_that_is_pointed_at_is_marked_in_all_lists(page: Page, lookbook: Lookbook, searcher: str) -> None:
    lookbook.open("generation", searcher)
    row = page.locator("#list-merged li").first
    row.hover()
    article_id = row.get_attribute("data-article")
    expect(page.locator(f"[data-article='{article_id}']:not(.marked)")).to_have_count(0)
    assert set(ids(page.locator(".retrieved .marked"))) == {article_id}


def told_of(lookbook: Lookbook, customer_id: str) -> dict[str, Any]:
    """What the page is told."""
    status, answer = lookbook.shop.service.get(f"/lookbook/customers/{encoded(customer_id)}/generation")
    assert status == 200, answer
    return dict(answer)


def not_yet_written(route: Route) -> None:
    response = route.fetch()
    route.fulfill(response=response, json={**response.json(), "written": None})
