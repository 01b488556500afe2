"""What measures how soon the page is seen: it measures, and the page with its files is small."""

from __future__ import annotations

import pytest
from browser.sample_shop import Shop
from playwright.sync_api import Browser

from loadtests.first_paint import BOUND_BYTES, PAGE, PLAIN, looked

pytestmark = pytest.mark.browser


def test_the_page_is_small_and_its_first_paint_is_found(browser: Browser, shop: Shop) -> None:
    looks = looked(browser, shop.url, 1)
    assert all(look.paint > 0 for path in (PAGE, PLAIN) for look in looks[path])
    assert looks[PLAIN][0].size == len(b'{"status":"ok"}')
    assert 20_000 < looks[PAGE][0].size < BOUND_BYTES
