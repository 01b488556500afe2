"""Journeys through a shop that asks Modiste what to show, each answer checked as it arrives.

    .venv/bin/locust -f loadtests/locustfile.py --headless -u 20 -r 10 -t 30s --host http://127.0.0.1:8000

Shoppers browse, click, search, buy and look again; some come back later, under the same id. Everything they know about
the shop they learned from its answers. One merchandiser takes articles of its own in and out of stock. With API keys
on, set MODISTE_API_KEYS as the service has it.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from locust import FastHttpUser, between, task
from locust.contrib.fasthttp import ResponseContextManager

RECOMMENDATIONS = "/v1/customers/{id}/recommendations"
SIMILAR = "/v1/articles/{id}/similar"
PROPAGATION = 2.0  # seconds in which a change of stock must have reached every worker
OK = 200
DELETED = {200, 204}

Check = Callable[[Any], str | None]
"""From an answer's JSON to what is wrong with it, or None."""


def _headers() -> dict[str, str]:
    return {"X-API-Key": os.environ.get("MODISTE_API_KEYS", "").partition(",")[0].strip()}


_returning: deque[str] = deque(maxlen=1_000)
"""Customers that earlier journeys left behind."""


class ShopUser(FastHttpUser):
    """What every user of the service does alike: calls with a key and a check."""

    abstract = True
    wait_time = between(0.05, 0.5)
    default_headers = _headers()

    def call(
        self, method: str, path: str, *, name: str | None = None, body: Any = None, check: Check | None = None
    ) -> Any:
        """One request; its JSON, or None where status or content is not as it should be."""
        answer: ResponseContextManager
        with self.client.request(method, path, name=name or path, json=body, catch_response=True) as answer:
            if answer.status_code != OK:
                _fail(answer, f"status {answer.status_code}: {(answer.text or '')[:200]}")
                return None
            content = answer.json()
            fault = check(content) if check is not None else None
            if fault is not None:
                _fail(answer, fault)
            return content

    def recommendations(self, customer: str, bought: set[str], query: str = "n=20") -> list[str]:
        """Article ids for a customer, none of which may be among ``bought``."""

        def check(answer: Any) -> str | None:
            ids = _ids(answer)
            if answer["customer_id"] != customer:
                return f"an answer for {answer['customer_id']}"
            if len(set(ids)) != len(ids):
                return "the same article twice"
            again = bought.intersection(ids)
            return f"bought already: {sorted(again)}" if again else None

        path = RECOMMENDATIONS.format(id=quote(customer, safe="")) + "?" + query
        answer = self.call("GET", path, name=RECOMMENDATIONS, check=check)
        return _ids(answer) if answer else []

    def tell(self, customer: str, kind: str, **what: str) -> None:
        """Send one event, which must be taken."""
        event = {"event_id": str(uuid.uuid4()), "type": kind, "customer_id": customer, **what}
        self.call("POST", "/v1/events", name=f"/v1/events ({kind})", body=event, check=_accepted)


class Shopper(ShopUser):
    """Looks, clicks, searches, looks again, buys, and must not be shown what it bought."""

    weight = 20

    @task(3)
    def newcomer(self) -> None:
        """A customer nobody knows: shown what is trending, remembered from the first purchase on."""
        customer = f"loadtest-{uuid.uuid4()}"
        self._visit(customer)
        _returning.append(customer)

    @task(7)
    def comes_back(self) -> None:
        """A customer of an earlier journey."""
        if not _returning:
            return self.newcomer()
        return self._visit(random.choice(_returning))

    @task(2)
    def only_looks(self) -> None:
        """Opens pages, filters by price, and leaves."""
        customer = f"loadtest-{uuid.uuid4()}"
        shown = self.recommendations(customer, set())
        self.recommendations(customer, set(), "n=20&strategy=trending")
        self.recommendations(customer, set(), "n=20&price_min=5&price_max=50")
        if shown:
            self._similar(random.choice(shown))

    def _visit(self, customer: str) -> None:
        shown = self.recommendations(customer, set())
        if not shown:
            return
        clicked = random.choice(shown)
        self.tell(customer, "click", article_id=clicked)
        self._similar(clicked)
        self.tell(customer, "search", query="something for the summer")
        shown = self.recommendations(customer, set())
        if not shown:
            return
        bought = random.choice(shown)
        self.tell(customer, "purchase", article_id=bought)
        self.recommendations(customer, {bought})
        self.recommendations(customer, {bought}, "n=20&strategy=style")

    def _similar(self, article: str) -> None:
        def check(answer: Any) -> str | None:
            return "an article is not its own neighbour" if article in _ids(answer) else None

        self.call("GET", SIMILAR.format(id=quote(article, safe="")), name=SIMILAR, check=check)


class Merchandiser(ShopUser):
    """Brings an article in, sells it out, and takes it off; it touches no article but its own."""

    fixed_count = 1

    @task
    def season(self) -> None:
        """A copy of a real article, under a brand of its own, is shown while it is in stock and never after."""
        shown = self.call("GET", RECOMMENDATIONS.format(id="merchandiser"), name=RECOMMENDATIONS)
        if not shown or not shown["articles"]:
            return
        article = f"loadtest-{uuid.uuid4()}"
        model = shown["articles"][0]
        record = {key: model[key] for key in ("title", "category", "colour", "price") if model.get(key)}
        self.call("PUT", "/v1/articles", body=[{**record, "article_id": article, "brand": article}], check=_accepted)
        self._set_stock(article, 1)
        self._expect(article, shown=True)
        self._set_stock(article, 0)
        self._expect(article, shown=False)
        with self.client.delete(f"/v1/articles/{article}", name="/v1/articles/{id}", catch_response=True) as answer:
            if answer.status_code not in DELETED:
                _fail(answer, f"status {answer.status_code}")

    def _set_stock(self, article: str, quantity: int) -> None:
        self.call("PATCH", "/v1/stock", body=[{"article_id": article, "quantity": quantity}], check=_accepted)

    def _expect(self, article: str, *, shown: bool) -> None:
        """Whichever worker answers must know of the change, before long."""

        def check(answer: Any) -> str | None:
            return None if _ids(answer) == [article] * shown else f"expected {'the' if shown else 'no'} article"

        path = f"{RECOMMENDATIONS.format(id='merchandiser')}?n=5&brand={article}"
        deadline = time.monotonic() + PROPAGATION
        late = False
        while not late:
            late = time.monotonic() > deadline
            answer = self.call("GET", path, name=f"{RECOMMENDATIONS} (stock)", check=check if late else None)
            if answer is None or check(answer) is None:
                return
            time.sleep(0.05)


def _ids(answer: Any) -> list[str]:
    return [article["article_id"] for article in answer["articles"]]


def _accepted(answer: Any) -> str | None:
    return None if answer["accepted"] == 1 else f"not accepted: {answer}"


def _fail(answer: ResponseContextManager, why: str) -> None:
    answer.failure(why)  # type: ignore[no-untyped-call]
