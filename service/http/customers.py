"""Recommendations for a customer, and what is stored about one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from model_store.history import Purchase, effective_history
from model_store.records import Event, Identifier
from service import errors
from service.answers import shown_generation
from service.errors import GenerationUnavailable, UnknownCustomer
from service.http.direct import DirectRoute
from service.http.errors import documented
from service.http.filters import filters_of
from service.http.responses import JSON, NO_CONTENT, json_response
from service.http.schemas import Customer, RecommendationQuery, Recommendations
from service.http.services import services
from service.rankings import Wish
from service.state.customer import CustomerState

router = APIRouter(prefix="/v1/customers", tags=["customers"])
hot = APIRouter(prefix="/v1/customers", tags=["customers"], route_class=DirectRoute)

CustomerId = Annotated[Identifier, Path(description="The customer's id, percent-encoded.")]


@hot.get(
    "/{customer_id:identifier}/recommendations",
    response_model=Recommendations,
    responses=documented(errors.InvalidRequest, errors.GenerationUnavailable, errors.NotReady),
)
async def recommendations(
    request: Request, customer_id: CustomerId, query: Annotated[RecommendationQuery, Query()]
) -> Response:
    """What this customer should see next, out of what is in stock; for customers nobody knows, what is trending.

    Answers even while Redis is down, from memory, with `degraded: true`. Never waits for the language model but for
    `wait_ms`; what it has not written yet is asked for, for the next answer.
    """
    parts = services(request)
    live = parts.live
    if query.strategy == "generated" and live.titles is None:
        raise GenerationUnavailable("the live bundle has no generating half; use blended, style or trending")
    wish = Wish(
        customer_id,
        query.n,
        query.strategy,
        filters_of(query),
        query.exclude_purchased,
        query.at,
        query.explain,
        query.query,
        query.wait_ms / 1_000,
    )
    return Response(await parts.recommender.recommend(live, wish), media_type=JSON)


@router.get(
    "/{customer_id:identifier}",
    response_model=Customer,
    responses=documented(errors.InvalidRequest, errors.UnknownCustomer, errors.StoreUnavailable),
)
async def stored(request: Request, customer_id: CustomerId) -> Response:
    """All that is stored about a customer, and the state that was derived from it."""
    customers = services(request).customers
    history = await customers.read_log(customer_id)
    view = await customers.read(customer_id)
    searching = await customers.read_searching(customer_id)
    if not history.events and not view.session and view.state is None:
        raise UnknownCustomer(f"nothing is stored about customer '{customer_id}'")
    kept, returned = effective_history(history.events)
    return json_response(
        {
            "customer_id": customer_id,
            "events": [_event(event) for event in sorted(history.events, key=lambda e: (e.timestamp, e.event_id))],
            "history": [_purchase(purchase) for purchase in kept],
            "returned": sorted(returned),
            "session": [_event(event) for event in view.session],
            "state": None if view.state is None else _state(view.state),
            "generation": None if view.generation is None else shown_generation(view.generation),
            "searching": None if searching is None else shown_generation(searching),
        }
    )


@router.delete(
    "/{customer_id:identifier}",
    status_code=204,
    response_class=Response,
    responses=documented(errors.InvalidRequest, errors.StoreUnavailable),
)
async def erase(request: Request, customer_id: CustomerId) -> Response:
    """Erase all that is stored about a customer. Erasing a customer nobody knows does nothing, and is no error."""
    parts = services(request)
    await parts.customers.erase(customer_id)
    await parts.recommender.forget(customer_id)
    return Response(status_code=NO_CONTENT)


def _event(event: Event) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "type": event.type.value,
        "article_id": event.article_id,
        "query": event.query,
        "timestamp": _iso(event.timestamp),
        "order_id": event.order_id,
        "position": event.position,
    }


def _purchase(purchase: Purchase) -> dict[str, Any]:
    return {
        "event_id": purchase.event_id,
        "article_id": purchase.article_id,
        "timestamp": _iso(purchase.timestamp),
        "order_id": purchase.order_id,
    }


def _state(state: CustomerState) -> dict[str, Any]:
    return {
        "bundle": state.bundle,
        "consumed": state.consumed,
        "pending": None if state.pending is None else _purchase(state.pending),
        "skipped": list(state.skipped),
    }


def _iso(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")
