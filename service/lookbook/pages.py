"""The page itself: its shell at ``/``, and its scripts, styles and drawings, read once and served from memory.

What is served is what lies in ``assets``, and the charts' library as it was released (``vendor/uplot``: uPlot 1.6.32),
each of its files behind its licence. A browser may do nothing with them but run them here and ask this service.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Request, Response

from service.http.services import services

router = APIRouter(include_in_schema=False)

SHELL = "index.html"
_SERVED = re.compile(r"[a-z0-9_-]+\.(js|css|svg)")
_MEDIA_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
_VENDORED = {"uplot.js": "uPlot.iife.min.js", "uplot.css": "uPlot.min.css"}
_KEYS = b"{{keys}}"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Asset(NamedTuple):
    """Bytes, their media type, and a name that changes with them."""

    content: bytes
    media_type: str
    etag: str


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, _MEDIA_TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _assets() -> dict[str, Asset]:
    names = (each.name for each in _FOLDER.iterdir())
    ours = {name: _FOLDER.joinpath(name).read_bytes() for name in names if _SERVED.fullmatch(name)}
    licence = b"/*\n%s*/\n" % _UPLOT.joinpath("LICENSE").read_bytes()
    theirs = {name: licence + _UPLOT.joinpath(released).read_bytes() for name, released in _VENDORED.items()}
    return {name: _asset(name, content) for name, content in (ours | theirs).items()}


_FOLDER = files("service.lookbook").joinpath("assets")
_UPLOT = files("service.lookbook").joinpath("vendor", "uplot")
_SHELL = _FOLDER.joinpath(SHELL).read_bytes()
ASSETS = _assets()
PREFIX = "/lookbook/assets/"


def open_paths() -> Iterable[str]:
    """Paths that need no API key: the page asks for one itself."""
    return ["/", *(PREFIX + name for name in ASSETS)]


@router.get("/")
async def shell(request: Request) -> Response:
    """The page, which asks for everything else."""
    keys = b"required" if services(request).settings.api_keys else b"none"
    return Response(_SHELL.replace(_KEYS, keys), media_type="text/html; charset=utf-8", headers=HEADERS)


@router.get(PREFIX + "{name}")
async def asset(name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """One file of the page."""
    found = ASSETS.get(name)
    if found is None:
        return Response(status_code=404)
    headers = {**HEADERS, "ETag": found.etag}
    if if_none_match == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
