"""Reading requests: path parameters that survive any character, query strings, JSON bodies."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote

import orjson
from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.convertors import Convertor, register_url_convertor

from model_store.records import Identifier, describe_validation_error
from service.errors import InvalidRequest, MalformedBody, UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_MAX_QUERY_FIELDS = 4_096


class PercentDecoded(Convertor[str]):
    """One segment of a path that was matched undecoded (``middleware.RawPath``), so that an id may hold ``%2F``."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value, errors="surrogateescape")

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("identifier", PercentDecoded())


def path_identifier(request: Request, name: str) -> str:
    """An id in the path. Raises InvalidRequest where the contract allows no such id."""
    try:
        return _IDENTIFIER.validate_python(request.path_params[name])
    except ValidationError as error:
        raise InvalidRequest(describe_validation_error(error)[1], field=name) from None


@cache
def _repeatable(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if isinstance(field.get_default(), tuple))


def parse_query(request: Request, model: type[Model]) -> Model:
    """The query string as ``model``, whose fields with a tuple for default are repeatable.

    Raises InvalidRequest naming the parameter: unknown, given twice where one value is meant, or out of range.
    """
    query_string: bytes = request.scope["query_string"]
    values: dict[str, Any] = {}
    if query_string:
        repeatable = _repeatable(model)
        for name, value in _query_fields(query_string):
            if name in repeatable:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise InvalidRequest("must be given only once", field=name)
            else:
                values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid(error) from None


def _query_fields(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode("utf-8", "surrogateescape"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=_MAX_QUERY_FIELDS,
        )
    except ValueError:
        raise InvalidRequest(f"the query string has more than {_MAX_QUERY_FIELDS} parameters") from None


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        return InvalidRequest("there is no such parameter; see /docs", field=str(first["loc"][0]))
    field, message = describe_validation_error(error)
    return InvalidRequest(message, field=field.split(".")[0] if field else None)


async def json_body(request: Request) -> Any:
    """The body's JSON. Raises UnsupportedMediaType, BodyTooLarge or MalformedBody."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        # Any page in a browser may send other types to any address without asking it first.
        raise UnsupportedMediaType("the body must be sent with 'Content-Type: application/json'")
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON in UTF-8: {error}") from None


async def json_array(request: Request, most: int, *, one_allowed: bool = False) -> list[Any]:
    """The body as an array of up to ``most`` entries, where ``one_allowed`` a single object stands for one."""
    body = await json_body(request)
    if one_allowed and isinstance(body, dict):
        return [body]
    if not isinstance(body, list):
        raise InvalidRequest(f"the body must be an array{' or one object' if one_allowed else ''}")
    if len(body) > most:
        raise InvalidRequest(f"the array has {len(body)} entries; at most {most} are taken at once")
    return body
