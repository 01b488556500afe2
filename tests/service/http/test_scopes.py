"""Keys that are good for some calls only, and that may make so many requests a second."""

from __future__ import annotations

import pytest
from service_running import Shop, running

from service.settings import Settings

EVENTS, READ, ADMIN = ("events-key-long-enough", "read-key-long-enough", "admin-key-long-enough")
CALLS = [
    ("POST", "/v1/events", EVENTS),
    ("GET", "/v1/customers/c/recommendations", READ),
    ("GET", "/v1/articles/none/similar", READ),
    ("GET", "/v1/search?q=dress", READ),
    ("GET", "/v1/customers/c", ADMIN),
    ("DELETE", "/v1/customers/c", ADMIN),
    ("PUT", "/v1/articles", ADMIN),
    ("DELETE", "/v1/articles/none", ADMIN),
    ("PATCH", "/v1/stock", ADMIN),
    ("GET", "/v1/bundles", ADMIN),
    ("POST", "/v1/bundles/none/activate", ADMIN),
]


def with_keys(settings: Settings, keys: str, **more: str) -> Settings:
    variables = {"MODISTE_API_KEYS": keys, **more}
    given = Settings.from_environment(variables)
    return settings.model_copy(update={"api_keys": given.api_keys, "rate_limit": given.rate_limit})


async def status(shop: Shop, method: str, path: str, key: str) -> int:
    body = [] if method in {"POST", "PUT", "PATCH"} else None
    response = await shop.http.request(method, path, json=body, headers={"X-API-Key": key})
    if response.status_code == 403:
        assert response.json()["error"]["type"] == "forbidden"
    return response.status_code


async def test_a_key_opens_what_it_is_for(settings: Settings) -> None:
    keys = f"events:{EVENTS},read:{READ},admin:{ADMIN}"
    async with running(with_keys(settings, keys), filled=False) as shop:
        for method, path, needed in CALLS:
            for key in (EVENTS, READ, ADMIN):
                opened = await status(shop, method, path, key)
                assert (opened == 403) is (key not in {needed, ADMIN}), (method, path, key, opened)
            assert await status(shop, method, path, "nobody's key, long enough") == 401
            assert await status(shop, method, path, f"read:{READ}") == 401


async def test_too_many_requests_of_one_key_are_told_to_come_later(settings: Settings) -> None:
    limited = with_keys(settings, f"{EVENTS},{READ}", MODISTE_RATE_LIMIT="2")
    async with running(limited, filled=False) as shop:
        statuses = [await status(shop, "GET", "/v1/bundles", EVENTS) for _ in range(40)]
        assert {200, 429} == set(statuses)
        assert await status(shop, "GET", "/v1/bundles", READ) == 200
        assert (await shop.http.get("/livez")).status_code == 200
        response = await shop.http.get("/v1/bundles", headers={"X-API-Key": EVENTS})
        while response.status_code != 429:
            response = await shop.http.get("/v1/bundles", headers={"X-API-Key": EVENTS})
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["type"] == "too_many_requests"


@pytest.mark.parametrize("path", ["/v1/bundles"])
async def test_without_a_limit_nothing_is_counted(settings: Settings, path: str) -> None:
    async with running(with_keys(settings, ADMIN), filled=False) as shop:
        assert {await status(shop, "GET", path, ADMIN) for _ in range(40)} == {200}
