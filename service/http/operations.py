"""For those who run the service: probes, metrics, bundles."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from model_store.errors import InvalidBundle
from service import errors
from service.http.errors import documented
from service.http.responses import json_response
from service.http.schemas import Activated, Bundles, Health
from service.http.services import Services, services

router = APIRouter()


@router.get("/livez", response_model=Health, tags=["operations"])
async def livez() -> Response:
    """Whether this process runs. Asks nothing else, so that a Redis that is down restarts no pod."""
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=Health, responses=documented(errors.NotReady), tags=["operations"])
async def readyz(request: Request) -> Response:
    """Whether this process answers recommendations: its bundle's golden cases hold and the catalogue is loaded.

    Stays ready while Redis is down, since recommendations are then answered from memory.
    """
    assert services(request).live is not None
    return json_response({"status": "ok"})


@router.get("/metrics", response_class=Response, tags=["operations"])
async def metrics(request: Request) -> Response:
    """Figures for Prometheus, in its text format; those of the generators as Redis last told them."""
    return Response(await metrics_page(services(request)), media_type=CONTENT_TYPE_LATEST)


async def metrics_page(parts: Services) -> bytes:
    """All figures as they are at this moment, in Prometheus' text format."""
    parts.show()
    if parts.queue is not None:
        with suppress(errors.StoreUnavailable):
            parts.metrics.show_generations(await parts.queue.figures())
    with suppress(errors.StoreUnavailable):
        parts.metrics.show_replay(await parts.board.read())
    return parts.metrics.page()


@router.get("/v1/bundles", response_model=Bundles, tags=["bundles"])
async def bundles(request: Request) -> Response:
    """All bundles of the store, which of them is live, and how many customers have a state of it already."""
    parts = services(request)
    answer: dict[str, Any] = {"live": parts.lives.version, "bundles": await parts.lives.bundles(), "replay": None}
    with suppress(errors.StoreUnavailable):
        progress = await parts.board.read()
        if progress is not None and progress.version == parts.lives.version:
            answer["replay"] = {"total": progress.total, "done": progress.done, "ended": progress.ended}
    return json_response(answer)


@router.post(
    "/v1/bundles/{version:identifier}/activate",
    response_model=Activated,
    responses=documented(
        errors.UnknownBundle, InvalidBundle, errors.ActivationInProgress, errors.NotReady, errors.StoreUnavailable
    ),
    tags=["bundles"],
)
async def activate(
    request: Request, version: Annotated[str, Path(description="A version that GET /v1/bundles lists.")]
) -> Response:
    """Serve from another bundle, on every worker, without a dropped request.

    The answer comes once this worker serves it, its golden cases hold and it has encoded the whole live catalogue;
    other workers follow on their own. A bundle that is damaged is refused, and the old one keeps serving.
    """
    live = await services(request).lives.activate(version)
    return json_response({"bundle": live.version, "articles": len(live.index)})
