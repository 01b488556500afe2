"""The real application in a test: over ASGI, with its lifespan, on a real Valkey and a real small bundle."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from bundles import CUTOFF, DAY, sample_articles
from fastapi import FastAPI

from service.http.app import create_app
from service.http.services import Services
from service.settings import Settings

NOW = CUTOFF + 3 * DAY
"""What the shop's clock says first, Unix seconds."""


@dataclass
class Shop:
    """A client of one running application, and the application itself."""

    http: httpx2.AsyncClient
    app: FastAPI
    clock: Clock

    @property
    def services(self) -> Services:
        found: Services = self.app.state.services
        return found

    async def buy(self, customer_id: str, article_id: str, **more: Any) -> dict[str, Any]:
        return await self.tell({"type": "purchase", "customer_id": customer_id, "article_id": article_id, **more})

    async def tell(self, events: Any) -> dict[str, Any]:
        response = await self.http.post("/v1/events", json=events)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def recommend(self, customer_id: str, **query: Any) -> dict[str, Any]:
        response = await self.http.get(f"/v1/customers/{customer_id}/recommendations", params=query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def put(self, *articles: dict[str, Any]) -> dict[str, Any]:
        response = await self.http.put("/v1/articles", json=list(articles))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def stock(self, article_id: str, quantity: int, **more: Any) -> dict[str, Any]:
        level = {"article_id": article_id, "quantity": quantity, **more}
        response = await self.http.patch("/v1/stock", json=[level])
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@dataclass
class Clock:
    """A clock that a test sets."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now


def ids(answer: dict[str, Any]) -> list[str]:
    """Article ids of an answer, best first."""
    return [article["article_id"] for article in answer["articles"]]


def catalogue(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """The small bundle's articles as PUT /v1/articles takes them, pictures as base64."""
    return [
        one.article.model_dump(mode="json", exclude={"image"}, exclude_none=True)
        | ({} if one.image is None else {"image": base64.b64encode(one.image).decode()})
        for one in sample_articles(count, seed)
    ]


@asynccontextmanager
async def starting(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Shop]:
    """The application from its first moment on, ready or not."""
    clock = clock or Clock()
    app = create_app(settings, clock)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://shop") as http,
    ):
        yield Shop(http, app, clock)


@asynccontextmanager
async def running(settings: Settings, *, filled: bool = True, clock: Clock | None = None) -> AsyncIterator[Shop]:
    """The application, ready, and where ``filled`` with the small bundle's articles in its catalogue."""
    async with starting(settings, clock) as shop:
        await until_ready(shop.http)
        if filled:
            assert (await shop.put(*catalogue()))["rejected"] == []
        yield shop


async def until_ready(http: httpx2.AsyncClient) -> None:
    await until(lambda: http.get("/readyz"), lambda response: response.status_code == 200)


async def until(ask: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 30) -> Any:
    """The first good answer."""
    async with asyncio.timeout(seconds):
        while not good(answer := await ask()):  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.02)
        return answer
