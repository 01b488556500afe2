"""The page's shell and files: who may fetch them, and what a browser may do with them."""

from __future__ import annotations

import hashlib
import re

import pytest
from service_running import Shop, running

from service.lookbook.pages import ASSETS, PREFIX
from service.settings import Settings

CALLS = ("/shop", "/customers", "/customers/c", "/customers/c/path", "/customers/c/generation", "/articles",
         "/articles/a001", "/articles/a001/picture", "/map", "/operations", "/report")  # fmt: skip
RELEASED = {
    "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""SHA-256 of the files of uPlot 1.6.32."""
KEYS = "admin:admin-key-long-enough,read:read-key-long-enough,events:events-key-long-enough"


async def test_the_page_and_all_that_it_names_are_served(shop: Shop) -> None:
    response = await shop.http.get("/")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<meta name="modiste-keys" content="none">' in response.text
    named = re.findall(r'(?:src|href)="(/[^"]+)"', response.text)
    assert {name for name in named if name.startswith(PREFIX)} <= {PREFIX + name for name in ASSETS}
    for name in named:
        assert (await shop.http.get(name)).status_code == 200, name


async def test_nothing_from_elsewhere_and_nothing_inline_runs(shop: Shop) -> None:
    response = await shop.http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)", response.text)
    assert " style=" not in response.text
    for name, asset in ASSETS.items():
        assert not re.search(rb"https?://(?!www\.w3\.org/|github\.com/leeoniya/uPlot \()", asset.content), name


@pytest.mark.parametrize(("name", "released"), sorted(RELEASED.items()))
async def test_the_charts_library_is_as_it_was_released_and_comes_with_its_licence(
    shop: Shop, name: str, released: str
) -> None:
    response = await shop.http.get(PREFIX + name)
    licence, rest = response.content.split(b"*/\n", 1)
    assert b"The MIT License" in licence
    assert b"Copyright (c)" in licence
    assert hashlib.sha256(rest).hexdigest() == released


async def test_files_are_not_sent_twice(shop: Shop) -> None:
    for name, asset in ASSETS.items():
        response = await shop.http.get(PREFIX + name)
        assert response.content == asset.content
        again = await shop.http.get(PREFIX + name, headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpages.py", "index.html", "%2e%2e/pages.py"])
async def test_nothing_else_is_served(shop: Shop, name: str) -> None:
    assert (await shop.http.get(PREFIX + name)).status_code == 404


def test_the_files_are_small() -> None:
    assert sum(len(asset.content) for asset in ASSETS.values()) < 300_000


async def test_where_keys_are_asked_for_the_page_is_open_and_its_calls_are_for_those_with_all_rights(
    settings: Settings,
) -> None:
    keys = Settings.from_environment({"MODISTE_API_KEYS": KEYS}).api_keys
    async with running(settings.model_copy(update={"api_keys": keys}), filled=False) as shop:
        shell = await shop.http.get("/")
        assert '<meta name="modiste-keys" content="required">' in shell.text
        for name in ASSETS:
            assert (await shop.http.get(PREFIX + name)).status_code == 200
        for path in CALLS:
            for key, expected in (("read-key-long-enough", 403), ("events-key-long-enough", 403), (None, 401)):
                response = await shop.http.get(f"/lookbook{path}", headers={} if key is None else {"X-API-Key": key})
                assert response.status_code == expected, path
            allowed = await shop.http.get(f"/lookbook{path}", headers={"X-API-Key": "admin-key-long-enough"})
            assert allowed.status_code in {200, 404}, path


async def test_a_setting_turns_it_off(settings: Settings) -> None:
    async with running(settings.model_copy(update={"lookbook": False}), filled=False) as shop:
        for path in ("/", "/lookbook/shop", PREFIX + next(iter(ASSETS), "app.js")):
            assert (await shop.http.get(path)).status_code == 404
        assert (await shop.http.get("/livez")).status_code == 200
    assert Settings.from_environment({"MODISTE_LOOKBOOK": "false"}).lookbook is False
