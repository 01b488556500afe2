"""The catalogue: articles, stock, what is like what, and what is called what."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from model_store.records import Identifier
from service import errors
from service.answers import found_articles, similar_articles
from service.catalogue.intake import IntakeAnswer
from service.errors import StoreUnavailable, UnknownArticle
from service.http.direct import DirectRoute
from service.http.errors import documented
from service.http.filters import filters_of
from service.http.openapi import json_request
from service.http.requests import json_array
from service.http.responses import JSON, NO_CONTENT, entry_error, json_response
from service.http.schemas import (
    ArticleIn,
    BatchAnswer,
    FoundArticles,
    SearchQuery,
    SimilarArticles,
    SimilarQuery,
    StockIn,
)
from service.http.services import Services, services

router = APIRouter(prefix="/v1", tags=["articles"])
hot = APIRouter(prefix="/v1", tags=["articles"], route_class=DirectRoute)

ArticleId = Annotated[Identifier, Path(description="The article's id, percent-encoded.")]
_CHANGES = documented(
    errors.InvalidRequest,
    errors.MalformedBody,
    errors.UnsupportedMediaType,
    errors.BodyTooLarge,
    errors.NotReady,
    errors.StoreUnavailable,
)


@router.put("/articles", response_model=BatchAnswer, responses=_CHANGES, openapi_extra=json_request(ArticleIn))
async def put_articles(request: Request) -> Response:
    """Add or replace up to 1,000 articles, each checked by itself.

    What is accepted can be recommended at once: its Fashion DNA is computed here, from its picture too. A new article
    counts as in stock until PATCH /v1/stock says otherwise.
    """
    parts = services(request)
    raw = await json_array(request, parts.settings.max_batch)
    return _answer(parts, await parts.intake.put(raw, parts.live.encoder, parts.lives))


@router.delete(
    "/articles/{article_id:identifier}",
    status_code=204,
    response_class=Response,
    responses=documented(errors.InvalidRequest, errors.UnknownArticle, errors.NotReady, errors.StoreUnavailable),
)
async def delete_article(request: Request, article_id: ArticleId) -> Response:
    """Take an article out of every answer at once. Histories that hold it keep its Fashion DNA."""
    parts = services(request)
    if not await parts.intake.delete(article_id, parts.lives):
        raise UnknownArticle(f"article '{article_id}' is not in the catalogue")
    return Response(status_code=NO_CONTENT)


@router.patch("/stock", response_model=BatchAnswer, responses=_CHANGES, openapi_extra=json_request(StockIn))
async def set_stock(request: Request) -> Response:
    """Set up to 1,000 stock levels. One older (`set_time`) than what is stored is accepted and changes nothing."""
    parts = services(request)
    raw = await json_array(request, parts.settings.max_batch)
    return _answer(parts, await parts.intake.set_stock(raw, parts.lives))


@hot.get(
    "/articles/{article_id:identifier}/similar",
    response_model=SimilarArticles,
    responses=documented(errors.InvalidRequest, errors.UnknownArticle, errors.NotReady),
)
async def similar(request: Request, article_id: ArticleId, query: Annotated[SimilarQuery, Query()]) -> Response:
    """Articles in stock whose Fashion DNA is closest to this one's, by cosine. The article itself is left out."""
    parts = services(request)
    if not parts.live.index.knows(article_id):
        with suppress(StoreUnavailable):  # another worker may just have been given it
            await parts.lives.refresh([article_id])
    live = parts.live
    return Response(similar_articles(live, article_id, query.n, filters_of(query)), media_type=JSON)


@hot.get(
    "/search",
    response_model=FoundArticles,
    responses=documented(errors.InvalidRequest, errors.GenerationUnavailable, errors.NotReady),
)
async def search(request: Request, query: Annotated[SearchQuery, Query()]) -> Response:
    """Articles in stock whose titles are closest in meaning to what is searched for.

    Knows no customer: to lean what somebody is recommended to their search, give `query` to the recommendations.
    """
    return Response(found_articles(services(request).live, query.q, query.n, filters_of(query)), media_type=JSON)


def _answer(parts: Services, taken: IntakeAnswer) -> Response:
    parts.metrics.count_articles(taken.accepted, len(taken.rejected))
    rejected = [entry_error(refusal.index, refusal.type, refusal.message, refusal.field) for refusal in taken.rejected]
    return json_response({"accepted": taken.accepted, "rejected": rejected})
