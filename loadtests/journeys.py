"""Customers' journeys: what they ask and tell, step by step, each answer checked as it arrives.

A journey knows beforehand when each of its steps is due, as customers know nothing of a service's troubles: one whose
answer comes late is not late with the next step, which then waits, and its waiting counts.
"""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import gevent

from loadtests.known import Known, Zipf

RECOMMENDATIONS = "/v1/customers/{id}/recommendations"
SIMILAR = "/v1/articles/{id}/similar"
SHOWN = 20
PASSING = "loadtest-"
"""What ids of articles begin with that are deleted soon after they came: no customer may find that one is gone."""

Check = Callable[[Any], str | None]
"""From an answer's JSON to what is wrong with it, or None."""


class Call(Protocol):
    """One request, noted with its latency since it was due (``time.perf_counter``); its JSON, or None if it failed."""

    def __call__(self, method: str, path: str, *, name: str, due: float, body: Any, check: Check | None) -> Any: ...


class Shop:
    """What journeys share: whom and what they are about, and what was bought lately."""

    def __init__(self, known: Known, exponent: float, think: float, rng: random.Random, *, searchable: bool):
        self.known, self.think, self.rng, self.searchable = known, think, rng, searchable
        self._customers = Zipf(len(known.customers), exponent)
        self._articles = Zipf(len(known.articles), exponent)
        self._places = Zipf(SHOWN, exponent)
        self.bought: deque[tuple[str, str]] = deque(maxlen=1_000)

    def customer(self) -> str:
        """Some come much more often than others."""
        return self.known.customers[self._customers.draw(self.rng)]

    def article(self) -> tuple[str, str]:
        """Id and title of one that somebody comes for, from a link, say."""
        return self.known.articles[self._articles.draw(self.rng)]

    def clicked(self, shown: list[str]) -> str:
        """One of those shown that stay, more often one of the first; any where none was shown."""
        staying = [article for article in shown if not article.startswith(PASSING)]
        return staying[self._places.draw(self.rng) % len(staying)] if staying else self.article()[0]

    def pause(self) -> float:
        """Seconds between two steps of a journey."""
        return self.rng.expovariate(1 / self.think) if self.think else 0.0


@dataclass
class Visit:
    """One customer's journey; ``due`` is when its next step is (``time.perf_counter``)."""

    shop: Shop
    send: Call
    customer: str
    due: float

    def recommendations(self, gone: str | None = None, **query: Any) -> list[str]:
        """Ids of what is shown, in which ``gone``, just bought or returned, may not be."""

        def check(answer: Any) -> str | None:
            ids = shown_in(answer)
            if answer["customer_id"] != self.customer:
                return f"an answer for {answer['customer_id']}"
            if len(set(ids)) != len(ids):
                return "the same article twice"
            return f"{gone} is shown again" if gone in ids else None

        path = RECOMMENDATIONS.format(id=quote(self.customer, safe="")) + "?" + urlencode({"n": SHOWN, **query})
        answer = self._step("GET", path, RECOMMENDATIONS, None, check)
        return shown_in(answer) if answer else []

    def similar(self, article: str) -> list[str]:
        """Ids of an article's neighbours."""

        def check(answer: Any) -> str | None:
            return "an article is its own neighbour" if article in shown_in(answer) else None

        answer = self._step("GET", SIMILAR.format(id=quote(article, safe="")), SIMILAR, None, check)
        return shown_in(answer) if answer else []

    def search(self, words: str) -> list[str]:
        """Ids of what is found."""
        answer = self._step("GET", "/v1/search?" + urlencode({"q": words}), "/v1/search", None, None)
        return shown_in(answer) if answer else []

    def tell(self, kind: str, **what: str) -> None:
        """One event, which must be taken."""
        event = {"event_id": str(uuid.uuid4()), "type": kind, "customer_id": self.customer, **what}
        self._step("POST", "/v1/events", f"/v1/events ({kind})", event, accepted)

    def _step(self, method: str, path: str, name: str, body: Any, check: Check | None) -> Any:
        due = self.due
        self.due += self.shop.pause()
        gevent.sleep(max(0.0, due - time.perf_counter()))
        return self.send(method, path, name=name, due=due, body=body, check=check)


def browse(visit: Visit) -> None:
    """Looks at what is shown, at one of it, at what is like it, and at what is cheap."""
    shown = visit.recommendations()
    visit.similar(visit.shop.clicked(shown))
    visit.similar(visit.shop.article()[0])
    visit.recommendations(price_min=5, price_max=50)


def search(visit: Visit) -> None:
    """Searches, clicks what is found, and sees what that changes."""
    words = " ".join(visit.shop.article()[1].lower().split()[-2:])
    visit.tell("search", query=words)
    visit.recommendations(query=words)
    found = visit.search(words) if visit.shop.searchable else []
    visit.tell("click", article_id=visit.shop.clicked(found))
    visit.recommendations()


def buy(visit: Visit) -> None:
    """Clicks, buys, and must not be shown it again."""
    bought = visit.shop.clicked(visit.recommendations())
    visit.tell("click", article_id=bought)
    visit.tell("purchase", article_id=bought)
    visit.recommendations(gone=bought)
    visit.recommendations(gone=bought, strategy="style")
    visit.shop.bought.append((visit.customer, bought))


def give_back(visit: Visit) -> None:
    """Returns what was bought a while ago; who has bought nothing yet buys."""
    if not visit.shop.bought:
        return buy(visit)
    visit.customer, article = visit.shop.bought.popleft()
    visit.tell("return", article_id=article)
    visit.recommendations(gone=article)
    return None


JOURNEYS: dict[Callable[[Visit], None], int] = {browse: 5, search: 3, buy: 2, give_back: 1}
"""Each journey, and how often it is made."""


def shown_in(answer: Any) -> list[str]:
    """Article ids of an answer."""
    return [article["article_id"] for article in answer["articles"]]


def accepted(answer: Any) -> str | None:
    """What is wrong with the answer to one event, article or stock level."""
    return None if answer["accepted"] == 1 else f"not accepted: {answer}"
