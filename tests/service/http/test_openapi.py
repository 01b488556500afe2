"""The OpenAPI document says what the service does: real answers fit its schemas, and its examples work."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from service_running import Shop

from service.http.openapi import EXAMPLES
from service.http.schemas import ArticleIn, EventIn, StockIn

CONTRACT = {
    "/v1/events": {"post"},
    "/v1/customers/{customer_id}/recommendations": {"get"},
    "/v1/articles/{article_id}/similar": {"get"},
    "/v1/search": {"get"},
    "/v1/articles": {"put"},
    "/v1/articles/{article_id}": {"delete"},
    "/v1/stock": {"patch"},
    "/v1/customers/{customer_id}": {"get", "delete"},
    "/v1/bundles": {"get"},
    "/v1/bundles/{version}/activate": {"post"},
    "/livez": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}
PARAMETERS = {
    "customer_id", "n", "strategy", "query", "category", "brand", "colour", "gender", "price_min", "price_max",
    "exclude", "exclude_purchased", "at", "wait_ms", "explain",
}  # fmt: skip


@pytest.fixture
async def document(shop: Shop) -> dict[str, Any]:
    response = await shop.http.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def strict(schema: Any) -> Any:
    """The schema with nothing allowed in an object that it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(value) for key, value in schema.items()}
    if inner.get("type") == "object" and "properties" in inner:
        inner.setdefault("additionalProperties", False)
    return inner


def check(document: dict[str, Any], answer: Any, path: str, method: str, status: str) -> None:
    """``answer`` fits what the document says of this call, to the letter."""
    schema = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    Draft202012Validator({**strict(schema), "components": strict(document["components"])}).validate(answer)


async def test_every_call_of_the_contract_is_documented(document: dict[str, Any]) -> None:
    assert {path: set(calls) for path, calls in document["paths"].items()} == CONTRACT
    call = document["paths"]["/v1/customers/{customer_id}/recommendations"]["get"]
    assert {parameter["name"] for parameter in call["parameters"]} == PARAMETERS
    assert "HTTPValidationError" not in str(document)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [each for value in part.values() for each in references(value)]
        return [each for value in part for each in references(value)] if isinstance(part, list) else []

    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    assert references(document)


async def test_examples_are_accepted(shop: Shop) -> None:
    assert (await shop.http.put("/v1/articles", json=EXAMPLES[ArticleIn])).json()["rejected"] == []
    assert (await shop.http.post("/v1/events", json=EXAMPLES[EventIn])).json()["rejected"] == []
    assert (await shop.http.patch("/v1/stock", json=EXAMPLES[StockIn])).json()["rejected"] == []


async def test_real_answers_fit_their_schemas(shop: Shop, document: dict[str, Any]) -> None:
    await shop.buy("c1", "a003")
    await shop.tell({"type": "search", "customer_id": "c1", "query": "coat"})
    recommendations = "/v1/customers/{customer_id}/recommendations"
    for query in ({}, {"explain": True}, {"strategy": "trending"}, {"strategy": "style", "n": 200}):
        check(document, await shop.recommend("c1", **query), recommendations, "get", "200")
        check(document, await shop.recommend("nobody", **query), recommendations, "get", "200")

    calls: list[tuple[str, str, str, Any]] = [
        ("get", "/v1/articles/{article_id}/similar", "/v1/articles/a003/similar", None),
        ("get", "/v1/articles/{article_id}/similar", "/v1/articles/none/similar", None),
        ("get", "/v1/articles/{article_id}/similar", "/v1/articles/a003/similar?n=0", None),
        ("get", "/v1/customers/{customer_id}", "/v1/customers/c1", None),
        ("get", "/v1/customers/{customer_id}", "/v1/customers/nobody", None),
        ("get", recommendations, "/v1/customers/c1/recommendations?strategy=generated", None),
        ("post", "/v1/events", "/v1/events", {"type": "click", "customer_id": "c1", "article_id": "none"}),
        ("post", "/v1/events", "/v1/events", [{"type": "click", "customer_id": "c1", "article_id": "a003"}]),
        ("post", "/v1/events", "/v1/events", "no event"),
        ("put", "/v1/articles", "/v1/articles", [{"article_id": "x"}]),
        (
            "patch",
            "/v1/stock",
            "/v1/stock",
            [{"article_id": "x", "quantity": 1}, {"article_id": "a003", "quantity": 1}],
        ),
        ("delete", "/v1/articles/{article_id}", "/v1/articles/none", None),
        ("get", "/v1/bundles", "/v1/bundles", None),
        ("post", "/v1/bundles/{version}/activate", "/v1/bundles/none/activate", None),
        ("post", "/v1/bundles/{version}/activate", "/v1/bundles/test-1/activate", None),
        ("get", "/livez", "/livez", None),
        ("get", "/readyz", "/readyz", None),
    ]
    for method, path, address, body in calls:
        response = await shop.http.request(method, address, json=body)
        check(document, response.json(), path, method, str(response.status_code))


async def test_the_documentation_is_a_page_that_nobody_can_frame(shop: Shop) -> None:
    response = await shop.http.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in response.text
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
