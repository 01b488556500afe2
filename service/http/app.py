"""The application: one worker's parts put together, and the contract's routes before them (design §7)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from model_store.errors import InvalidConfig
from model_store.graphs import check_runtime
from service.breaker import Breaker
from service.cancelling import cancelled
from service.catalogue.held import HeldArticles
from service.catalogue.intake import CatalogueIntake
from service.catalogue.redis_store import RedisCatalogue
from service.choice import RedisChoice
from service.events import EventRecorder
from service.generation.queue import GenerationQueue
from service.generation.records import GenerationRequest
from service.generation.redis_queue import RedisGenerationQueue
from service.generation.together import Together
from service.heap import keep_trimmed
from service.http import articles, customers, errors, events, operations, pages
from service.http.direct import DirectRoutes
from service.http.middleware import ApiKeys, BodyLimit, Measured, RawPath, RequestIds
from service.http.openapi import describe
from service.http.services import Services
from service.intents import Intents, Scheduler
from service.live import Lives
from service.lookbook import api as lookbook_calls
from service.lookbook import pages as lookbook_page
from service.metrics import Metrics
from service.rate_limit import RateLimit
from service.recommend import Recommender
from service.replay_board import ReplayBoard
from service.replays import Replays
from service.rollout import RedisRollout
from service.settings import Settings, variable
from service.state.connection import Client, connect
from service.state.redis_store import RedisStore
from service.tracing import open_tracing
from service.trend_store import RedisTrendStore, Trends

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

_LOOK = 0.02  # seconds between two looks whether there is something to answer from
SHOW = 1.0
"""Seconds between two times that a worker sets its gauges, so that another worker can show them, too."""


class Application(FastAPI):
    """FastAPI with ``around`` it what every request passes first: outside of its own layers, not within.

    So what is answered there (``DirectRoutes``) passes none of those.
    """

    def __init__(self, around: Callable[[ASGIApp], ASGIApp], **options: Any):
        super().__init__(**options)
        self._entrance = around(super().__call__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI has it."""
        if scope["type"] == "http":
            scope["app"] = self
            await self._entrance(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def unix_now() -> int:
    """Unix seconds."""
    return int(time.time())


def _nothing() -> None:
    """For those who need not hear that the application is ready."""


def _not_at_all() -> bool:
    """For those who let the application take connections at once, and say that it is not ready."""
    return False


def from_environment(on_ready: Callable[[], None] = _nothing, waits: Callable[[], bool] = _not_at_all) -> FastAPI:
    """The application that the process's environment describes. Raises InvalidConfig."""
    return create_app(Settings.from_environment(os.environ), on_ready=on_ready, waits=waits)


def create_app(
    settings: Settings,
    clock: Callable[[], int] = unix_now,
    on_ready: Callable[[], None] = _nothing,
    waits: Callable[[], bool] = _not_at_all,
) -> FastAPI:
    """One worker's application. It connects once it starts, and is ready once bundle and catalogue are loaded.

    ``on_ready`` is called once, at that moment; for as long as ``waits`` says so, it is awaited before the server takes
    a connection.
    Raises InvalidConfig where the settings name no Redis, or the installation mixes CPU and GPU packages.
    """
    check_runtime()
    if settings.redis_url is None:
        raise InvalidConfig(f"{variable('redis_url')} is not set; set it, or run 'modiste serve', which starts one")
    metrics = Metrics()
    routers = (
        customers.hot,
        articles.hot,
        customers.router,
        events.hot,
        articles.router,
        operations.router,
        pages.router,
        *((lookbook_page.router, lookbook_calls.router) if settings.lookbook else ()),
    )
    routes = [route for router in routers for route in router.routes]
    tracing = open_tracing(settings.otlp_endpoint, "modiste")
    app = Application(
        lambda inner: _surrounded(inner, settings, metrics, tracing, routes),
        title="Modiste",
        description="What should this customer see next, out of what is in stock?",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, metrics, tracing, clock, on_ready, waits),
    )
    for router in routers:
        app.include_router(router)
    errors.install(app, routes)
    describe(app)
    return app


def _surrounded(
    app: ASGIApp, settings: Settings, metrics: Metrics, tracing: Tracing | None, routes: Sequence[BaseRoute]
) -> ASGIApp:
    """``app`` and what every request passes before it; the last one is the outermost."""
    app = DirectRoutes(app, routes)
    app = BodyLimit(app, settings.max_body_bytes)
    app = ApiKeys(app, settings.api_keys, lookbook_page.open_paths() if settings.lookbook else ())
    app = Measured(app, metrics, settings.log_requests)
    app = RawPath(app)
    if tracing is not None:
        metrics.on_stages = tracing.add_stages
        app = tracing.request_spans(app)
    return RequestIds(app)


def _lifespan(
    settings: Settings,
    metrics: Metrics,
    tracing: Tracing | None,
    clock: Callable[[], int],
    on_ready: Callable[[], None],
    waits: Callable[[], bool],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        assert settings.redis_url is not None
        client = connect(settings.redis_url, timeout=settings.redis_timeout, connections=settings.redis_connections)
        try:
            parts = _parts(settings, client, metrics, clock, on_ready)
            app.state.services = parts
            app.state.lookbook = lookbook_calls.Lookbook.over(parts)
            replaying = [] if parts.replays is None else [parts.replays.run()]
            async with parts.lives.running(), _closing(parts), _beside(_show(parts), keep_trimmed(), *replaying):
                while parts.lives.version is None and waits():  # noqa: ASYNC110 - a signal may end it
                    await asyncio.sleep(_LOOK)
                yield
        finally:
            await client.aclose()
            if tracing is not None:
                await tracing.aclose()

    return lifespan


async def _show(parts: Services) -> None:
    """Have this worker's gauges tell how it is, whichever worker is asked for them; until cancelled."""
    while True:
        parts.show()
        await asyncio.sleep(SHOW)


@asynccontextmanager
async def _closing(parts: Services) -> AsyncIterator[None]:
    """Leave nothing that goes on behind answers' backs."""
    try:
        yield
    finally:
        await parts.trends.aclose()
        if parts.scheduler is not None:
            await parts.scheduler.aclose()


@asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have ``works`` go on behind the answers' backs, for as long as the block lasts."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        await cancelled(*tasks)


def _parts(
    settings: Settings, client: Client, metrics: Metrics, clock: Callable[[], int], on_ready: Callable[[], None]
) -> Services:
    customers, sales = RedisStore(client), RedisTrendStore(client)
    catalogue = RedisCatalogue(client)
    held = HeldArticles(catalogue)
    lives = Lives(
        settings.store, catalogue, RedisChoice(client), RedisRollout(client), clock=time.time, on_first=on_ready
    )
    breaker = Breaker(time.monotonic)
    queue = None if settings.llm_url == "off" else _queue(settings, client)
    scheduler = None if queue is None else Scheduler(queue, time.monotonic)
    intents = Intents(customers, scheduler, time.monotonic)
    trends = Trends(sales, clock, time.monotonic)
    board, share = ReplayBoard(client), settings.replay_share

    return Services(
        settings=settings,
        metrics=metrics,
        customers=customers,
        catalogue=catalogue,
        intents=intents,
        intake=CatalogueIntake(catalogue, settings.image_root, clock),
        recorder=EventRecorder(
            customers,
            clock,
            lives.remembers,
            sales.add,
            schedule=_schedule(lives, queue),
            hold=held.hold,
            look_up=lives.refresh,
        ),
        recommender=Recommender(customers, trends, intents, breaker, metrics, clock),
        lives=lives,
        trends=trends,
        board=board,
        replays=Replays(customers, catalogue, held, board, lives, share) if share else None,
        scheduler=scheduler,
        queue=queue,
        limit=None if settings.rate_limit is None else RateLimit(client, settings.rate_limit),
        clock=clock,
    )


def _schedule(lives: Lives, queue: GenerationQueue | None) -> Callable[[Sequence[GenerationRequest]], Awaitable[None]]:
    """What has customers' events followed by a generation, while the bundle that answers can use one."""
    together = None if queue is None else Together(queue)

    async def schedule(requests: Sequence[GenerationRequest]) -> None:
        if together is not None and lives.live.titles is not None:
            await together.schedule(requests)

    return schedule


def _queue(settings: Settings, client: Client) -> RedisGenerationQueue:
    return RedisGenerationQueue(client, most=settings.generation_queue, debounce=settings.generation_debounce)
