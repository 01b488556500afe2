"""Traces for OpenTelemetry, where MODISTE_OTLP_ENDPOINT names a collector: nothing of it is imported otherwise."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from model_store.errors import InvalidConfig

if TYPE_CHECKING:
    from service.tracing.spans import Tracing


def open_tracing(endpoint: str | None, process: str) -> Tracing | None:
    """What makes spans for a kind of ``process``; None where no ``endpoint`` is set. Raises InvalidConfig."""
    if endpoint is None:
        return None
    tracing: Tracing = _spans().Tracing(endpoint, process)
    return tracing


def check(endpoint: str | None) -> None:
    """Raise InvalidConfig where traces are to be made, and what makes them is not installed."""
    if endpoint is not None:
        _spans()


def _spans() -> Any:
    try:
        return importlib.import_module("service.tracing.spans")
    except ImportError as error:
        raise InvalidConfig(
            f"MODISTE_OTLP_ENDPOINT is set, but OpenTelemetry cannot be imported ({error}); "
            "install it: pip install 'modiste[tracing]'"
        ) from None
