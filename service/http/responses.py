"""Answers as JSON, written by orjson at once."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Response

JSON = "application/json"
NO_CONTENT = HTTPStatus.NO_CONTENT


def json_response(content: Any, status: int = HTTPStatus.OK) -> Response:
    """``content``, plain values only, as a response."""
    return Response(orjson.dumps(content), status, media_type=JSON)


def entry_error(index: int, type_: str, message: str, field: str | None) -> dict[str, Any]:
    """Why one entry of an array was not taken, with an error of the one shape."""
    error = {"type": type_, "message": message} | ({} if field is None else {"field": field})
    return {"index": index, "error": error}
