"""What the service tells Prometheus about itself.

One process shows its own figures. Where several workers share a port, set PROMETHEUS_MULTIPROC_DIR to an empty folder
before they start, and any of them answers for all: counters and histograms are added up, each gauge is shown for every
worker that lives, told apart by the label ``pid``. What generators did, they count in Redis: each process of a service
then shows the same figures of all generators, so take their maximum, not their sum.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.errors import StoreFailure
from service.generation.queue import BUCKETS as GENERATION_BUCKETS
from service.generation.queue import Figures
from service.replay_board import Progress

BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)  # seconds
STAGES = ("redis", "generation", "lstm", "search", "json", "waiting", "total")
"""Parts of one GET for recommendations: reading what is known; where it takes part, reading or asking for what was
generated; the style; the ranking; the answer. Where a request waited for a fresh generation, as long as it wished,
``waiting`` tells how long, which is not in ``total``, the sum of all others."""
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
MOST_SERIES = 1_000


class _Generations(Collector):
    """The figures of all generators, as they were last read."""

    def __init__(self) -> None:
        self.figures: Figures | None = None

    def collect(self) -> Iterator[Metric]:
        figures = self.figures
        if figures is None:
            return
        queue = GaugeMetricFamily("modiste_generation_queue", "Customers by what they wait for.", labels=["state"])
        queue.add_metric(["waiting"], figures.waiting)
        queue.add_metric(["in_hand"], figures.in_hand)
        yield queue
        ends = CounterMetricFamily("modiste_generations", "Generations by what became of them.", labels=["result"])
        for outcome, count in figures.outcomes.items():
            ends.add_metric([outcome.value], count)
        yield ends
        seconds = HistogramMetricFamily(
            "modiste_generation_seconds",
            "Time that customers waited in the queue, and that the language model took.",
            labels=["stage"],
        )
        bounds = [*map(str, GENERATION_BUCKETS), "+Inf"]
        for stage, timing in figures.timings.items():
            seconds.add_metric([stage], list(zip(bounds, accumulate(timing.counts), strict=True)), timing.total)
        yield seconds


class _Replays(Collector):
    """How far states are replayed in the background, by whichever worker, as it was last read."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def collect(self) -> Iterator[Metric]:
        if self.progress is None:
            return
        customers = GaugeMetricFamily(
            "modiste_replay_customers",
            "Customers with purchases: in total, those with a state of the bundle, and those who had none before.",
            labels=["state"],
        )
        for state in ("total", "done", "replayed"):
            customers.add_metric([state], getattr(self.progress, state))
        yield customers


class Metrics:
    """The service's counters, gauges and histograms, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        stage = Histogram(
            "modiste_recommendation_seconds",
            "Time that parts of a recommendation took.",
            ["stage"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._stages = {name: stage.labels(name) for name in STAGES}
        self._requests = Counter(
            "modiste_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "modiste_request_seconds", "Time per request.", ["route"], buckets=BUCKETS, registry=self._registry
        )
        self._events = Counter("modiste_events", "Events by what became of them.", ["result"], registry=self._registry)
        self._articles = Counter(
            "modiste_article_changes", "Changes of articles and stock by result.", ["result"], registry=self._registry
        )
        self.degraded = Counter(
            "modiste_degraded_answers", "Recommendations answered without Redis.", registry=self._registry
        )
        self._store_failures = Counter(
            "modiste_store_failures",
            "Requests that met a Redis which did not do what it was asked, by why.",
            ["reason"],
            registry=self._registry,
        )
        self.replays = Counter(
            "modiste_replays", "States that were rebuilt from the history on a read.", registry=self._registry
        )
        self.on_stages: Callable[[Mapping[str, float]], None] | None = None
        """Hears of the stages of each recommendation, in order, in the request that it is made for."""
        self.in_progress = 0
        """Requests that this worker is answering."""
        self._in_progress = self._gauge("modiste_requests_in_progress", "Requests that a worker is answering.")
        self._ready = self._gauge("modiste_ready", "1 for a worker that answers from a bundle, 0 for one that cannot.")
        self._bundle = self._gauge("modiste_bundle_info", "1 for the bundle that a worker answers from.", "version")
        self._index_size = self._gauge("modiste_index_articles", "Articles in a worker's index.", "stock")
        self._catalogue_as_of = self._gauge(
            "modiste_catalogue_as_of_timestamp_seconds",
            "Unix time at which a worker's index last held every change of articles and stock that Redis had.",
        )
        self._catalogue_behind = self._gauge(
            "modiste_catalogue_changes_behind", "Changes of articles and stock that a worker's index still lacks."
        )
        self._catalogue_refused = self._gauge(
            "modiste_catalogue_articles_refused", "Articles that a worker's bundle could not encode."
        )
        self._waiting = self._gauge(
            "modiste_unscheduled_customers", "Customers whom a worker will put into the queue for a generation."
        )
        self._generations = _Generations()
        self._registry.register(self._generations)
        self._replays = _Replays()
        self._registry.register(self._replays)
        self._bundle_version: str | None = None
        self._by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        for result in ("accepted", "duplicate", "rejected"):
            self._events.labels(result)
        for result in ("accepted", "rejected"):
            self._articles.labels(result)
        for reason in get_args(StoreFailure):
            self._store_failures.labels(reason)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """One that is shown for each worker that lives."""
        return Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode="liveall")

    def observe_stages(
        self,
        *,
        redis: float,
        lstm: float,
        search: float,
        json: float,
        generation: float | None = None,
        waiting: float = 0.0,
    ) -> None:
        """Note how long (seconds) the parts of one recommendation took. ``generation``: None where it takes no part."""
        taken = {"redis": redis}
        if generation is not None:
            taken["generation"] = generation
        if waiting:
            taken["waiting"] = waiting
        taken |= {"lstm": lstm, "search": search, "json": json}
        for stage, seconds in taken.items():
            self._stages[stage].observe(seconds)
        self._stages["total"].observe(sum(taken.values()) - waiting)
        if self.on_stages is not None:
            self.on_stages(taken)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. ``route``: its path as the contract writes it, or "none"."""
        key = (method, route, status)
        children = self._by_request.get(key)
        if children is None:
            if method not in METHODS:
                method = "other"
            children = (self._requests.labels(method, route, str(status)), self._request_seconds.labels(route))
            if len(self._by_request) < MOST_SERIES:
                self._by_request[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def count_events(self, accepted: int, duplicates: int, rejected: int) -> None:
        """Count one answer to POST /v1/events."""
        self._events.labels("accepted").inc(accepted)
        self._events.labels("duplicate").inc(duplicates)
        self._events.labels("rejected").inc(rejected)

    def count_articles(self, accepted: int, rejected: int) -> None:
        """Count one answer to a change of articles or stock."""
        self._articles.labels("accepted").inc(accepted)
        self._articles.labels("rejected").inc(rejected)

    def count_store_failure(self, reason: StoreFailure) -> None:
        """Count one request that Redis failed."""
        self._store_failures.labels(reason).inc()

    def show_ready(self, ready: bool) -> None:
        """Say whether this worker answers recommendations."""
        self._ready.set(ready)

    def show_waiting(self, unscheduled: int) -> None:
        """Say how many requests this worker is answering, and how many customers it will have scheduled."""
        self._in_progress.set(self.in_progress)
        self._waiting.set(unscheduled)

    def show_catalogue(self, as_of: float | None, behind: int, refused: int) -> None:
        """Say how far this worker's index follows the catalogue: as ``CatalogueFollower`` tells it."""
        if as_of is not None:
            self._catalogue_as_of.set(as_of)
        self._catalogue_behind.set(behind)
        self._catalogue_refused.set(refused)

    def show_bundle(self, version: str) -> None:
        """Name the bundle that answers from now on."""
        if self._bundle_version is not None:
            self._bundle.labels(self._bundle_version).set(0)
        self._bundle.labels(version).set(1)
        self._bundle_version = version

    def show_index(self, articles: int, in_stock: int) -> None:
        """Say how many articles the index holds."""
        self._index_size.labels("in").set(in_stock)
        self._index_size.labels("out").set(articles - in_stock)

    def show_generations(self, figures: Figures) -> None:
        """Say what all generators did, and who waits for them."""
        self._generations.figures = figures

    def show_replay(self, progress: Progress | None) -> None:
        """Say how far the replay of states for a new bundle is."""
        self._replays.progress = progress

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        shared.register(_Workers())
        shared.register(self._generations)  # which several processes read, but none of them counts
        shared.register(self._replays)
        return generate_latest(shared)


class _Workers(Collector):
    """What the workers have written into the folder that they share."""

    def collect(self) -> Iterable[Metric]:
        """All figures but those of a worker that begins just now.

        Its files are empty for a moment, or for ever where it was killed in that moment; the library takes such a file
        for a damaged one and shows nothing at all.
        """
        files = glob.glob(os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], "*.db"))
        written = [file for file in files if _is_written(file)]
        return MultiProcessCollector.merge(written)  # type: ignore[no-untyped-call,no-any-return]


def _is_written(file: str) -> bool:
    try:
        return os.path.getsize(file) > 0
    except FileNotFoundError:  # of a worker that lives no longer
        return False
