"""Errors have one shape, whoever finds them; keys, request ids and limits hold everywhere."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

import httpx2
import pytest
from service_running import Shop, running

from model_store import errors as contract
from service import errors
from service.http.errors import KINDS
from service.settings import Settings

KEY = "a-key-of-sixteen-characters"


def test_every_error_has_its_answer() -> None:
    ours = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ServiceError) and kind is not errors.ServiceError
    }
    assert ours <= KINDS.keys()
    assert len({kind.type for kind in KINDS.values()}) >= len(ours)
    assert contract.InvalidBundle in KINDS


FAILING = [
    ("GET", "/nothing", 404, "not_found"),
    ("GET", "/v1/customers/", 404, "not_found"),
    ("POST", "/v1/articles", 405, "method_not_allowed"),
    ("GET", "/v1/events", 405, "method_not_allowed"),
    ("GET", "/v1/customers/nobody", 404, "unknown_customer"),
    ("GET", "/v1/articles/none/similar", 404, "unknown_article"),
    ("DELETE", "/v1/articles/none", 404, "unknown_article"),
    ("POST", "/v1/bundles/none/activate", 404, "unknown_bundle"),
    ("POST", "/v1/bundles/..%2Ftest-1/activate", 404, "unknown_bundle"),
    ("GET", "/v1/search?q=dress", 422, "generation_unavailable"),
    ("GET", "/v1/search", 422, "invalid_request"),
]


async def test_one_shape(shop: Shop) -> None:
    for method, path, status, kind in FAILING:
        response = await shop.http.request(method, path)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/json", path
        body = response.json()
        assert body.keys() == {"error"}, path
        assert body["error"]["type"] == kind, path
        assert body["error"]["message"], path


async def test_what_nobody_expected_is_answered_without_a_trace(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(shop.services.recommender, "recommend", fail)
    monkeypatch.setattr(shop.services.lives, "bundles", fail)
    for path in ("/v1/customers/c1/recommendations", "/v1/bundles"):  # a direct route, and one behind FastAPI's layers
        response = await shop.http.get(path, headers={"X-Request-ID": "req-7"})
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "internal"
        assert "req-7" in response.json()["error"]["message"]
        assert "secret" not in response.text
        assert response.headers["x-request-id"] == "req-7"


async def test_every_answer_carries_a_request_id(shop: Shop) -> None:
    first, second = [(await shop.http.get(path)).headers["x-request-id"] for path in ("/livez", "/nothing")]
    assert first != second
    unsound = await shop.http.get("/livez", headers={"X-Request-ID": "a b\tc"})
    assert unsound.headers["x-request-id"] != "a b\tc"


async def test_a_declared_body_that_is_too_large_is_refused_unread(settings: Settings) -> None:
    async with running(settings.model_copy(update={"max_body_bytes": 1_024}), filled=False) as shop:
        response = await shop.http.post("/v1/events", json=["x" * 2_000])
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "body_too_large"


async def test_a_streamed_body_ends_where_the_limit_is(settings: Settings) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1_000_000:
            sent += 512
            yield b" " * 512

    async with running(settings.model_copy(update={"max_body_bytes": 1_024}), filled=False) as shop:
        headers = {"Content-Type": "application/json"}
        response = await shop.http.post("/v1/events", content=endless(), headers=headers)
    assert response.status_code == 413
    assert sent < 10_000


@pytest.fixture
async def locked(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    digests = Settings.from_environment({"MODISTE_API_KEYS": f"another-key-altogether,{KEY}"}).api_keys
    async with running(settings.model_copy(update={"api_keys": digests}), filled=False) as shop:
        yield shop.http


async def test_a_key_opens(locked: httpx2.AsyncClient) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}):
        assert (await locked.get("/v1/bundles", headers=headers)).status_code == 200, headers


async def test_nothing_else_opens(locked: httpx2.AsyncClient) -> None:
    for headers in (
        {},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": ""},
        {"X-API-Key": "ÿ".encode("latin-1")},
    ):
        response = await locked.get("/v1/bundles", headers=headers)
        assert response.status_code == 401, headers
        assert response.json()["error"]["type"] == "unauthorised"
        assert response.headers["www-authenticate"] == "Bearer"


async def test_no_spelling_of_a_path_gets_around_the_keys(locked: httpx2.AsyncClient) -> None:
    for path in ("/v1", "//v1/bundles", "/%761/bundles", "/v1/../v1/bundles", "/v1/bundles/", "/nothing"):
        assert (await locked.get(path)).status_code == 401, path


async def test_probes_and_documentation_need_no_key(locked: httpx2.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert (await locked.get(path)).status_code == 200, path


async def test_a_wrong_method_is_told_all_right_ones(shop: Shop) -> None:
    """Each method of an address is a route of its own."""
    response = await shop.http.post("/v1/customers/anna")
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET")
