"""Whatever is sent, over a real socket, is answered as the OpenAPI document says, and leaves nothing in memory."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from bundles import make_bundle
from house.serving import Service, serving
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from service_running import catalogue

from .test_openapi import CONTRACT

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fuzz")
    make_bundle(folder / "store", generating=True)
    with serving(folder, folder / "store", llm_url="off", log_level="error") as service:
        assert service.call("/v1/articles", catalogue(), "PUT")[1]["rejected"] == []
        yield service


@pytest.fixture(scope="module")
def api(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


CALLS = [(path, method) for path, methods in CONTRACT.items() for method in sorted(methods)]
NOTHING_TO_BREAK = {"/v1/bundles", "/v1/bundles/{version}/activate", "/livez", "/readyz", "/metrics"}
PER_ENTRY = {"/v1/events", "/v1/articles", "/v1/stock"}
"""Of a body with entries that are at fault the others are taken, and those rejected one by one."""
QUERIES = {"/v1/customers/{customer_id}/recommendations", "/v1/articles/{article_id}/similar", "/v1/search"}
"""With parameters of which no schema tells all: price_min is not above price_max, times lie between the years 1970 and
9999. Nor does their text tell 14 from ["14"] or 0.5 from [0.5], so that what breaks a type may be sound on arrival."""


@pytest.mark.parametrize(("path", "method"), CALLS)
def test_calls_that_keep_to_the_document(api: Any, path: str, method: str) -> None:
    call(api, path, method, GenerationMode.POSITIVE, [positive_data_acceptance] if path in QUERIES else [])


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method in CALLS if path not in NOTHING_TO_BREAK])
def test_calls_that_break_the_document(api: Any, path: str, method: str) -> None:
    call(api, path, method, GenerationMode.NEGATIVE, [negative_data_rejection] if path in PER_ENTRY | QUERIES else [])


def call(api: Any, path: str, method: str, mode: GenerationMode, excluded: list[Any]) -> None:
    """Every answer has a status, a media type and a body of those that the document names, and is no 5xx."""

    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method.upper()].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(excluded_checks=excluded)

    check()


DEEP = b"[" * 100_000
ODD_VALUES = [
    None, True, 0, -1, 1e308, float("nan"), float("inf"), 2**70, "", " ", "\x00", "\ud800", "é" * 200_000, "9999-12-31",
    "0001-01-01T00:00:00Z", -(10**12), 10**12, [], [[]], {}, {"a": {"b": []}},
]  # fmt: skip
SOUND: dict[str, dict[str, Any]] = {
    "/v1/events": {"type": "purchase", "customer_id": "odd", "article_id": "a001"},
    "/v1/articles": {
        "article_id": "a001",
        "title": "Dress",
        "category": "dress",
        "price": 5.0,
        "tags": [],
        "materials": {},
    },
    "/v1/stock": {"article_id": "a001", "quantity": 1, "set_time": 1},
}
METHOD = {"/v1/events": "POST", "/v1/articles": "PUT", "/v1/stock": "PATCH"}


@pytest.mark.parametrize("path", sorted(SOUND))
def test_an_odd_value_in_any_field_is_rejected_or_taken_but_never_a_failure(service: Service, path: str) -> None:
    with httpx2.Client(base_url=service.url, timeout=30) as http:
        for field in [*SOUND[path], "event_id", "timestamp", "order_id", "position", "query", "image", "new field"]:
            for value in ODD_VALUES:
                body = json.dumps([SOUND[path] | {field: value}, SOUND[path]]).encode()
                answer = http.request(METHOD[path], path, content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code in {200, 400}, (field, value, answer.text)
                if answer.status_code == 200:
                    assert all(entry["index"] == 0 for entry in answer.json()["rejected"]), (field, value, answer.text)
                assert "Traceback" not in answer.text
    assert service.call("/v1/articles", catalogue(), "PUT")[1]["rejected"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"7", b'"text"', b"{", b"[1,", b"\xff\xfe", b"[NaN]", b"[1e999]", b"\x00" * 64,
        DEEP, DEEP + b"]" * 100_000, b'{"a":' * 50_000, b"[" + b"{}," * 999 + b"{}]", b"[" + b"{}," * 1_000 + b"{}]",
        b" " * 10_000_000 + b"[]", b'[{"type":"' + b"x" * 10_000_000 + b'"}]', b"x" * 40_000_000,
    ],
    ids=lambda body: f"{body[:12]!r} of {len(body):,}",
)  # fmt: skip
@pytest.mark.parametrize("path", sorted(SOUND))
def test_a_body_of_any_shape_and_size_gets_a_documented_answer(service: Service, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx2.request(METHOD[path], service.url + path, content=body, headers=headers, timeout=30)
    assert answer.status_code in {200, 400, 413, 422}, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"].keys() <= {"type", "message", "field"}
    assert "Traceback" not in answer.text


def test_large_and_senseless_bodies_leave_nothing_in_memory(service: Service) -> None:
    (worker,) = service.children_named("service.worker")
    rng = random.Random(1)
    bodies = [
        json.dumps([rng.choice(ODD_VALUES[:8]) for _ in range(500)] + ["x" * 3_000_000]).encode() for _ in range(4)
    ]
    sizes = []
    with httpx2.Client(base_url=service.url, timeout=30, headers={"Content-Type": "application/json"}) as http:
        for _ in range(3):
            for path in SOUND:
                for body in bodies * 3:
                    assert http.request(METHOD[path], path, content=body).status_code in {200, 400}
            sizes.append(_resident(worker))
    print("MiB after each round:", sizes)
    assert sizes[-1] - sizes[0] < 16, sizes


def _resident(process: int) -> float:
    """Memory of a process, MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
