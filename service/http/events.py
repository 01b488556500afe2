"""What customers did."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service import errors
from service.http.direct import DirectRoute
from service.http.errors import documented
from service.http.openapi import json_request
from service.http.requests import json_array
from service.http.responses import entry_error, json_response
from service.http.schemas import EventIn, EventsAnswer
from service.http.services import services

hot = APIRouter(prefix="/v1", tags=["events"], route_class=DirectRoute)


@hot.post(
    "/events",
    response_model=EventsAnswer,
    responses=documented(
        errors.InvalidRequest,
        errors.MalformedBody,
        errors.UnsupportedMediaType,
        errors.BodyTooLarge,
        errors.NotReady,
        errors.StoreUnavailable,
    ),
    openapi_extra=json_request(EventIn, one_allowed=True),
)
async def record(request: Request) -> Response:
    """Store events, in any order: one object, or an array of up to 1,000.

    What is accepted is stored, and counts in the very next answer. What is rejected may be put right and sent again
    under its event_id. After 503 nothing may be taken as stored: send all of it again, under the same event_ids.
    """
    parts = services(request)
    raw = await json_array(request, parts.settings.max_batch, one_allowed=True)
    answer = await parts.recorder.record(parts.live.style, raw)
    parts.metrics.count_events(answer.accepted, answer.duplicates, len(answer.rejected))
    return json_response(
        {
            "accepted": answer.accepted,
            "duplicates": answer.duplicates,
            "rejected": [
                entry_error(rejection.index, rejection.type, rejection.message, rejection.field)
                for rejection in answer.rejected
            ],
        }
    )
