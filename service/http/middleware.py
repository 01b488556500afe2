"""What every request passes, outermost first, as plain ASGI: it costs microseconds and never buffers a body."""

from __future__ import annotations

import itertools
import logging
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, Forbidden, TooManyRequests, Unauthorised
from service.http.errors import answer_error, status_of, unexpected
from service.keys import ApiKey, find_key, scope_of
from service.log_lines import request_id as current_request_id
from service.metrics import Metrics
from service.rate_limit import RateLimit

log = logging.getLogger(__name__)

OPEN = frozenset({"/livez", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""Paths that never need an API key."""
_SOUND_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestIds:
    """Gives each request an id (the caller's own, where it sends a sound one) and answers what nobody expected.

    An unexpected error is logged with its trace and the id; the caller learns the id only.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        current_request_id.set(request_id)
        header = (b"x-request-id", request_id)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            answer = answer_error(error)  # raised by an inner layer, outside of any route
            if answer is None:
                log.exception("request %s failed: %s %s", request_id.decode(), scope["method"], scope["path"])
                answer = unexpected()
            if not started:
                await answer(scope, receive, send_with_id)


_PROCESS = uuid.uuid4().hex[:16].encode()
_numbers = itertools.count()


def _request_id(scope: Scope) -> bytes:
    """The caller's, or the process's random name and a number."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SOUND_REQUEST_ID.fullmatch(value):
            own: bytes = value
            return own
    return b"%s-%x" % (_PROCESS, next(_numbers))


class RawPath:
    """Routes by the path as it was sent: a percent-encoded slash belongs to an id and does not end it.

    The ids are decoded by ``requests.PercentDecoded``.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes | None = scope.get("raw_path")  # optional in ASGI
            path = quote(scope["path"], safe="/") if raw is None else raw.decode("utf-8", "surrogateescape")
            scope["path"] = path
        await self.app(scope, receive, send)


class BodyLimit:
    """Ends a request whose body exceeds ``most`` bytes as soon as that is known, declared length or not."""

    def __init__(self, app: ASGIApp, most: int):
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self.most:
            raise self._too_large()
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.most:
                    raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self.most:,} bytes (MODISTE_MAX_BODY_BYTES); send less at once")


class ApiKeys:
    """Lets only those in who show a key that is good for the call, but to probes, documentation and ``also_open``.

    No ``keys`` let everybody in. A key's requests are counted where the application has a ``RateLimit``.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], also_open: Iterable[str] = ()):
        self.app, self.keys, self.open = app, keys, OPEN.union(also_open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.keys and scope["type"] == "http" and scope["path"] not in self.open:
            key = self._check(scope)
            limit: RateLimit | None = scope["app"].state.services.limit
            if limit is not None and not await limit.allows(key.digest):
                raise TooManyRequests("this API key makes more requests a second than are allowed; send them later")
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> ApiKey:
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        key = find_key(self.keys, shown.encode("latin-1"))
        if key is None:
            raise Unauthorised("this call needs an API key: 'Authorization: Bearer <key>' or 'X-API-Key: <key>'")
        needed = scope_of(scope["method"], scope["path"])
        if not key.may(needed):
            raise Forbidden(f"this API key is not good for this call, which needs one for '{needed}'")
        return key


class Measured:
    """Counts and times requests by route, method and status; where they are ``logged``, a line tells of each."""

    def __init__(self, app: ASGIApp, metrics: Metrics, logged: bool):
        self.app, self.metrics, self.logged = app, metrics, logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        self.metrics.in_progress += 1
        status = 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except Exception as error:
            status = status_of(error)
            raise
        finally:
            self.metrics.in_progress -= 1
            route = getattr(scope.get("route"), "path_format", "none")  # not the path: its ids are without number
            seconds = time.perf_counter() - start
            self.metrics.count_request(scope["method"], route, status, seconds)
            if self.logged:
                _log_request(scope["method"], route, status, seconds)


def _log_request(method: str, route: str, status: int, seconds: float) -> None:
    milliseconds, request_id = round(seconds * 1e3, 3), (current_request_id.get() or b"-").decode()
    fields = {"method": method, "route": route, "status": status, "milliseconds": milliseconds}
    log.info("%s %s %d %.3f ms, %s", method, route, status, milliseconds, request_id, extra={"fields": fields})
