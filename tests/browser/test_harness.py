"""The harness itself: a page at fault fails its test, and what nobody can use is found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2
import pytest
from browser.looking import DEVICES, Faults, accessible, shot, watched
from browser.sample_shop import KEY, Shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

pytestmark = pytest.mark.browser

ON_DESKTOP = pytest.mark.parametrize("device", ["desktop"], indirect=True)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"


def html(body: str = "", viewport: str = '<meta name="viewport" content="width=device-width">') -> str:
    """A sound page around ``body``."""
    head = f"<title>A page</title>{viewport}<link rel='icon' href='data:,'>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body><main><h1>A page</h1>{body}</main></body></html>"


def serve(context: BrowserContext, body: str, script: str = "") -> str:
    """The URL of a page under a strict policy, with a script of its own; all else on its host is 404."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix("http://page.test")
        if path == "/":
            headers = {"Content-Type": "text/html", "Content-Security-Policy": STRICT}
            route.fulfill(body=html(f"{body}<script src='/script.js'></script>"), headers=headers)
        elif path == "/script.js":
            route.fulfill(body=script, content_type="text/javascript")
        elif path == "/gone":
            route.abort("connectionrefused")
        else:
            route.fulfill(status=404)

    context.route("http://page.test/**", answer)
    return "http://page.test/"


def visit(context: BrowserContext, body: str = "", script: str = "", faults: Faults | None = None) -> None:
    """Look at a page until its script has run and its requests are answered."""
    from playwright.sync_api import expect

    with watched(context, faults or Faults()) as page:
        page.goto(serve(context, body, script + "\n;setTimeout(() => { document.title = 'done' }, 50)"))
        expect(page).to_have_title("done")
        page.wait_for_load_state("networkidle")


@ON_DESKTOP
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("console.error('oh', 7)", r"console error: oh 7 \(http://page.test/script.js\)"),
        ("console.warn('well')", r"console warning: well"),
        ("setTimeout(() => { throw new Error('boom') })", r"exception: boom"),
        ("Promise.reject(new Error('unheard'))", r"exception: unheard"),
        ("fetch('/nothing')", r"console error: .*404.* \(http://page.test/nothing\)"),
        ("fetch('/gone').catch(() => 0)", r"request: GET http://page.test/gone: net::ERR_CONNECTION_REFUSED"),
        ("fetch('http://elsewhere.test/').catch(() => 0)", r"Content Security Policy"),
    ],
    ids=["error", "warning", "exception", "rejection", "not found", "no answer", "elsewhere"],
)
def test_a_page_at_fault_fails_its_test(context: BrowserContext, script: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        visit(context, script=script)


@ON_DESKTOP
def test_an_inline_style_is_a_fault(context: BrowserContext) -> None:
    with pytest.raises(AssertionError, match="inline style violates"):
        visit(context, "<p style='color: red'>red</p>")


@ON_DESKTOP
def test_what_is_expected_is_no_fault_but_must_come(context: BrowserContext) -> None:
    faults = Faults()
    faults.expect("two")
    visit(context, script="console.error('two')", faults=faults)
    faults.expect("three")
    with pytest.raises(AssertionError) as failure:
        visit(context, script="console.error('one'); console.error('two')", faults=faults)
    assert set(re.findall(r"\n  (.*)", str(failure.value))) == {
        "console error: one (http://page.test/script.js)",
        "expected, and did not come: three",
    }


@ON_DESKTOP
def test_logs_and_requests_that_the_page_gives_up_are_no_faults(context: BrowserContext) -> None:
    script = "console.log('hello'); const c = new AbortController();"
    visit(context, script=script + "fetch('/nothing', {signal: c.signal}).catch(() => 0); c.abort()")


def test_what_everybody_can_use_passes_under_a_strict_policy(page: Page, context: BrowserContext) -> None:
    page.goto(serve(context, f"<img src='{PIXEL}' alt='nothing'><label>Name <input></label>"))
    accessible(page)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (f"<img src='{PIXEL}'>", r"^  image-alt \(critical\): img: Images must have alternative text$"),
        ("<input id='name'>", r"^  label \(critical\): #name: "),
        ("<p style='color: #bbb; background: #fff'>pale</p>", r"^  color-contrast \(serious\): p: "),
        ("<section><h1>One</h1><h5>Five</h5></section>", r"^  heading-order \(moderate\): h5: "),
    ],
    ids=["no alt", "no label", "pale", "order of headings"],
)
def test_what_not_everybody_can_use_is_told(page: Page, body: str, told: str) -> None:
    page.set_content(html(body))
    with pytest.raises(AssertionError) as failure:
        accessible(page)
    assert re.search(told, str(failure.value), re.MULTILINE), failure.value


def test_a_device_has_its_width(page: Page, device: str) -> None:
    page.set_content(html("<p>" + "wide " * 400))
    width = DEVICES[device]["viewport"]["width"]
    assert page.evaluate("innerWidth") == page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("matchMedia('(pointer: coarse)').matches") is (device == "phone")


@pytest.mark.parametrize("device", ["phone"], indirect=True)
def test_a_page_that_is_not_made_for_phones_is_laid_out_wide(page: Page) -> None:
    page.set_content(html(viewport=""))
    assert page.evaluate("innerWidth") == 980


def test_a_picture_is_taken(page: Page, device: str) -> None:
    page.set_content(html())
    path = shot(page, "harness")
    assert path.name == f"harness-{device}.png"
    size = page.viewport_size or {}
    scale = DEVICES[device].get("device_scale_factor", 1)
    content = path.read_bytes()
    assert int.from_bytes(content[16:20]) == size["width"] * scale
    assert int.from_bytes(content[20:24]) == size["height"] * scale


def test_contexts_share_nothing(context: BrowserContext, page: Page, browser: Browser) -> None:
    address = serve(context, "")
    page.goto(address)
    page.evaluate("localStorage.setItem('kept', 'here')")
    with browser.new_context() as other:
        elsewhere = other.new_page()
        elsewhere.goto(serve(other, ""))
        assert elsewhere.evaluate("localStorage.getItem('kept')") is None


def test_the_shop_runs_with_histories_pictures_and_a_language_model(shop: Shop, newcomer: str) -> None:
    assert len(shop.articles) == 300
    assert all(article.image for article in shop.articles.values())
    assert len(shop.service.get(f"/v1/customers/{shop.customers[0]}")[1]["history"]) >= 20
    event = {"type": "search", "customer_id": newcomer, "query": shop.queries[0]}
    assert shop.service.call("/v1/events", event)[1]["accepted"] == 1
    path = f"/v1/customers/{quote(newcomer, safe='')}/recommendations?wait_ms=5000&n=5"
    answer = shop.service.get(path)[1]
    assert (answer["generation"], len(answer["articles"])) == ("fresh", 5)


def test_the_guarded_shop_asks_for_its_key(guarded_shop: Shop) -> None:
    path = f"{guarded_shop.url}/v1/bundles"
    assert httpx2.get(path).status_code == 401
    assert httpx2.get(path, headers={"X-API-Key": KEY}).status_code == 200
