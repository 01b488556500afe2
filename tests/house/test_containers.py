"""Dockerfile and docker-compose.yml agree with the code: commands, ports, variables, users, health."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from house.containers import Stage, environment, exec_form, lineage, parse_dockerfile

import modiste
from service.settings import PREFIX, Settings, variable

ROOT = Path(__file__).resolve().parents[2]
KNOWN_VARIABLES = {variable(name) for name in Settings.model_fields}
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return parse_dockerfile((ROOT / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def installed_lists(stages: dict[str, Stage], target: str) -> set[str]:
    """Lists of packages that lie in the environment which ``target`` copies; the project itself follows each."""
    source = re.search(r"--from=(\S+)", " ".join(stages[target].values("COPY")))
    assert source is not None
    commands = [
        run for stage in lineage(stages, source.group(1)) for run in stage.values("RUN") if "pip install" in run
    ]
    assert all("--no-deps" in run for run in commands)
    assert all("--require-hashes" in run for run in commands[::2])
    assert all(run.endswith(" --no-build-isolation .") for run in commands[1::2])
    return {name for run in commands for name in re.findall(r"-r requirements/(\S+)\.txt", run)}


def test_the_default_image_is_the_service_and_holds_no_torch(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "service"
    assert installed_lists(stages, "service") == {"${EXTRAS}", "service"}
    assert {"cpu", "gpu"} <= {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    copied = [words for stage in lineage(stages, "build") for words in stage.values("COPY")]
    assert not any("offline" in words for words in copied)


def test_a_target_for_offline_exists(stages: dict[str, Stage]) -> None:
    assert installed_lists(stages, "offline") == {"${EXTRAS}", "service", "offline", "torch"}


@pytest.mark.parametrize("target", ["service", "offline"])
def test_images_run_without_rights(stages: dict[str, Stage], target: str) -> None:
    assert stages[target].values("USER") == ["modiste"]
    assert any("useradd" in run and "modiste" in run for run in stages["base"].values("RUN"))


@pytest.mark.parametrize("target", ["service", "offline"])
def test_image_variables_are_settings(stages: dict[str, Stage], target: str) -> None:
    variables = {name: value for name, value in environment(stages, target).items() if name.startswith(PREFIX)}
    assert variables.keys() <= KNOWN_VARIABLES
    Settings.from_environment(variables | {"MODISTE_API_KEYS": KEY})


def test_the_service_image_starts_the_service_on_the_port_it_exposes(stages: dict[str, Stage]) -> None:
    service = stages["service"]
    assert exec_form(service.values("ENTRYPOINT")[0]) == ["modiste"]
    assert exec_form(service.values("CMD")[0])[0] in modiste.COMMANDS
    port = environment(stages, "service")["MODISTE_PORT"]
    assert service.values("EXPOSE") == [port]
    assert int(port) == Settings().port


@contextmanager
def probe_server(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers ``status``; its port, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_readyz(stages: dict[str, Stage], status: int, healthy: bool) -> None:
    check = stages["service"].values("HEALTHCHECK")[0].partition("CMD ")[2]
    program, *words = exec_form(check)
    assert program == "python"
    with probe_server(status) as (port, asked):
        result = subprocess.run(
            [sys.executable, *words], env={**os.environ, "MODISTE_PORT": str(port)}, capture_output=True, check=False
        )
    assert (result.returncode == 0) == healthy
    assert asked == ["/readyz"]


def test_readyz_is_a_path_of_the_service() -> None:
    from service.http.operations import router

    assert "/readyz" in {getattr(route, "path", "") for route in router.routes}


def plain(value: str) -> str:
    """A compose value as it is with a key set and every other variable at its default."""
    value = re.sub(r"\$\{MODISTE_API_KEYS:\?[^}]*\}", KEY, value)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_compose_commands_exist_and_targets_are_built(compose: dict[str, Any], stages: dict[str, Stage]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert service["build"]["target"] in stages
            assert service.get("command", ["serve"])[0] in modiste.COMMANDS


@pytest.mark.parametrize("name", ["service", "service-gpu", "backfill"])
def test_compose_variables_make_valid_settings(compose: dict[str, Any], name: str) -> None:
    variables = {key: plain(value) for key, value in compose["services"][name]["environment"].items()}
    assert variables.keys() <= KNOWN_VARIABLES
    settings = Settings.from_environment(variables)
    assert settings.redis_url is not None
    assert "//redis:" in settings.redis_url
    if name != "backfill":
        assert compose["services"][name]["ports"] == [f"127.0.0.1:8000:{settings.port}"]


@pytest.mark.parametrize("name", ["service", "service-gpu", "backfill"])
def test_a_service_writes_nowhere_but_where_it_must(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert (service["read_only"], service["tmpfs"], service["volumes"]) == (True, ["/tmp"], ["data:/data"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_redis_keeps_what_it_was_told(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    command = " ".join(redis["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert redis["volumes"] == ["redis:/data"]
    assert "redis" in compose["volumes"]


def test_profiles_and_extras(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {name for name, service in services.items() if "profiles" not in service} == {"redis", "service"}
    assert services["vllm"]["profiles"] == ["vllm"]
    for name in ("service-gpu", "offline-gpu"):
        assert services[name]["profiles"] == ["gpu"]
        assert services[name]["build"]["args"] == {"EXTRAS": "gpu"}


def test_every_copied_path_reaches_the_build(stages: dict[str, Stage]) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for stage in stages.values():
        for words in stage.values("COPY"):
            if "--from" not in words:
                sources = words.split()[:-1]
                assert set(sources) <= allowed
                assert all((ROOT / source).exists() for source in sources)
