"""How every process of the service logs: a line for people, or one JSON object for programs (MODISTE_LOG_FORMAT)."""

from __future__ import annotations

import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

request_id: ContextVar[bytes | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered. What goes on after it should run in a context of its own."""

_TEXT = "%(asctime)s %(levelname)-7s %(process)d %(message)s"
_LIBRARIES = ("uvicorn", "httpx2", "httpcore2")


class JsonLines(logging.Formatter):
    """One object a record: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``process``, ``message``.

    ``request_id`` and ``exception`` (the trace) where there is one, and whatever a record carries in ``fields``.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": _sound(record.getMessage()),
        }
        of_request = request_id.get()
        if of_request is not None:
            line["request_id"] = of_request.decode()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = _sound(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()


def configure_logging() -> None:
    """Records on stderr, from the level on that is set."""
    handler = logging.StreamHandler(sys.stderr)
    if as_json():
        handler.setFormatter(JsonLines())
        logging.captureWarnings(True)
        sys.excepthook = _log_unexpected
    else:
        handler.setFormatter(logging.Formatter(_TEXT, datefmt="%H:%M:%S"))
    level = os.environ.get("MODISTE_LOG_LEVEL", "").strip().upper()
    known = logging.getLevelNamesMapping()  # what the settings refuse is told of by a line of the log, too
    logging.basicConfig(level=known.get(level, logging.INFO), handlers=[handler])
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))


def as_json() -> bool:
    """Whether lines are for programs."""
    return os.environ.get("MODISTE_LOG_FORMAT", "").strip() == "json"


def tell_failure(command: str, error: Exception) -> None:
    """Say in one line why a process cannot go on."""
    text = " ".join(str(error).split())
    if as_json():
        logging.getLogger(command.replace(" ", ".")).critical("%s", text)
    else:
        print(f"{command}: {text}", file=sys.stderr)


def _log_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger(__name__).critical("ended unexpectedly", exc_info=(kind, error, trace))


def _sound(text: str) -> str:
    """Without halves of surrogate pairs, which stand for bytes of a request that are no text, and are no JSON."""
    return text.encode("utf-8", "backslashreplace").decode()
