"""Language models that are of no use, to measure what they cost answers: stopped, slow, and writing rubbish.

Real servers that speak as much of vLLM's API as it takes for a generator to ask them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from service.bench.served import free_port

SLOW = 5.0  # seconds that the slow language model takes for whatever it is asked
_RUBBISH = (
    "",
    "no article at all",
    "{<id>",
    "{<id>nobody-sells-this</id>,<title>\x00\x1b[31m\ufffd</title>}",
    "{<id></id>,<title></title>}" * 50,
)


@contextmanager
def stopped() -> Iterator[str]:
    """The URL of a port where nobody listens."""
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def slow() -> Iterator[str]:
    """The URL of a server that takes ``SLOW`` seconds for everything."""
    with _answering(lambda: _RUBBISH[3], SLOW) as url:
        yield url


@contextmanager
def writing_rubbish() -> Iterator[str]:
    """The URL of a server that writes at once, and nothing that makes sense."""
    with _answering(itertools.cycle(_RUBBISH).__next__, 0.0) as url:
        yield url


@contextmanager
def _answering(text: Callable[[], str], delay: float) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({"data": [{"id": "broken", "max_model_len": 1_024}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/completions":
                self.send_error(404)
                return
            choice = {"text": text(), "finish_reason": "stop"}
            self._answer({"choices": [choice], "usage": {"completion_tokens": 9}})

        def _answer(self, content: object) -> None:
            time.sleep(delay)
            body = orjson.dumps(content)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name in http.server
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
