"""How tests look at a page: as which device, what it may not say, whether all can use it, and pictures of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which only `make test-browser` installs
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

CHROMIUM = os.environ.get("MODISTE_CHROMIUM") or "/usr/bin/chromium"
SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"
DEVICES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,  # a page without <meta name="viewport"> is laid out 980 wide, as on a phone
        "has_touch": True,
    },
}
GIVEN_UP = "net::ERR_ABORTED"
"""How a request fails that the page itself gives up, because it leaves or wants something else by now: no fault."""
PLAIN_AXE = {"resultTypes": ["violations"], "iframes": False}  # axe-core is not in the frames, and would wait for it


@dataclass
class Faults:
    """What a page did that no page should: errors and warnings in the console, exceptions, requests that failed.

    An answer of 400 or more is an error in the console, with its URL.
    """

    seen: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """From here on a fault that ``pattern`` (a regular expression) is found in is none; one at least must come."""
        self.expected.append(pattern)

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._said)
        context.on("weberror", lambda error: self.seen.append(f"exception: {error.error}"))
        context.on("requestfailed", self._failed)

    def check(self) -> None:
        """Fail with all faults, one a line, that were not expected, and with those that were and did not come."""
        faults = [fault for fault in self.seen if not any(re.search(pattern, fault) for pattern in self.expected)]
        faults += [
            f"expected, and did not come: {pattern}"
            for pattern in self.expected
            if not any(re.search(pattern, fault) for fault in self.seen)
        ]
        assert not faults, "the page is at fault:\n  " + "\n  ".join(faults)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.seen.append(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _failed(self, request: Request) -> None:
        if request.failure != GIVEN_UP:
            self.seen.append(f"request: {request.method} {request.url}: {request.failure}")


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Without its sandbox: it needs more than containers allow, and all pages are our own."""
    from playwright.sync_api import sync_playwright

    options = {"executable_path": CHROMIUM, "chromium_sandbox": False}
    with sync_playwright() as playwright, playwright.chromium.launch(**options) as chromium:
        yield chromium


@contextmanager
def watched(context: BrowserContext, faults: Faults) -> Iterator[Page]:
    """A new page of ``context`` that must be without faults at the end of the block."""
    faults.watch(context)
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    if not page.is_closed():
        page.evaluate("0")  # what the page has said until now has arrived once this is answered
    faults.check()


def accessible(page: Page) -> None:
    """Fail where axe-core finds anything: a line for each rule and element, its impact and what there is to do."""
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page, options=PLAIN_AXE).response["violations"]
    lines = [
        f"{violation['id']} ({violation['impact']}): {_selector(node['target'])}: {violation['help']}"
        for violation in violations
        for node in violation["nodes"]
    ]
    assert not lines, "not everybody can use this page:\n  " + "\n  ".join(lines)


def _selector(target: list[str | list[str]]) -> str:
    """Within shadow roots the selectors of host and element."""
    return " ".join(part if isinstance(part, str) else " >>> ".join(part) for part in target)


def shot(page: Page, name: str, *, whole: bool = False) -> Path:
    """A PNG of what the window shows, or of the ``whole`` page, in ``var/screenshots/<name>-<device>.png``."""
    path = SCREENSHOTS / f"{name}-{_device(page)}.png"
    page.screenshot(path=path, full_page=whole, animations="disabled")
    return path


def _device(page: Page) -> str:
    """The name of the device whose window this is, or the window's width."""
    names = (name for name, device in DEVICES.items() if device["viewport"] == page.viewport_size)
    return next(names, str((page.viewport_size or {}).get("width", "free")))
