"""Every error as one shape, ``{"error": {"type", "message", "field"?}}``, and never a stack trace (design §7)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from model_store import errors as contract
from service import errors
from service.http.schemas import ErrorAnswer
from service.log_lines import request_id

RETRY_AFTER = 1  # seconds; a Redis that restarts is back within one or two


class Kind(NamedTuple):
    """How one class of errors is answered."""

    status: int
    type: str


KINDS: dict[type[Exception], Kind] = {
    errors.InvalidRequest: Kind(422, "invalid_request"),
    contract.InvalidRecord: Kind(422, "invalid_request"),
    errors.GenerationUnavailable: Kind(422, "generation_unavailable"),
    errors.MalformedBody: Kind(400, "malformed_json"),
    errors.UnsupportedMediaType: Kind(415, "unsupported_media_type"),
    errors.BodyTooLarge: Kind(413, "body_too_large"),
    errors.Unauthorised: Kind(401, "unauthorised"),
    errors.Forbidden: Kind(403, "forbidden"),
    errors.TooManyRequests: Kind(429, "too_many_requests"),
    errors.UnknownArticle: Kind(404, "unknown_article"),
    errors.UnknownCustomer: Kind(404, "unknown_customer"),
    errors.UnknownBundle: Kind(404, "unknown_bundle"),
    errors.UnknownReport: Kind(404, "unknown_report"),
    errors.ActivationInProgress: Kind(409, "activation_in_progress"),
    contract.InvalidBundle: Kind(422, "invalid_bundle"),
    errors.NotReady: Kind(503, "not_ready"),
    errors.StoreUnavailable: Kind(503, "store_unavailable"),
    # Met by generators alone: no request asks a language model for anything.
    errors.LanguageModelUnavailable: Kind(503, "language_model_unavailable"),
    errors.PromptRefused: Kind(500, "prompt_refused"),
}
INTERNAL = Kind(500, "internal")


def error_response(
    kind: Kind, message: str, field: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """An error in the one shape."""
    body = {"type": kind.type, "message": message} | ({} if field is None else {"field": field})
    all_headers = dict(headers or {})
    if kind.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        all_headers["Retry-After"] = str(RETRY_AFTER)
    if kind.status == HTTPStatus.UNAUTHORIZED:
        all_headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps({"error": body}), kind.status, all_headers, media_type="application/json")


def answer_error(error: Exception) -> Response | None:
    """The answer to an error of ``KINDS``, or None where it is not one."""
    for ancestor in type(error).__mro__:
        if ancestor in KINDS:
            return error_response(KINDS[ancestor], str(error), getattr(error, "field", None))
    return None


def known_error(request: Request, error: Exception) -> Response | None:
    """``answer_error`` of what a route raised; what is to be counted is counted."""
    if isinstance(error, errors.StoreUnavailable):
        request.app.state.services.metrics.count_store_failure(error.reason)
    return answer_error(error)


def unexpected() -> Response:
    """The answer to an error that nobody expected: the log tells which, under the request's id."""
    request = (request_id.get() or b"-").decode()
    return error_response(INTERNAL, f"the service failed; its log tells more under {request}")


def status_of(error: Exception) -> int:
    """The HTTP status that an error which reached no route is answered with."""
    return next((KINDS[kind].status for kind in type(error).__mro__ if kind in KINDS), INTERNAL.status)


def install(app: FastAPI, routes: Iterable[BaseRoute]) -> None:
    """Translate what routes, Starlette and FastAPI raise. ``routes``: all that the application has of its own."""
    app.state.routes = tuple(routes)
    for kind in KINDS:
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)


async def _known(request: Request, error: Exception) -> Response:
    answer = known_error(request, error)
    assert answer is not None
    return answer


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return unexpected()  # Starlette raises it again, for ``middleware.RequestIds`` to log


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.NOT_FOUND:
        return error_response(Kind(status, "not_found"), "there is nothing at this address; see /docs", None, headers)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods_at(request.app.state.routes, request.scope)))
        message = f"{request.method} is not among the methods of this address: {headers['Allow']}"
        return error_response(Kind(status, "method_not_allowed"), message, None, headers)
    return error_response(Kind(status, status.phrase.lower().replace(" ", "_")), str(error.detail), None, headers)


def _methods_at(routes: Iterable[BaseRoute], scope: Scope) -> set[str]:
    """All methods of an address: each of its routes knows its own only."""
    here = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    return {method for route in here for method in getattr(route, "methods", None) or ()}


async def _validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or None
    return error_response(KINDS[errors.InvalidRequest], first["msg"].removeprefix("Value error, "), field)


def documented(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of an endpoint that may raise ``kinds``."""
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(KINDS[kind].status, []).append(f"`{KINDS[kind].type}`")
    return {
        status: {"model": ErrorAnswer, "description": f"{HTTPStatus(status).phrase}: {', '.join(types)}"}
        for status, types in sorted(by_status.items())
    }
