"""What the end of a start prints: lines that a shell takes as they are, and no key."""

from __future__ import annotations

import json
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_store.errors import InvalidConfig
from service import welcome
from service.embedded import EmbeddedRedis
from service.welcome import Address


def test_the_address_is_one_that_a_person_can_open() -> None:
    assert Address("0.0.0.0", 8000).url == "http://127.0.0.1:8000"
    assert Address("::1", 80).url == "http://[::1]:80"
    assert Address("localhost", 1).url == "http://localhost:1"


@pytest.mark.parametrize("customer", ["c1", "O'Hara & söns/α?", "$(rm -rf /)", 'quo"te'])
def test_curl_lines_survive_the_shell(customer: str) -> None:
    address = Address("127.0.0.1", 8000)
    assert shlex.split(address.curl_get(customer))[1].startswith("http://127.0.0.1:8000/v1/customers/")
    words = shlex.split(address.curl_purchase(customer, "a 'b'"))
    body = json.loads(words[words.index("-d") + 1])
    assert body == {"type": "purchase", "customer_id": customer, "article_id": "a 'b'"}


def test_keys_are_never_printed() -> None:
    address = Address("127.0.0.1", 8000, "a-secret-of-many-letters,another-secret")
    for line in (address.curl_get("c"), address.curl_purchase("c", "a")):
        assert "secret" not in line
        assert "${MODISTE_API_KEYS%%,*}" in line


def test_an_unreachable_redis_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidConfig, match=r"MODISTE_REDIS_URL: no Redis answers at redis://127\.0\.0\.1:1/0"
    ) as error:
        welcome.check_redis("redis://user:pass-word@127.0.0.1:1/0")
    assert "pass-word" not in str(error.value)


class Busy(BaseHTTPRequestHandler):
    """A service that answers, but not as it should."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"[]", b'{"articles": [{}]}', b'{"articles": 3}'])
def test_an_answer_that_is_none_keeps_nobody_from_serving(
    body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = type("Handler", (Busy,), {"body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, EmbeddedRedis(tmp_path / "redis") as redis:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Address("127.0.0.1", server.server_port).announce(redis.url)
        server.shutdown()
    told = capsys.readouterr().out
    assert f"ready at http://127.0.0.1:{server.server_port}" in told
    assert "/v1/customers/new-customer/recommendations?n=5" in told


def test_a_redis_that_fails_as_the_service_is_ready_keeps_nobody_from_serving(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Address("127.0.0.1", 1).announce("redis://127.0.0.1:1/0")
    assert "ready at http://127.0.0.1:1 (documentation" in capsys.readouterr().out


def test_who_starts_it_is_told_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    Address("127.0.0.1", 1, lookbook=True).announce("redis://127.0.0.1:1/0")
    assert "ready at http://127.0.0.1:1 (open it in a browser; documentation" in capsys.readouterr().out


def fill_catalogue_and_interrupt(url: str) -> None:
    with welcome.seeding(url):
        welcome._ask(url, lambda client: client.hset(welcome.ARTICLES, "a", "{}"))
        raise KeyboardInterrupt


def test_seeding_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        assert welcome.wants_seed(server.url)
        with pytest.raises(KeyboardInterrupt):
            fill_catalogue_and_interrupt(server.url)
        assert welcome.wants_seed(server.url)
        with welcome.seeding(server.url):
            pass
        assert not welcome.wants_seed(server.url)
