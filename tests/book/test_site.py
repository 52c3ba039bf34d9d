"""Open every page of the built book in a headless browser, as a reader without network would."""

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

HTML = Path(__file__).parents[2] / "book/_build/html"
PAGES = sorted(
    str(page.relative_to(HTML))
    for page in HTML.rglob("*.html")
    if "_static" not in page.relative_to(HTML).parts
)
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def missing(what: str) -> None:
    """Skip on a contributor's machine, fail where nobody would notice the skip."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must not pass without looking at the book")
    pytest.skip(what)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def site():
    """Serve the built book on localhost; its address."""
    if not PAGES:
        missing("the book is not built (`make book`)")
    handler = functools.partial(QuietHandler, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(site):
    if BROWSER is None:
        missing("no chromium or chrome on this machine (`apt-get install chromium`)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, site):
    """A fresh page that notes what it asks of other hosts and what goes wrong, for the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.trouble = []

    def on_request(request) -> None:
        if not request.url.startswith((site, "data:", "blob:")):
            page.trouble.append(f"request to {request.url}")

    def on_response(response) -> None:
        if response.status >= 400:
            page.trouble.append(f"{response.status} for {response.url}")

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("requestfailed", lambda r: page.trouble.append(f"failed: {r.url} ({r.failure})"))
    page.on("pageerror", lambda error: page.trouble.append(f"script error: {error}"))
    page.on(
        "console",
        lambda m: page.trouble.append(f"console: {m.text}") if m.type == "error" else None,
    )
    yield page
    context.close()


def test_book_is_built(site):
    assert {"index.html", "bibliography.html", "search.html"} <= set(PAGES)
    chapters = {p.stem for p in (HTML.parents[1].parent / "notebooks").glob("[0-9]*.ipynb")}
    assert chapters == {Path(p).stem for p in PAGES if p.startswith("notebooks/")}


@pytest.mark.parametrize("name", PAGES or ["index.html"])
def test_page(name, page, site):
    page.goto(site + name, wait_until="networkidle")
    source = (HTML / name).read_text(encoding="utf-8")
    assert 'rel="icon"' in source, "or a browser asks the server for /favicon.ico"

    formulas = len(re.findall(r'class="[^"]*\bmath\b[^"]*\bnotranslate\b', source))
    if formulas:
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        assert page.locator("mjx-container").count() >= formulas
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0

    # Images below the fold may load late: bring each into view before looking at it.
    for image in page.locator("img").all():
        image.evaluate("image => { image.loading = 'eager'; return image.decode(); }")
        assert image.evaluate("image => image.naturalWidth") > 0, image.get_attribute("src")
        if image.evaluate("image => !!image.closest('article')"):
            assert image.get_attribute("alt"), f"no alt text: {image.get_attribute('src')}"

    text = page.locator("body").inner_text()
    assert "PosixPath(" not in text and "Traceback (most recent call last)" not in text
    assert page.locator(".problematic, .system-message").count() == 0
    assert not page.trouble, "\n".join(page.trouble)


def test_dark_theme(page, site):
    page.emulate_media(color_scheme="dark")
    page.goto(site + "index.html", wait_until="networkidle")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    drawing = page.locator("img.line-drawing").first
    assert "invert" in drawing.evaluate("image => getComputedStyle(image).filter")
    assert not page.trouble, "\n".join(page.trouble)


UNREADABLE = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const linear = colour.slice(0, 3).map(value => value / 255)
      .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = "article :is(p, li, td, th, figcaption, a, h1, h2)";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.checkVisibility() || element.closest("pre, mjx-container, .headerlink")) continue;
    const text = [...element.childNodes].filter(node => node.nodeType === 3)
      .map(node => node.data.trim()).join("");
    if (!text) continue;
    const [a, b] = [numbers(getComputedStyle(element).color), ground(element)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4) found.push(`${contrast.toFixed(1)}: ${text.slice(0, 60)}`);
  }
  return found;
}"""
"""Texts whose contrast with what they stand on is less than 4, as WCAG 2 computes it."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(scheme, page, site):
    page.emulate_media(color_scheme=scheme)
    faint = []
    for name in PAGES:
        page.goto(site + name, wait_until="load")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        faint += [f"{name}: {text}" for text in page.evaluate(UNREADABLE)]
    assert not faint, "\n".join(faint[:20])


def test_search_finds_a_chapter(page, site):
    page.goto(site + "search.html?q=rate", wait_until="networkidle")
    results = page.locator("#search-results li a")
    results.first.wait_for()
    assert any("index.html" in (a.get_attribute("href") or "") for a in results.all())
    assert not page.trouble, "\n".join(page.trouble)


def test_links_within_the_book_lead_somewhere(site):
    broken = []
    for name in PAGES:
        source = (HTML / name).read_text(encoding="utf-8")
        for href in re.findall(r'<a\b[^>]*\bhref="([^"#?:]+\.html)', source):
            if not (HTML / name).parent.joinpath(href).resolve().exists():
                broken.append(f"{name} -> {href}")
    assert not broken
