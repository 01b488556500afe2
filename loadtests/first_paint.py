"""How soon a browser that has seen nothing yet shows the lookbook, and how much it takes in for that.

    make test-browser                                                   # once: installs Playwright
    .venv/bin/python -m loadtests.first_paint http://127.0.0.1:8000 --out var/first_paint.json

Each time a new context of Debian's Chromium opens ``/``, and in turns ``/livez``, one line of text from the same
service: what the browser and the machine take by themselves. Prints the first contentful paint of both, their ratio,
and the bytes of the page and its files, pictures of articles apart; ends with 1 where the median is a second or more,
or the files are 300 KB or more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from playwright.sync_api import Browser, Response, sync_playwright

from service.bench.results import Result, table, write_json

CHROMIUM = os.environ.get("MODISTE_CHROMIUM") or "/usr/bin/chromium"
BOUND_MS, BOUND_BYTES = 1_000.0, 300_000
PAGE, PLAIN = "/", "/livez"
_PAINT = """new Promise(resolve => {
  const tell = list => {
    const found = list.getEntriesByName("first-contentful-paint")[0]
    if (found) resolve(found.startTime)
  }
  tell(performance)
  new PerformanceObserver(tell).observe({type: 'paint', buffered: true})
})"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="of a running service, such as http://127.0.0.1:8000")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the figures and the machine here")
    options = parser.parse_args(arguments)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        looks = looked(browser, options.url.rstrip("/"), options.times)
        browser.close()
    page, plain = (float(np.median([look.paint for look in looks[path]])) for path in (PAGE, PLAIN))
    size = looks[PAGE][0].size
    results = [
        *(_result(f"first paint of {path}", looks[path]) for path in looks),
        Result("ratio of the medians", page / plain, ""),
        Result("page and files", size / 1_000, "KB"),
    ]
    print(table(results))
    if options.out is not None:
        write_json(options.out, results, {"times": options.times})
    return int(page >= BOUND_MS or size >= BOUND_BYTES)


class Look(NamedTuple):
    """First contentful paint in ms, and bytes of the page and of its files, for who has nothing kept."""

    paint: float
    size: int


def looked(browser: Browser, url: str, times: int) -> dict[str, list[Look]]:
    """Looks by path, in turns."""
    looks: dict[str, list[Look]] = {PAGE: [], PLAIN: []}
    for _ in range(times):
        for path, found in looks.items():
            found.append(_look(browser, url + path))
    return looks


def _look(browser: Browser, url: str) -> Look:
    sizes: list[int] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("response", lambda answer: sizes.append(_size(answer)))
        page.goto(url, wait_until="networkidle")
        return Look(float(page.evaluate(_PAINT)), sum(sizes))


def _size(answer: Response) -> int:
    """Bytes of an answer; none of what tells of articles and customers."""
    path = "/" + answer.url.partition("://")[2].partition("/")[2]
    own = path in {PAGE, PLAIN} or path.startswith("/lookbook/assets/")
    return int(answer.headers.get("content-length", 0)) if own else 0


def _result(name: str, looks: Sequence[Look]) -> Result:
    p50, p90, p99 = np.percentile([look.paint for look in looks], [50, 90, 99]).tolist()
    return Result(name, p50, "ms", p50, p90, p99)


if __name__ == "__main__":
    sys.exit(main())
