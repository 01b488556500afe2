"""The README says what is true: its commands parse, its settings and calls are the code's, its curl lines work."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from bundles import make_bundle
from fastapi import FastAPI
from house.documents import ROOT, SETTINGS, readme, settings_table, shell_lines
from redis_server import redis_url

import modiste
from service.http.app import create_app
from service.settings import Settings

__all__ = ["redis_url"]


def test_the_settings_are_those_of_the_code() -> None:
    found = SETTINGS.search(readme())
    assert found is not None
    assert found.group() == settings_table(), "write it anew: .venv/bin/python tests/house/documents.py"


def test_the_calls_are_those_of_the_code(redis_url: str, tmp_path: Path) -> None:
    app = create_app(Settings(redis_url=redis_url, store=tmp_path))
    documented = set(re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", readme(), re.MULTILINE))
    assert documented == calls_of(app)


def calls_of(app: FastAPI) -> set[tuple[str, str]]:
    found = set()
    for path, methods in app.openapi()["paths"].items():
        found |= {(method.upper(), path) for method in methods}
    return found


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("modiste ")])
def test_every_command_parses(line: str) -> None:
    _, name, *words = shlex.split(line)
    module = importlib.import_module(modiste.COMMANDS[name][0])
    parser = argparse.ArgumentParser()
    module.arguments(parser)
    parser.parse_args(words)


def test_every_command_is_shown() -> None:
    shown = {shlex.split(line)[1] for line in shell_lines() if line.startswith("modiste ")}
    assert shown == set(modiste.COMMANDS)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?\bmake ([a-z]+)\b", "\n".join(shell_lines()))) | set(
        re.findall(r"`make ([a-z]+)", readme())
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_load_test_takes_the_options_that_are_shown() -> None:
    (line,) = [line for line in shell_lines() if "loadtest" in line]
    (shown,) = [word.partition("=")[2] for word in shlex.split(line) if word.startswith("LOADTEST=")]
    command = [Path(sys.executable).with_name("locust"), "-f", "loadtests/locustfile.py", "--headless"]
    nobody = [*command, "--host", "http://127.0.0.1:9", *shlex.split(shown)]
    result = subprocess.run(nobody, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "answers with status 0" in result.stderr


def test_paths_that_are_named_exist() -> None:
    made = {"model_store/bundles"}  # by the first export
    for path in re.findall(r"`((?:model_store|offline|service|loadtests|\.ci)/[\w./]*)`", readme()):
        assert path in made or (ROOT / path).exists(), path


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("curl ")])
async def test_every_curl_line_works(line: str, redis_url: str, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    app = create_app(Settings(redis_url=redis_url, store=tmp_path))
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client:
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - as a probe does
                await asyncio.sleep(0.05)
            method, path, headers, body = as_request(line)
            answer = await client.request(method, path, headers=headers, content=body)
            assert answer.status_code == 200, answer.text
            assert answer.json().get("rejected", []) == []


def as_request(line: str) -> tuple[str, str, dict[str, str], str | None]:
    """(method, path, headers, body) of a curl line in the few options that the README uses."""
    words = shlex.split(line)[1:]
    headers, body, url = {}, None, ""
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        else:
            url = word
    path = re.sub(r"^http://127\.0\.0\.1:8000", "", url)
    assert path.startswith("/"), line
    return ("GET" if body is None else "POST"), path, headers, body
