"""service.log_lines: a line of the log as an object, and the request that it belongs to."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextvars import Context
from datetime import datetime, timedelta
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from service.http.middleware import Measured, RequestIds
from service.log_lines import JsonLines, request_id
from service.metrics import Metrics


class Lines:
    """What was logged, as objects."""

    def __init__(self) -> None:
        self._written = io.StringIO()
        self.handler = logging.StreamHandler(self._written)
        self.handler.setFormatter(JsonLines())

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._written.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("service")
    before = logger.level
    logger.addHandler(lines.handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines.handler)
    logger.setLevel(before)


def test_a_line_says_when_who_and_what(lines: Lines) -> None:
    logging.getLogger("service.here").warning("%d of\n«%s»", 3, "ü")
    (line,) = lines()
    assert line["message"] == "3 of\n«ü»"
    assert (line["level"], line["logger"]) == ("warning", "service.here")
    assert line["time"].endswith("Z")
    assert datetime.now().astimezone() - datetime.fromisoformat(line["time"]) < timedelta(minutes=5)
    assert line.keys() == {"time", "level", "logger", "process", "message"}


def test_half_a_character_is_written_as_a_number() -> None:
    """Not by a logger: pytest would capture it, and pytest-xdist cannot hand it over."""
    written = JsonLines().format(logging.makeLogRecord({"msg": "ü\udcff"}))
    assert json.loads(written)["message"] == "ü\\udcff"


def test_a_trace_stays_in_its_line(lines: Lines) -> None:
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logging.getLogger("service").exception("failed")
    (line,) = lines()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: bad\nthing")


async def asked(app: Any, path: str, caller: str) -> None:
    """One request, in a context of its own, as a server has it."""
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"x-request-id", caller.encode())]}

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        pass

    await asyncio.create_task(app(scope, receive, send), context=Context())


async def test_lines_of_a_request_carry_its_id_and_others_none(lines: Lines) -> None:
    log = logging.getLogger("service.somewhere")

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        log.info("answering")
        if scope["path"] == "/breaks/":
            raise RuntimeError("broken")

    app = RequestIds(answer)
    await asked(app, "/", "one")
    log.info("between")
    await asked(app, "/breaks/", "two")
    ids = [line.get("request_id") for line in lines()]
    assert ids == ["one", None, "two", "two"]
    assert "RuntimeError: broken" in lines()[-1]["exception"]
    assert request_id.get() is None


@pytest.mark.parametrize("logged", [True, False])
async def test_requests_are_logged_where_that_is_wished_without_their_path(lines: Lines, logged: bool) -> None:
    class Route:
        path_format = "/v1/customers/{customer_id}"

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = Route()
        await send({"type": "http.response.start", "status": 404})

    await asked(RequestIds(Measured(answer, Metrics(), logged=logged)), "/v1/customers/Ada", "one")
    if not logged:
        assert lines() == []
        return
    (line,) = lines()
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/customers/{customer_id}", 404)
    assert 0 <= line["milliseconds"] < 60_000
    assert line["request_id"] == "one"
    assert line["message"].endswith(" ms, one")
    assert "Ada" not in json.dumps(line)


@pytest.mark.parametrize("what", ["warnings.warn('old')", "1 / 0", "logging.getLogger('x').warning('old')"])
def test_what_nobody_logs_is_an_object_too(what: str) -> None:
    program = f"import logging, warnings; from service.log_lines import *; configure_logging(); {what}"
    environment = {"MODISTE_LOG_FORMAT": "json", "MODISTE_LOG_LEVEL": "loud"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    (line,) = [json.loads(line) for line in result.stderr.splitlines()]
    assert "old" in line["message"] or "ZeroDivisionError" in line["exception"]
