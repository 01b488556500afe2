"""What FastAPI cannot see for itself: bodies that are checked entry by entry, keys that are checked before routing."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.http.schemas import ArticleIn, EventIn, StockIn

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (EventIn, ArticleIn, StockIn)

_OF_KEYS = {
    "401": "Unauthorized: `unauthorised`, where keys are set",
    "403": "Forbidden: `forbidden`, where the key is good for other calls",
    "429": "Too Many Requests: `too_many_requests`, where there is a limit",
}

EXAMPLES: dict[type[BaseModel], list[dict[str, Any]]] = {
    EventIn: [
        {
            "event_id": "order-1001-line-1",
            "type": "purchase",
            "customer_id": "c-17",
            "article_id": "a000",
            "timestamp": "2026-05-01T12:30:00Z",
            "order_id": "order-1001",
        },
        {"type": "search", "customer_id": "c-17", "query": "linen dress"},
    ],
    ArticleIn: [
        {
            "article_id": "a-new-1",
            "title": "Linen dress",
            "category": "dress",
            "brand": "Aster",
            "colour": "green",
            "gender": "women",
            "price": 59.9,
            "tags": ["summer"],
            "materials": {"linen": 80, "cotton": 20},
        }
    ],
    StockIn: [{"article_id": "a000", "quantity": 12, "set_time": "2026-05-01T12:30:00Z"}],
}
"""Requests that work on the sample bundle; a test sends them."""


def json_request(entry: type[BaseModel], *, one_allowed: bool = False) -> dict[str, Any]:
    """``openapi_extra`` of an endpoint that takes an array of ``entry``, or also a single one."""
    ref = {"$ref": _REF.format(model=entry.__name__)}
    array: dict[str, Any] = {"type": "array", "items": ref, "maxItems": 1_000}
    schema = {"anyOf": [array, ref]} if one_allowed else array
    content = {"application/json": {"schema": schema, "example": EXAMPLES[entry]}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> None:
    """Add schemas of bodies and the API keys to the application's OpenAPI document."""
    make = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            schemas = document["components"]["schemas"]
            _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REF)
            for name, schema in bodies["$defs"].items():
                schemas.setdefault(name, schema)
            for unused in ("HTTPValidationError", "ValidationError"):  # validation errors have our own shape
                schemas.pop(unused, None)
            _add_keys(document)
            _add_bad_requests(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]


def _add_keys(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        if path.startswith("/v1"):
            for operation in operations.values():
                operation["security"] = [{}, {"bearer": []}, {"header": []}]  # {}: where no keys are set
                operation["responses"] |= {status: _error(text) for status, text in _OF_KEYS.items()}


def _error(description: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="ErrorAnswer")}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _add_bad_requests(document: dict[str, Any]) -> None:
    """What the server answers before the application is asked, in text: for instance to 64 KiB of parameters."""
    for operations in document["paths"].values():
        for operation in operations.values():
            known = operation["responses"].setdefault("400", {"description": "Bad Request"})
            known["description"] += "; in plain text where the request is not HTTP, or its head exceeds 64 KiB"
            known.setdefault("content", {})["text/plain"] = {}
