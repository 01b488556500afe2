"""Language models that are of no use, to measure what they cost answers: stopped, slow, and writing rubbish.

Real servers that speak as much of vLLM's API as it takes for a generator to ask them. They run in processes of their
own, so that the load generator does not share its interpreter with them.

    python -m service.bench.broken_models PORT PROCESS DELAY      # answers after DELAY seconds, while PROCESS lives
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from service.bench.served import free_port, process_at
from service.lifeline import follow

SLOW = 5.0  # seconds that the slow language model takes for whatever it is asked, but whether it is up
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
    with _answering(SLOW) as url:
        yield url


@contextmanager
def writing_rubbish() -> Iterator[str]:
    """The URL of a server that writes at once, and nothing that makes sense."""
    with _answering(0.0) as url:
        yield url


@contextmanager
def _answering(delay: float) -> Iterator[str]:
    port = free_port()
    with process_at(port, "/health", "service.bench.broken_models", str(delay)):
        yield f"http://127.0.0.1:{port}"


def main() -> None:
    """Answer on the port given as the first argument; the second is the process to follow, the third the delay."""
    port, process, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    follow(process)
    texts = itertools.cycle(_RUBBISH)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/health":
                self._answer({}, 0.0)
                return
            self._answer({"data": [{"id": "broken", "max_model_len": 1_024}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/completions":
                self.send_error(404)
                return
            choice = {"text": next(texts), "finish_reason": "stop"}
            self._answer({"choices": [choice], "usage": {"completion_tokens": 9}})

        def _answer(self, content: object, seconds: float = delay) -> None:
            time.sleep(seconds)
            body = orjson.dumps(content)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name in http.server
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
