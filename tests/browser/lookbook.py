"""The lookbook as its tests walk it: how views are opened, what they show, and what the service says to the same."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from browser.looking import accessible, shot
from browser.sample_shop import Shop
from playwright.sync_api import expect

if TYPE_CHECKING:
    from re import Pattern

    from playwright.sync_api import Locator, Page, Route

SHOWN = 24
"""Articles in a grid of recommendations."""
AT_REST = """async () => {
    await Promise.allSettled(document.getAnimations().map(({finished}) => finished));
    const inSight = [...document.images].filter((image) => {
        const {top, right, bottom, left} = image.getBoundingClientRect();
        return !image.complete && bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
    });
    const loaded = (image) => new Promise((done) => (image.onload = image.onerror = done));
    await Promise.all(inSight.map(loaded));
}"""
"""Ends once nothing moves and all pictures in sight are there."""


class Lookbook:
    """The page of one test, and the shop behind it."""

    def __init__(self, page: Page, shop: Shop):
        self.page, self.shop = page, shop
        self.heading = page.get_by_role("heading", level=1)
        self.offered = page.get_by_role("listbox", name="Customers").get_by_role("option")
        self.status = page.locator("#moved")
        self.recommended = self.grid("Recommendations")
        self.timeline = page.locator("#past .timeline > li")

    def go(self, view: str, what: str | None = None) -> None:
        """To a view, of a customer or an article where one is named."""
        self.page.goto(f"{self.shop.url}/#/{view}" + (f"/{encoded(what)}" if what else ""))
        expect(self.page.locator(f"#main > [data-view={view}]")).to_be_visible()

    def open(self, view: str, what: str | None = None) -> None:
        """Go to a view, and wait until it is whole."""
        self.go(view, what)
        self.whole()

    def whole(self) -> None:
        """Wait until all that was asked for is shown."""
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    def grid(self, label: str) -> Locator:
        """The cards of the grid of this name."""
        return self.page.get_by_role("list", name=label, exact=True).locator("> .card")

    def act(self, name: str, place: int = 1) -> str:
        """Press the button of this name below the recommendation at ``place``, which rests; the article's id."""
        article_id = ids(self.recommended)[place - 1]
        card = self.recommended.and_(self.page.locator(f"[data-article='{article_id}']"))
        card.get_by_role("button", name=re.compile(f"^{name} ")).click()
        return article_id

    def has_read(self, what: str) -> None:
        """Wait until the list answers the deed ``what``, and the language model has written about it or is given up."""
        deed = self.status.filter(has_text=re.compile(f"^{re.escape(what)}"))
        expect(deed).to_be_visible()
        fresh = self.page.locator("#how", has_text="reflects all that the customer did")
        expect(deed.filter(has_text="has not written").or_(fresh)).to_be_visible()
        self.whole()

    def looked_at(self, name: str) -> None:
        """Nobody is kept from using what is shown, nothing sticks out of the page, and there is a picture of it."""
        self.whole()
        self.page.evaluate(AT_REST)
        accessible(self.page)
        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        shot(self.page, name)

    def looked_at_dialog(self, name: str) -> None:
        """The same while a dialog lies over a page that still waits."""
        accessible(self.page)
        shot(self.page, name)

    def answered(self, customer_id: str, **wish: Any) -> list[str]:
        """The articles that the service recommends, for a wish in words of its own."""
        path = f"{of_customer(customer_id)}/recommendations?{urlencode({'n': SHOWN, **wish})}"
        status, answer = self.shop.service.get(path)
        assert status == 200, answer
        return [article["article_id"] for article in answer["articles"]]

    def write_for(self, customer_id: str) -> None:
        """Let the language model write now, so that what is recommended stays the same until the next event."""
        status, answer = self.shop.service.get(f"{of_customer(customer_id)}/recommendations?n=1&wait_ms=10000")
        assert (status, answer["generation"]) == (200, "fresh"), answer

    def stored(self, customer_id: str) -> dict[str, Any]:
        """What the service holds about a customer."""
        status, answer = self.shop.service.get(of_customer(customer_id))
        assert status == 200, answer
        return dict(answer)

    def tell(self, *events: dict[str, Any]) -> None:
        """Store events without the page."""
        status, answer = self.shop.service.call("/v1/events", list(events))
        assert (status, answer["accepted"]) == (200, len(events)), answer


def hold(page: Page, pattern: str | Pattern[str]) -> list[Route]:
    """Keep the next call of this address back; it is in the list once it is made, and waits to be continued."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route(pattern, keep, times=1)
    return held


def of_customer(customer_id: str) -> str:
    return f"/v1/customers/{encoded(customer_id)}"


def ids(cards: Locator) -> list[str]:
    """The articles of cards or rows, in order."""
    return list(cards.evaluate_all("cards => cards.map(({dataset}) => dataset.article)"))


def purchases(customer_id: str, article_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Events: one purchase a day, the last yesterday."""
    days = range(len(article_ids), 0, -1)
    return [
        {"type": "purchase", "customer_id": customer_id, "article_id": each, "timestamp": time.time() - day * 86_400}
        for day, each in zip(days, article_ids, strict=True)
    ]


def encoded(identifier: str) -> str:
    return quote(identifier, safe="")
