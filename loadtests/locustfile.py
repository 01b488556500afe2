"""Customers come to a running service at random times, whether it keeps up or not: an open loop.

    make loadtest LOADTEST="--rate 20 --minutes 10 --html var/loadtest.html"

Journeys begin at the times of a Poisson process; each request's latency counts from when it was due, so that waiting
counts, the load generator's own included. Customers and articles are drawn by Zipf's law. Beside them one merchandiser
takes an article of its own in and out of stock. Ends with 1 where a limit does not hold. What is told stays in the
service's Redis: run it against one that may forget. With API keys on, set MODISTE_API_KEYS as the service has it.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.pool import Group
from locust import FastHttpUser, events, task
from locust.contrib.fasthttp import ResponseContextManager
from locust.env import Environment

from loadtests import processes
from loadtests.journeys import JOURNEYS, PASSING, RECOMMENDATIONS, Check, Shop, Visit, accepted, shown_in
from loadtests.known import Known, asked_for, made_up_customers, of_data_set
from loadtests.verdict import Limits, Measured, missed, report
from model_store.errors import InvalidData
from model_store.machine import hardware
from service.keys import usable_as_written

OK = 200
NO_TITLES = 422
DELETED = {200, 204}
PROPAGATION = 2.0  # seconds in which a change of stock must have reached every worker
SEASONAL = 20  # articles that the merchandiser takes in and out
PATIENCE = 60.0  # seconds that journeys get to come to their end
log = logging.getLogger("loadtest")


def arguments(parser: ArgumentParser) -> None:
    """What is ours beside locust's own options."""
    ours = parser.add_argument_group("Modiste")
    ours.add_argument("--rate", type=float, default=10.0, help="journeys that begin per second (default: %(default)s)")
    ours.add_argument("--minutes", type=float, default=1.0, help="how long they begin (default: %(default)s)")
    ours.add_argument(
        "--warm-up", type=float, default=0.0, help="minutes of journeys before anything is measured (default: none)"
    )
    ours.add_argument("--think", type=float, default=1.0, help="mean seconds between steps (default: %(default)s)")
    ours.add_argument("--zipf", type=float, default=1.0, help="exponent of Zipf's law (default: %(default)s)")
    ours.add_argument("--customers", type=int, default=100_000, help="made up (default: %(default)s)")
    ours.add_argument("--articles", type=int, default=1_000, help="asked for at the service (default: %(default)s)")
    ours.add_argument("--data", type=Path, help="customers and articles of this data set instead")
    ours.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    ours.add_argument("--out", type=Path, help="a JSON file for all figures")
    limits = parser.add_argument_group("Limits of Modiste's, beyond which the exit status is 1")
    limits.add_argument("--p50", type=float, default=50.0, help="median latency, ms (default: %(default)s)")
    limits.add_argument("--p99", type=float, default=500.0, help="99th percentile, ms (default: %(default)s)")
    limits.add_argument("--failures", type=float, default=0.0, help="share of requests (default: %(default)s)")
    limits.add_argument("--latency-growth", type=float, help="median of the last fifth over that of the first")
    limits.add_argument("--memory-growth", type=float, help="MiB, last fifth less first, Redis aside; local service")


measured = Measured()


class NothingToAsk(Exception):
    """The service does not answer, or has no articles in stock."""


def _key() -> dict[str, str]:
    keys = [key.strip() for key in os.environ.get("MODISTE_API_KEYS", "").split(",")]
    return {"X-API-Key": usable_as_written(keys) or ""}


class Everybody(FastHttpUser):
    """Lets journeys begin, watches the service's memory, and ends the test: all from one locust user."""

    fixed_count = 1
    concurrency = 10_000  # connections: no request waits for another's
    default_headers = _key()

    @task
    def test(self) -> None:
        """The whole test."""
        options: Namespace = self.environment.parsed_options
        rng = random.Random(options.seed)
        try:
            shop = Shop(self._known(options), options.zipf, options.think, rng, searchable=self._searchable())
        except (NothingToAsk, InvalidData) as error:
            log.error("%s", error)
            self.environment.runner.quit()
            return
        warm_up = 60 * options.warm_up
        self.began = time.perf_counter() + warm_up  # of what is measured
        others = [gevent.spawn(self._merchandise), gevent.spawn(self._watch), gevent.spawn_later(warm_up, _begin)]
        journeys = Group()
        for arrival in arrivals(options.rate, warm_up + 60 * options.minutes, rng):
            due = arrival - warm_up
            gevent.sleep(max(0.0, self.began + due - time.perf_counter()))
            if due >= 0:
                measured.late.append(1_000 * (time.perf_counter() - self.began - due))
            journey = rng.choices(list(JOURNEYS), list(JOURNEYS.values()))[0]
            journeys.spawn(_made, journey, Visit(shop, self.send, shop.customer(), self.began + due))
        journeys.join(PATIENCE)
        measured.elsewhere += [True] * len(journeys)  # those that never came to their end
        gevent.killall(others)
        self.environment.runner.quit()

    def _known(self, options: Namespace) -> Known:
        if options.data is not None:
            return of_data_set(options.data)

        def ask(path: str) -> Any:
            answer = self.client.get(path, name="(what there is)")
            if answer.status_code != OK:
                raise NothingToAsk(f"{self.environment.host}{path} answers with status {answer.status_code}")
            return answer.json()

        articles = asked_for(ask, options.articles)
        if not articles:
            raise NothingToAsk(f"{self.environment.host} has no articles in stock")
        return Known(made_up_customers(options.customers), articles)

    def _searchable(self) -> bool:
        """Whether the live bundle has a title encoder, without which nothing can be searched."""
        with self.client.get("/v1/search?q=dress", name="(what there is)", catch_response=True) as answer:
            answer.success()
        return bool(answer.status_code != NO_TITLES)

    def send(self, method: str, path: str, *, name: str, due: float, body: Any, check: Check | None) -> Any:
        """One request of a journey, noted from when it was due."""
        content, fault, latency = self._send(method, path, name, due, body, check)
        measured.note(name, due - self.began, latency, fault is not None)
        return content

    def _send(
        self, method: str, path: str, name: str, due: float, body: Any, check: Check | None
    ) -> tuple[Any, str | None, float]:
        """JSON (None where it failed), what is wrong with it, and ms since ``due``."""
        answer: ResponseContextManager
        with self.client.request(method, path, name=name, json=body, catch_response=True) as answer:
            latency = 1_000 * (time.perf_counter() - due)
            answer.request_meta["response_time"] = latency
            content = answer.json() if answer.status_code == OK else None
            if content is None:
                fault: str | None = f"status {answer.status_code}: {(answer.text or '')[:200]}"
            else:
                fault = check(content) if check is not None else None
            if fault is not None:
                _fail(answer, fault)
        return content if fault is None else None, fault, latency

    def _watch(self) -> None:
        """Note the memory of a service on this machine, once a second."""
        parts = urlsplit(self.environment.host or "")
        local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        process = processes.launcher(parts.port or 80) if local else None
        while process is not None and process.is_running():
            measured.memory.append((time.perf_counter() - self.began, processes.memory(process)))
            gevent.sleep(1)

    def _merchandise(self) -> None:
        """A copy of a real article, under a brand of its own, is shown while it is in stock and never after.

        The same few come and go: what was ever in a catalogue stays known, for the histories that may hold it, and is
        not what a test of memory asks about.
        """
        coming = itertools.cycle([f"{PASSING}{uuid.uuid4()}" for _ in range(SEASONAL)])
        while True:
            shown = self._manage("GET", RECOMMENDATIONS.format(id="merchandiser"), RECOMMENDATIONS + " (merchandiser)")
            if shown and shown["articles"]:
                self._season(next(coming), shown["articles"][0])
            gevent.sleep(1)

    def _season(self, article: str, model: dict[str, Any]) -> None:
        record = {key: model[key] for key in ("title", "category", "colour", "price") if model.get(key)}
        self._manage("PUT", "/v1/articles", body=[{**record, "article_id": article, "brand": article}], check=accepted)
        self._set_stock(article, 1)
        self._expect(article, shown=True)
        self._set_stock(article, 0)
        self._expect(article, shown=False)
        with self.client.delete(f"/v1/articles/{article}", name="/v1/articles/{id}", catch_response=True) as answer:
            measured.elsewhere.append(answer.status_code not in DELETED)
            if answer.status_code not in DELETED:
                _fail(answer, f"status {answer.status_code}")

    def _manage(
        self, method: str, path: str, name: str | None = None, body: Any = None, check: Check | None = None
    ) -> Any:
        content, fault, _ = self._send(method, path, name or path, time.perf_counter(), body, check)
        measured.elsewhere.append(fault is not None)
        return content

    def _set_stock(self, article: str, quantity: int) -> None:
        self._manage("PATCH", "/v1/stock", body=[{"article_id": article, "quantity": quantity}], check=accepted)

    def _expect(self, article: str, *, shown: bool) -> None:
        """Whichever worker answers must know of the change, before long."""

        def check(answer: Any) -> str | None:
            return None if shown_in(answer) == [article] * shown else f"expected {'the' if shown else 'no'} article"

        path = f"{RECOMMENDATIONS.format(id='merchandiser')}?n=5&brand={article}"
        deadline = time.monotonic() + PROPAGATION
        late = False
        while not late:
            late = time.monotonic() > deadline
            answer = self._manage("GET", path, RECOMMENDATIONS + " (stock)", check=check if late else None)
            if answer is None or check(answer) is None:
                return
            gevent.sleep(0.05)


def _begin() -> None:
    """Forget what went well while it warmed up."""
    measured.elsewhere[:] = filter(None, measured.elsewhere)


def _made(journey: Callable[[Visit], None], visit: Visit) -> None:
    try:
        journey(visit)
    except Exception:  # an answer of another form, say
        log.exception("a journey ended early")
        measured.elsewhere.append(True)


def arrivals(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    """Seconds at which journeys begin: a Poisson process."""
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


def judge(environment: Environment, **_: Any) -> None:
    """Print what was measured, write it down, and set the exit status."""
    options = environment.parsed_options or Namespace()
    figures = report(measured, 60 * options.minutes)
    limits = {name: getattr(options, name) for name in ("p50", "p99", "failures", "latency_growth", "memory_growth")}
    faults = missed(figures, Limits(**limits))
    asked = ("rate", "minutes", "warm_up", "think", "zipf", "customers", "articles", "seed")
    content = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "options": {name: getattr(options, name) for name in asked} | {"data": options.data and str(options.data)},
        "limits": limits,
        **figures,
        "missed": faults,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for part in figures["parts"]:
        log.info("from %g s on: %d requests, latency in ms %s, memory in MiB %s", *part.values())
    log.info(
        "all: %d requests, latency in ms %s, growth %s", *(figures[n] for n in ("requests", "latency_ms", "growth"))
    )
    for fault in faults:
        log.error("%s", fault)
    environment.process_exit_code = 1 if faults else 0


events.init_command_line_parser.add_listener(arguments)  # type: ignore[no-untyped-call]
events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]


def _fail(answer: ResponseContextManager, why: str) -> None:
    answer.failure(why)  # type: ignore[no-untyped-call]
