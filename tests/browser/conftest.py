"""A page in a real Chromium, and the shop that it shows.

@pytest.mark.parametrize("device", ["phone"], indirect=True)  # without this line: on each device
def test_…(page: Page, shop: Shop) -> None:
    page.goto(shop.url)
    accessible(page)
    shot(page, "beginning")
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser.looking import CHROMIUM, DEVICES, SCREENSHOTS, Faults, running_chromium, watched
from browser.sample_shop import KEY, Shop, trained_shop
from house.serving import serving

from model_store.dataset import DataSet

if TYPE_CHECKING:
    from browser.lookbook import Lookbook
    from playwright.sync_api import Browser, BrowserContext, Page

# Only `make test-browser` installs Playwright; what it runs is not even read elsewhere.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]
PATIENCE = 15_000
"""Milliseconds until an expectation has failed: two cores may be busy with the language model meanwhile."""


@pytest.fixture(scope="session")
def trained() -> Path:
    """A data set ``shop`` and bundles ``store`` with a generating half, made in a minute once a day."""
    return trained_shop()


@pytest.fixture(scope="session")
def shop(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """`modiste serve` over the sample shop, with its embedded Redis and language model. No key is asked for."""
    with serving(tmp_path_factory.mktemp("shop"), trained / "store", "--seed-data", str(trained / "shop")) as service:
        yield Shop(service, DataSet.open(trained / "shop"))


@pytest.fixture(scope="session")
def guarded_shop(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The same where a key is asked for, which is `KEY`; one of its own, without a language model."""
    folder, data = tmp_path_factory.mktemp("guarded"), trained / "shop"
    options = {"api_keys": KEY, "llm_url": "off"}
    with serving(folder, trained / "store", "--seed-data", str(data), **options) as service:
        yield Shop(service, DataSet.open(data))


_newcomers = count(1)


@pytest.fixture
def newcomer() -> str:
    """The id of a customer whom nobody has heard of; it must be percent-encoded in paths."""
    return f"newcomer {next(_newcomers)}/é"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; each page has a context of its own."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    if not Path(CHROMIUM).exists():
        pytest.fail(f"there is no Chromium at {CHROMIUM}: apt-get install chromium, or set MODISTE_CHROMIUM", False)
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture(params=list(DEVICES))
def device(request: pytest.FixtureRequest) -> str:
    """What the page is looked at with."""
    return str(request.param)


@pytest.fixture
def context(browser: Browser, device: str) -> Iterator[BrowserContext]:
    """A browser that has seen nothing yet."""
    with browser.new_context(**DEVICES[device], locale="en-GB", timezone_id="UTC") as context:
        yield context


@pytest.fixture
def faults() -> Faults:
    """What `page` finds fault with; `faults.expect` names what the test itself provokes."""
    return Faults()


@pytest.fixture
def page(context: BrowserContext, faults: Faults) -> Iterator[Page]:
    """An empty page; the test fails at its end where the page was at fault."""
    with watched(context, faults) as page:
        yield page


@pytest.fixture
def lookbook(page: Page, shop: Shop) -> Lookbook:
    """The page as the lookbook of the shop that asks for no key."""
    from browser.lookbook import Lookbook

    return Lookbook(page, shop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Where a test fails, its page is kept as a picture."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page is not None and not page.is_closed():
        path = SCREENSHOTS / f"failed-{re.sub(r'[^a-z0-9]+', '-', item.name.lower()).strip('-')}.png"
        with suppress(Exception):  # a page that hangs is no reason to lose what the test said
            page.screenshot(path=path, timeout=5_000)
        report.sections.append(("page", f"{page.url}, {path}"))
    return report
