"""Pages for people: today the documentation, with headers that let a browser do nothing else with it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

router = APIRouter(include_in_schema=False)

_CDN = "https://cdn.jsdelivr.net"
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; connect-src 'self'; script-src 'unsafe-inline' {_CDN}; "
    f"style-src 'unsafe-inline' {_CDN}; img-src data: https://fastapi.tiangolo.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Scripts and styles of Swagger UI come from where FastAPI says; everything else from here, and nothing is framed."""


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The OpenAPI document, to read and to try."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=f"{request.app.title}: API")
    page.headers.update(HEADERS)
    return page
