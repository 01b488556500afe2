"""The application as it is served: another process, under uvicorn, over a real socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from service_running import catalogue

from model_store.errors import InvalidConfig
from service.http.app import from_environment


@pytest.fixture
def address(store: Path, redis_url: str) -> Iterator[str]:
    """Where a process of its own listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        environment = os.environ | {"MODISTE_REDIS_URL": redis_url, "MODISTE_STORE": str(store)}
        command = [
            sys.executable, "-m", "uvicorn", "--factory", "service.http.app:from_environment",
            "--fd", str(listener.fileno()), "--no-access-log", "--log-level", "warning",
        ]  # fmt: skip
        process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            assert process.wait(20) in {0, -15}


def test_over_a_real_socket(address: str) -> None:
    with httpx2.Client(base_url=address, timeout=20) as http:
        deadline = time.monotonic() + 60
        while http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert http.put("/v1/articles", json=catalogue()).json() == {"accepted": 60, "rejected": []}
        event = {"type": "purchase", "customer_id": "a/b 😀", "article_id": "a003"}
        assert http.post("/v1/events", json=event).json() == {"accepted": 1, "duplicates": 0, "rejected": []}
        response = http.get("/v1/customers/a%2Fb%20%F0%9F%98%80/recommendations?n=200&strategy=style")
        assert response.status_code == 200
        assert response.json()["customer_id"] == "a/b 😀"
        assert "a003" not in {article["article_id"] for article in response.json()["articles"]}
        assert http.get("/v1/customers/%FF/recommendations").status_code == 422
        assert 'modiste_events_total{result="accepted"} 1.0' in http.get("/metrics").text
        assert 'route="/v1/customers/{customer_id}/recommendations",status="200"} 1.0' in http.get("/metrics").text


def test_without_redis_url_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODISTE_REDIS_URL", raising=False)
    with pytest.raises(InvalidConfig, match="MODISTE_REDIS_URL is not set; set it, or run 'modiste serve'"):
        from_environment()
