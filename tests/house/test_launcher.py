"""`modiste serve` as a whole: real workers, a real embedded Redis, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle, sample_articles
from house.processes import wait_until
from house.serving import Service, clean_environment, serving, started

from service.generation.worker import NICENESS
from service.lifeline import is_alive
from service.workers import Workers

ARTICLES = [one.article.model_dump(mode="json", exclude_none=True, exclude={"image"}) for one in sample_articles(20)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    make_bundle(folder)
    return folder


def fill(service: Service) -> None:
    status, answer = service.call("/v1/articles", ARTICLES, "PUT")
    assert (status, answer.get("accepted")) == (200, len(ARTICLES)), answer
    stock = [{"article_id": article["article_id"], "quantity": 1} for article in ARTICLES]
    assert service.call("/v1/stock", stock, "PATCH")[1]["accepted"] == len(ARTICLES)


def purchase(service: Service, customer: str, article: str) -> None:
    event = {"type": "purchase", "customer_id": customer, "article_id": article}
    assert service.call("/v1/events", event) == (200, {"accepted": 1, "duplicates": 0, "rejected": []})


def refused(folder: Path, **settings: object) -> str:
    """What `modiste serve` says when it does not start; one line."""
    result = subprocess.run(
        [sys.executable, "-m", "modiste", "serve"],
        cwd=folder,
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_why_it_does_not_start_can_be_an_object(tmp_path: Path) -> None:
    line = json.loads(refused(tmp_path, MODISTE_LOG_FORMAT="json", MODISTE_WORKERS="many"))
    assert (line["level"], line["logger"]) == ("critical", "modiste.serve")
    assert line["message"].startswith("MODISTE_WORKERS: Input should be a valid integer")


def test_the_whole_life(tmp_path: Path, store: Path) -> None:
    """Two workers serve, one is killed and replaced, Ctrl-C ends all, and the next start finds the data."""
    with serving(tmp_path, store, workers=2) as service:
        assert service.text.count(" answers, with ") == 2, "ready was said before each of them was"
        fill(service)
        purchase(service, "Ada", "a001")
        redis, workers = service.children_named("valkey"), service.children_named("service.worker")
        assert (len(redis), len(workers)) == (1, 2)
        os.kill(min(workers), signal.SIGKILL)
        wait_until(lambda: len(service.children_named("service.worker") - workers) == 1)
        assert service.get("/v1/customers/Ada")[0] == 200
        wait_until(lambda: ready_workers(service) == service.children_named("service.worker"), 90)
        children = service.children()
        assert service.stop(signal.SIGINT) == 0
        assert not any(is_alive(child) for child in children)
        assert "Traceback" not in service.text
    with serving(tmp_path, store) as service:
        answer = service.get("/v1/customers/Ada/recommendations?n=200")[1]
        shown = {article["article_id"] for article in answer["articles"]}
        assert shown == {article["article_id"] for article in ARTICLES} - {"a001"}
        check_printed_lines(service)
        assert service.stop(signal.SIGTERM) == 0


def ready_workers(service: Service) -> set[int]:
    """Processes that show themselves to be ready, whichever of them is asked."""
    found = re.findall(r'^modiste_ready{pid="(\d+)"}1.0$', answer_to(f"{service.url}/metrics").decode(), re.MULTILINE)
    return {int(pid) for pid in found}


def check_printed_lines(service: Service) -> None:
    """Both lines to paste are about Ada, the only customer, and do what they say."""
    get, post = service.curl_lines
    assert b'"customer_id":"Ada"' in answer_to(get[1])
    headers = dict([post[post.index("-H") + 1].split(": ")])
    body = post[post.index("-d") + 1].encode()
    assert b'"accepted":1' in answer_to(urllib.request.Request(post[-1], body, headers))


def answer_to(request: str | urllib.request.Request) -> bytes:
    """The body, without blanks; fails with what it says where it is an error's."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        pytest.fail(f"{error.url}: {error} {error.read()!r}")
    return body.replace(b" ", b"")


def test_every_line_can_be_an_object_and_none_names_a_customer(tmp_path: Path) -> None:
    """Launcher, worker and generator, whose language model is a place-holder that cannot be loaded."""
    make_bundle(tmp_path / "store", generating=True)
    given = {"MODISTE_PORT": 0, "MODISTE_STORE": "store", "MODISTE_LOG_FORMAT": "json", "MODISTE_LOG_REQUESTS": 1}
    command = [sys.executable, "-m", "modiste", "serve"]
    with started(command, tmp_path, clean_environment(given)) as service:
        wait_until(lambda: any("ready at " in line["message"] for line in lines_of(service)), 90)
        fill(service)
        purchase(service, "Ada", "a001")
        assert service.get("/v1/customers/Ada/recommendations?category=none")[0] == 200
        wait_until(lambda: any("/recommendations" in line.get("route", "") for line in lines_of(service)))
        wait_until(lambda: any("cannot write yet" in line["message"] for line in lines_of(service)))
        os.kill(*service.children_named("service.worker"), signal.SIGKILL)
        wait_until(lambda: sum(" answers, with " in line["message"] for line in lines_of(service)) == 2)
        assert service.stop(signal.SIGTERM) == 0
    lines = lines_of(service)
    assert {line["logger"] for line in lines} >= {
        "service.welcome", "service.workers", "service.live", "service.generation.scribes", "service.http.middleware"
    }  # fmt: skip
    requests = [line for line in lines if "request_id" in line]
    assert [(line["method"], line["route"], line["status"]) for line in requests if "route" in line][:4] == [
        ("PUT", "/v1/articles", 200),
        ("PATCH", "/v1/stock", 200),
        ("POST", "/v1/events", 200),
        ("GET", "/v1/customers/{customer_id}/recommendations", 200),
    ]
    assert len({line["request_id"] for line in requests}) == len([line for line in requests if "route" in line])
    assert "Ada" not in service.text


def lines_of(service: Service) -> list[dict[str, Any]]:
    """What it has logged; fails where a line is no object."""
    return [json.loads(line) for line in service.said]


def test_nothing_outlives_a_killed_launcher_and_the_next_start_goes_on(tmp_path: Path, store: Path) -> None:
    with serving(tmp_path, store) as service:
        fill(service)
        purchase(service, "Ada", "a002")
        children = service.children()
        service.process.kill()
        service.process.wait()
    with serving(tmp_path, store) as service:
        assert len(service.get("/v1/customers/Ada")[1]["history"]) == 1
    wait_until(lambda: not any(is_alive(child) for child in children))


def test_an_embedded_redis_that_dies_is_started_again(tmp_path: Path, store: Path) -> None:
    with serving(tmp_path, store) as service:
        fill(service)
        purchase(service, "Ada", "a003")
        (server,) = service.children_named("valkey")
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: bool(service.children_named("valkey") - {server}))
        wait_until(lambda: service.get("/v1/customers/Ada")[0] == 200)
        assert len(service.get("/v1/customers/Ada")[1]["history"]) == 1


def test_generators_come_and_go_with_the_service_and_never_stand_in_its_way(tmp_path: Path) -> None:
    """The language model is a place-holder that cannot be loaded: then nothing is generated, and all else works."""
    make_bundle(tmp_path / "store", generating=True)
    with serving(tmp_path, tmp_path / "store") as service:
        fill(service)
        purchase(service, "Ada", "a001")
        (first,) = service.children_named("service.generation.worker")
        wait_until(lambda: "cannot write yet" in service.text)
        assert service.get("/v1/customers/Ada/recommendations")[0] == 200
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: bool(service.children_named("service.generation.worker") - {first}))
        children = service.children()
        assert service.stop(signal.SIGTERM) == 0
        assert not any(is_alive(child) for child in children)
        assert "Traceback" not in service.text
    with serving(tmp_path, tmp_path / "store", llm_url="http://127.0.0.1:1") as service:
        (generator,) = service.children_named("service.generation.worker")
        (worker,) = service.children_named("service.worker")
        wait_until(lambda: priority(generator) == min(19, priority(worker) + NICENESS))
    with serving(tmp_path, tmp_path / "store", llm_url="off") as service:
        assert not service.children_named("service.generation.worker")


def priority(process: int) -> int:
    """The niceness of a process: the higher, the less of a busy processor it gets."""
    return os.getpriority(os.PRIO_PROCESS, process)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    sizes = ["--articles", "200", "--customers", "300", "--days", "60", "--no-images"]
    subprocess.run([sys.executable, "-m", "modiste", "shop", str(folder), *sizes], check=True, capture_output=True)
    return folder


def test_an_empty_catalogue_is_seeded_once(tmp_path: Path, store: Path, shop: Path) -> None:
    """Stopped while it loads, it loads again; once loaded, never again."""
    command = [sys.executable, "-m", "modiste", "serve", "--seed-data", str(shop)]
    environment = clean_environment({"MODISTE_PORT": 0, "MODISTE_STORE": store})
    with started(command, tmp_path, environment) as service:
        wait_until(lambda: "loading articles" in service.text)
        children = service.children()
        assert service.stop(signal.SIGTERM) == 0
        assert not any(is_alive(child) for child in children)
    with serving(tmp_path, store, "--seed-data", str(shop)) as service:
        assert "loading articles" in service.text
        assert len(service.curl_lines) == 2
        assert service.stop() == 0
    with serving(tmp_path, store, "--seed-data", str(shop)) as service:
        assert "loading articles" not in service.text
        assert len(service.curl_lines) == 2


def test_a_taken_port_is_told_before_anything_is_started(tmp_path: Path, store: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused(tmp_path, MODISTE_PORT=port, MODISTE_STORE=store)
    assert f"cannot listen on 127.0.0.1:{port} (address already in use)" in line
    assert "MODISTE_PORT" in line
    assert not (tmp_path / "var").exists()


def test_a_store_without_a_bundle_is_told(tmp_path: Path) -> None:
    assert "has no live bundle" in refused(tmp_path, MODISTE_PORT=0, MODISTE_STORE=tmp_path / "none")


def test_a_live_version_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("v1\n")
    assert "CURRENT names 'v1', which is not there" in refused(tmp_path, MODISTE_PORT=0, MODISTE_STORE=tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, store: Path) -> None:
    (tmp_path / "var").touch()
    assert "cannot be written" in refused(tmp_path, MODISTE_PORT=0, MODISTE_STORE=store)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"MODISTE_PORT": "eighty"}, "MODISTE_PORT"),
        ({"MODISTE_HOST": "0.0.0.0"}, "MODISTE_API_KEYS"),
        ({"MODISTE_WORKER": "2"}, "did you mean MODISTE_WORKERS"),
        ({"MODISTE_PORT": "0", "MODISTE_REDIS_URL": "redis://127.0.0.1:1"}, "no Redis answers"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, settings: dict[str, object], told: str) -> None:
    assert told in refused(tmp_path, **settings)


def test_one_of_several_workers_says_that_it_is_not_ready_and_the_others_take_no_connection_until_they_are() -> None:
    with socket.socket() as listener:
        workers = Workers(3, listener, {})  # without settings they end by themselves
        try:
            workers.start()
            assert [each.process.args[-1] for each in workers._workers] == ["0", "1", "1"]  # type: ignore[index]
        finally:
            workers.stop()
