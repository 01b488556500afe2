"""What endpoints work with, made once per process by ``service.http.app``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from service.catalogue.intake import CatalogueIntake
from service.catalogue.redis_store import RedisCatalogue
from service.events import EventRecorder
from service.generation.queue import GenerationQueue
from service.intents import Intents, Scheduler
from service.live import Live, Lives
from service.metrics import Metrics
from service.rate_limit import RateLimit
from service.recommend import Recommender
from service.replay_board import ReplayBoard
from service.replays import Replays
from service.settings import Settings
from service.state.redis_store import RedisStore
from service.trend_store import Trends


@dataclass(frozen=True)
class Services:
    """All parts of one worker. ``clock``: Unix seconds. ``scheduler``, ``queue``: None where nothing is generated.

    ``replays``: None where nobody replays in the background. ``limit``: of requests by API key, None where there is
    none.
    """

    settings: Settings
    metrics: Metrics
    customers: RedisStore
    catalogue: RedisCatalogue
    intents: Intents
    recorder: EventRecorder
    recommender: Recommender
    intake: CatalogueIntake
    lives: Lives
    trends: Trends
    board: ReplayBoard
    replays: Replays | None
    scheduler: Scheduler | None
    queue: GenerationQueue | None
    limit: RateLimit | None
    clock: Callable[[], int]

    @property
    def live(self) -> Live:
        """The bundle that answers at this moment: a request asks once and keeps it. Raises NotReady."""
        return self.lives.live

    def show(self) -> None:
        """Set the gauges that tell how this worker is."""
        self.lives.show(self.metrics)
        self.metrics.show_waiting(0 if self.scheduler is None else self.scheduler.waiting)


def services(request: Request) -> Services:
    """The services of the application that was asked."""
    found: Services = request.app.state.services
    return found
