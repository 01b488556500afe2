"""service.tracing: spans as a collector gets them, and nothing at all where none is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from redis_server import redis_url
from service_running import Shop, running
from span_collector import Collector, Span, collecting

from model_store.errors import InvalidConfig
from service import tracing
from service.launcher import check
from service.settings import Settings

__all__ = ["redis_url"]

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROUTE = "/v1/customers/{customer_id}/recommendations"


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    make_bundle(tmp_path / "store", generating=True)
    return Settings(redis_url=redis_url, store=tmp_path / "store")


async def traced(settings: Settings, use: Callable[[Shop], Awaitable[None]]) -> tuple[Collector, list[Span]]:
    """What arrives of what ``use`` does to a shop; all of it has once the shop is closed."""
    with collecting() as collector:
        async with running(settings.model_copy(update={"otlp_endpoint": collector.url}), filled=False) as shop:
            await use(shop)
    return collector, collector.spans


async def test_a_request_is_one_span_and_its_stages_are_its_children(settings: Settings) -> None:
    async def use(shop: Shop) -> None:
        await shop.put({"article_id": "a003", "title": "A coat", "category": "coat"})
        await shop.buy("Ada", "a003")
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "one"}
        query = {"wait_ms": 30, "query": "red coat"}
        await shop.http.get("/v1/customers/Ada/recommendations", headers=headers, params=query)
        await shop.recommend("Ada", strategy="style")

    collector, spans = await traced(settings, use)
    asked, style = [span for span in spans if span.name == f"GET {ROUTE}"]
    assert (asked.trace, asked.parent, asked.failed, asked.process) == (TRACE, CALLER, False, "modiste")
    assert asked.attributes == {
        "http.request.method": "GET",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "modiste.request_id": "one",
    }
    assert style.parent == ""
    assert style.trace != TRACE
    for request, stages in (
        (asked, ["redis", "generation", "waiting", "lstm", "search", "json"]),
        (style, ["redis", "lstm", "search", "json"]),
    ):
        children = [span for span in spans if span.parent == request.own]
        assert [child.name for child in children] == stages
        assert {child.trace for child in children} == {request.trace}
        assert all(before.end <= after.start for before, after in pairwise(children))
        assert children[0].start >= request.start - 1_000_000  # of another clock
        assert children[-1].end <= request.end
    waiting = next(span for span in spans if span.name == "waiting")
    assert waiting.end - waiting.start >= 30_000_000
    assert {span.name for span in spans if not span.parent} >= {"PUT /v1/articles", "POST /v1/events"}
    told = b"".join(collector.bodies)
    assert b"Ada" not in told
    assert b"coat" not in told


async def test_failures_are_told_apart_and_probes_are_not_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> bytes:
        raise RuntimeError("secret")

    async def use(shop: Shop) -> None:
        for path in ("/livez", "/readyz", "/metrics", "/nothing", "/v1/customers/nobody/recommendations?n=0"):
            await shop.http.get(path)
        monkeypatch.setattr(shop.services.recommender, "recommend", fail)
        await shop.http.get("/v1/customers/Ada/recommendations")

    collector, spans = await traced(settings, use)
    assert [(span.name, span.attributes["http.response.status_code"], span.failed) for span in spans] == [
        ("GET none", 404, False),
        (f"GET {ROUTE}", 422, False),
        (f"GET {ROUTE}", 500, True),
    ]
    assert b"secret" not in b"".join(collector.bodies)


async def test_a_collector_that_is_away_is_in_nobodys_way(settings: Settings) -> None:
    async with running(settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:9"})) as shop:
        assert len((await shop.recommend("Ada"))["articles"]) == 20


def test_without_a_collector_nothing_is_imported() -> None:
    program = (
        "import sys, service.http.app, service.generation.worker, service.launcher; from service import tracing; "
        "tracing.check(None); assert tracing.open_tracing(None, 'modiste') is None; "
        "assert not {'opentelemetry.sdk.trace', 'opentelemetry.exporter', 'service.tracing.spans'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_nothing_starts(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.tracing.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    wanted = settings.model_copy(update={"otlp_endpoint": "http://localhost:4318", "port": 0})
    for begin in (lambda: check(wanted, tmp_path), lambda: tracing.open_tracing(wanted.otlp_endpoint, "modiste")):
        with pytest.raises(InvalidConfig, match=r"MODISTE_OTLP_ENDPOINT is set.*pip install 'modiste\[tracing\]'"):
            begin()


def test_an_endpoint_is_a_url(tmp_path: Path) -> None:
    def read(value: str) -> str | None:
        return Settings.from_environment({"MODISTE_OTLP_ENDPOINT": value}).otlp_endpoint

    assert read("http://collector:4318/") == read("http://collector:4318/v1/traces") == "http://collector:4318"
    with pytest.raises(InvalidConfig, match="MODISTE_OTLP_ENDPOINT: must start with http:// or https://"):
        read("collector:4317")
