"""Spans: one for each request, with a child for each stage of a recommendation, and one for each generation.

They name routes and ids of requests, never a path, a query or a customer. OpenTelemetry's own variables say how much is
sampled, what headers the collector gets and what describes the whole process (OTEL_TRACES_SAMPLER, …).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.generation.generator import Done, Scribe, Writes
from service.generation.records import GenerationRequest
from service.http.errors import status_of
from service.log_lines import request_id
from service.metrics import METHODS

CLOSING = 2.0
"""Seconds that a process which ends waits for its last spans to be taken, and no longer: the collector may be away."""
UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
_CONTEXT = TraceContextTextMapPropagator()
_FAILED = 500  # and above


class Tracing:
    """Spans of one process, sent to the collector at ``endpoint`` (OTLP over HTTP) behind requests' backs."""

    def __init__(self, endpoint: str, process: str):
        resource = Resource.create({SERVICE_NAME: process, SERVICE_VERSION: version("modiste")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
        self._tracer: Tracer = self._provider.get_tracer("modiste")

    def request_spans(self, app: ASGIApp) -> RequestSpans:
        """The middleware around ``app``."""
        return RequestSpans(app, self._tracer)

    def add_stages(self, seconds: Mapping[str, float]) -> None:
        """Stages of what the current request did until now, in the order in which they came.

        They are laid end to end: what one of them did in two parts is told as one.
        """
        if not trace.get_current_span().is_recording():
            return
        moment = time.time_ns() - round(sum(seconds.values()) * 1e9)
        for stage, each in seconds.items():
            span = self._tracer.start_span(stage, start_time=moment)
            moment += round(each * 1e9)
            span.end(moment)

    def of_generations(self, writes: Writes) -> Writes:
        """The same, with a span for each generation."""
        return _Traced(writes, self._tracer)

    async def aclose(self) -> None:
        """Send what is left."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSING)


class RequestSpans:
    """One span a request, a child of the caller's where it sends a ``traceparent``. Probes have none."""

    def __init__(self, app: ASGIApp, tracer: Tracer):
        self.app, self.tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        status = _FAILED

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.tracer.start_as_current_span(
            method,
            _CONTEXT.extract(_headers(scope)),
            SpanKind.SERVER,
            record_exception=False,  # the log holds it, under the request's id
            set_status_on_exception=False,
        ) as span:
            try:
                await self.app(scope, receive, send_noted)
            except Exception as error:
                status = status_of(error)
                raise
            finally:
                route = getattr(scope.get("route"), "path_format", "none")
                span.update_name(f"{method} {route}")
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                span.set_attribute("modiste.request_id", (request_id.get() or b"").decode())
                if status >= _FAILED:
                    span.set_status(StatusCode.ERROR)


class _Traced:
    """Writes as ``writes`` does, inside a span."""

    def __init__(self, writes: Writes, tracer: Tracer):
        self._writes, self._tracer = writes, tracer

    async def generate(self, scribe: Scribe, request: GenerationRequest) -> Done:
        with self._tracer.start_as_current_span("generation", kind=SpanKind.CONSUMER, record_exception=False) as span:
            span.set_attribute("modiste.bundle", scribe.prompting.bundle)
            span.set_attribute("modiste.searching", request.query is not None)
            done = await self._writes.generate(scribe, request)
            span.set_attribute("modiste.outcome", done.outcome.value)
            if done.seconds is not None:
                span.set_attribute("modiste.writing_seconds", done.seconds)
            return done


def _headers(scope: Scope) -> dict[str, str]:
    """Those that tell of the caller's span."""
    names = (b"traceparent", b"tracestate")
    return {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in names}
