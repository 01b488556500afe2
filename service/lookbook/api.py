"""The page's own calls: JSON for the lookbook, beside the contract of ``/v1`` and free to change with the page.

Where API keys are asked for, all need one that is good for everything: they tell what customers did.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from model_store.bundle import REPORT
from model_store.records import Identifier
from service.catalogue.records import CatalogueEntry
from service.engine.filters import FACETS
from service.errors import UnknownArticle, UnknownReport
from service.http.operations import metrics_page
from service.http.responses import json_response
from service.http.services import Services, services
from service.lookbook import customers
from service.lookbook.atlas import Planes, chosen_of, map_of
from service.lookbook.cards import NO_DNA, card_of, read_cards
from service.lookbook.figures import figures_of
from service.lookbook.people import find
from service.lookbook.pictures import picture_of
from service.lookbook.queries import CardsQuery, GenerationQuery, OperationsQuery, PathQuery, PeopleQuery
from service.lookbook.thinking import Prompts

router = APIRouter(prefix="/lookbook", include_in_schema=False)

CustomerId = Annotated[Identifier, Path()]
ArticleId = Annotated[Identifier, Path()]
MOST_FACETS = 50
LOOK_FOR = 0.5
"""Seconds in which customers are looked for."""
_PLURALS = {"category": "categories", "brand": "brands", "colour": "colours", "gender": "genders"}
_PICTURE_HEADERS = {
    "Cache-Control": "private, max-age=60, stale-while-revalidate=3600",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
_REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Lookbook:
    """What the page's calls work with beside the services: one for each process."""

    planes: Planes
    prompts: Prompts

    @classmethod
    def over(cls, parts: Services) -> Lookbook:
        """For one worker's services."""
        return cls(Planes(), Prompts(parts.catalogue))


def _lookbook(request: Request) -> Lookbook:
    found: Lookbook = request.app.state.lookbook
    return found


@router.get("/shop")
async def shop(request: Request) -> Response:
    """What is on sale, and what it can be narrowed by."""
    parts = services(request)
    live = parts.live
    facets = {_PLURALS[facet]: live.index.facets(facet, MOST_FACETS) for facet in FACETS}
    return json_response(
        {
            "bundle": live.version,
            "generating": live.titles is not None,
            "articles": live.index.in_stock_count,
            "now": parts.clock(),
            **facets,
        }
    )


@router.get("/customers")
async def people(request: Request, query: Annotated[PeopleQuery, Query()]) -> Response:
    """Customers whose ids hold a text."""
    found = await find(services(request).customers, query.q or "", query.n, LOOK_FOR, time.monotonic)
    return json_response({"customers": found.customer_ids, "complete": found.complete})


@router.get("/customers/{customer_id:identifier}")
async def customer(request: Request, customer_id: CustomerId) -> Response:
    """What a customer did."""
    return json_response(await customers.shown(services(request), customer_id))


@router.get("/customers/{customer_id:identifier}/path")
async def path(request: Request, customer_id: CustomerId, query: Annotated[PathQuery, Query()]) -> Response:
    """How a customer's style moved, on the plane of the map."""
    parts = services(request)
    live = parts.live
    plane = await _lookbook(request).planes.of(live)
    return json_response(await customers.path(parts, live, plane, customer_id, query.at))


@router.get("/customers/{customer_id:identifier}/generation")
async def generation(request: Request, customer_id: CustomerId, query: Annotated[GenerationQuery, Query()]) -> Response:
    """What the language model reads of a customer and wrote, and what becomes of it."""
    parts = services(request)
    prompts = _lookbook(request).prompts
    return json_response(await customers.generation(parts, parts.live, prompts, customer_id, query.query))


@router.get("/articles")
async def cards(request: Request, query: Annotated[CardsQuery, Query()]) -> Response:
    """Some articles as they are now, in the order that was asked for."""
    found = await read_cards(services(request).catalogue, query.id)
    return json_response({"articles": [found[each] for each in query.id if each in found]})


@router.get("/articles/{article_id:identifier}")
async def article(request: Request, article_id: ArticleId) -> Response:
    """All that is known of an article, its stock, and its place on the map."""
    parts = services(request)
    entry = await _entry(parts, article_id)
    (picture,) = await parts.catalogue.read_images([article_id])
    return json_response(
        {
            "article": entry.article.model_dump(mode="json", exclude={"created_at", "image"}),
            "created_at": entry.article.created_at,
            **{name: card_of(entry)[name] for name in ("quantity", "in_stock", "live")},
            "picture": picture is not None,
            "place": await _place(request, article_id),
        }
    )


@router.get("/articles/{article_id:identifier}/picture")
async def picture(
    request: Request, article_id: ArticleId, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The article's picture, or a drawn one."""
    parts = services(request)
    entry = await _entry(parts, article_id)
    headers = {"ETag": f'"{entry.fingerprint}"', **_PICTURE_HEADERS}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    (kept,) = await parts.catalogue.read_images([article_id])
    shown = picture_of(entry.article, kept)
    return Response(shown.content, media_type=shown.media_type, headers=headers)


@router.get("/map")
async def article_map(request: Request) -> Response:
    """Where articles lie, and in which clusters."""
    live = services(request).live
    plane = await _lookbook(request).planes.of(live)
    return json_response(await asyncio.to_thread(map_of, chosen_of(live.index), plane))


@router.get("/operations")
async def operations(request: Request, query: Annotated[OperationsQuery, Query()]) -> Response:
    """The live bundle, and the figures that matter."""
    parts = services(request)
    manifest = parts.live.bundle.manifest
    figures = figures_of(await metrics_page(parts), query.since)
    return json_response(
        {
            "bundle": {
                "version": manifest.version,
                "created": manifest.created,
                "data_set": manifest.data_set.model_dump(),
                "blend": manifest.blend.model_dump(),
                "metrics": _headline(manifest.metrics),
            },
            **figures,
            "report": REPORT in manifest.files,
            "now": parts.clock(),
        }
    )


@router.get("/report")
async def report(request: Request) -> Response:
    """The live bundle's evaluation report, one page by itself."""
    bundle = services(request).live.bundle
    if REPORT not in bundle.manifest.files:
        raise UnknownReport(f"bundle {bundle.version} holds no report: evaluate the run before it is exported")
    content = await asyncio.to_thread(bundle.path(REPORT).read_bytes)
    return Response(content, media_type="text/html; charset=utf-8", headers=_REPORT_HEADERS)


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """Of a bundle's evaluation, the one table that stands for all; nothing where it was not evaluated."""
    chief = metrics.get("headline")
    return {} if chief is None else {"headline": chief, "tables": {chief: metrics["tables"][chief]}}


async def _entry(parts: Services, article_id: str) -> CatalogueEntry:
    (entry,) = await parts.catalogue.read([article_id], NO_DNA)
    if entry is None:
        raise UnknownArticle(f"article '{article_id}' is not in the catalogue")
    return entry


async def _place(request: Request, article_id: str) -> dict[str, float] | None:
    live = services(request).live
    dna = live.index.dna_of(article_id)
    if dna is None:
        return None
    plane = await _lookbook(request).planes.of(live)
    ((x, y),) = plane.places(dna[None]).tolist()
    return {"x": x, "y": y}
