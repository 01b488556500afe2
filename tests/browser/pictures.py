"""The README's pictures, of a service that runs: `PYTHONPATH=tests python -m browser.pictures URL FOLDER [CUSTOMER]`.

Without a customer: of those whom the page offers first, the one who bought most.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from browser.lookbook import AT_REST, encoded
from browser.looking import running_chromium
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

VIEWS = {"customer": "customers", "taste": "taste"}
"""Name of the picture → view of a customer."""
TALL = {"width": 1280, "height": 1340}
"""So that what is recommended, and the whole of the map, are on it."""
COLOURS = 256
LARGEST = 200_000
"""Bytes of a picture."""


def main(url: str, folder: str, customer_id: str | None = None) -> None:
    chosen = encoded(customer_id or longest_history(url))
    Path(folder).mkdir(parents=True, exist_ok=True)
    with empty_page() as page:
        for name, view in VIEWS.items():
            page.goto(f"{url}/#/{view}/{chosen}")
            expect(page.locator(f"#main > [data-view={view}]")).to_be_visible()
            expect(page.locator("[aria-busy=true]")).to_have_count(0)
            page.evaluate(AT_REST)
            (Path(folder) / f"{name}.png").write_bytes(small(page.screenshot(animations="disabled")))


def longest_history(url: str) -> str:
    def purchases(customer_id: str) -> int:
        return len(asked(f"{url}/lookbook/customers/{encoded(customer_id)}")["history"])

    return str(max(asked(f"{url}/lookbook/customers?n=50")["customers"], key=purchases))


def asked(address: str) -> Any:
    return httpx2.get(address, timeout=30).raise_for_status().json()


@contextmanager
def empty_page() -> Iterator[Page]:
    with running_chromium() as chromium, chromium.new_context(viewport=TALL, locale="en-GB") as context:
        yield context.new_page()


def small(png: bytes) -> bytes:
    """The same picture in few colours."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    if buffer.tell() >= LARGEST:
        raise ValueError(f"the picture has {buffer.tell()} bytes, which is too large for a README")
    return buffer.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])
