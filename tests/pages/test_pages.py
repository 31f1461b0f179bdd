"""The built pages in a browser without a network: what a reader sees is all there, on a wide screen and on a phone."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import re
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

HTML = Path(__file__).resolve().parent.parent.parent / "_build/html"
spec = importlib.util.spec_from_file_location("quality", HTML.parent.parent / "book/quality.py")
quality = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quality)
PAGES = quality.pages()
LOCAL = re.compile(r"(file|data|blob|about):")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}

each_page = pytest.mark.parametrize("name", PAGES or ["book/index.html"])


@pytest.fixture(scope="session", autouse=True)
def built_book():
    """Skip without a built book, or fail where `make check-book` asks for one."""
    if not (HTML / "index.html").is_file():
        message = "there is no book in _build/html: run make book"
        if os.environ.get("RWKVLIB_NEEDS_BOOK"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def browser(built_book, require_tool):
    """One headless Chromium for all tests."""
    chromium = require_tool("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=list(WIDTHS))
def visit(browser, request):
    """A function that opens a page of the book and returns it with what went wrong on the way."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=request.param == "phone")

    def route(route):
        if LOCAL.match(route.request.url):
            route.continue_()
        else:
            route.abort()

    context.route("**/*", route)

    def open_page(name: str):
        page, problems = context.new_page(), []
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:200]}"))
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("console", lambda said: problems.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("request", lambda r: None if LOCAL.match(r.url) else problems.append(f"external: {r.url[:200]}"))
        page.goto((HTML / name).as_uri(), wait_until="load")
        page.wait_for_function("!window.MathJax || (MathJax.startup && MathJax.startup.promise)")
        page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => 0) : 0")
        views = page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()
        if views:
            page.wait_for_function(
                "n => document.querySelectorAll('.widget-subarea .jupyter-widgets').length >= n", arg=views
            )
        page.evaluate("document.fonts.ready.then(() => 0)")
        return page, problems

    yield open_page
    context.close()


@each_page
def test_page_is_complete(visit, name):
    page, problems = visit(name)
    # Pictures load when they come into view; a reader scrolls to them.
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert not problems

    broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 200))")
    assert not broken
    silent = page.evaluate(
        "[...document.querySelectorAll('article img')].filter(i => !i.alt.trim()).map(i => i.src.slice(0, 200))"
    )
    assert not silent, "pictures without alternative text"

    raw, math, rendered = page.evaluate(
        r"""() => {
          const article = document.querySelector('article');
          const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
          const raw = [];
          while (walker.nextNode()) {
            const node = walker.currentNode;
            const meant = node.parentElement.closest('pre, code, script, style, mjx-container');
            if (!meant && /\\\(|\\\[|\$\$/.test(node.data)) raw.push(node.data.trim());
          }
          return [raw, article.querySelectorAll('.math').length, article.querySelectorAll('mjx-container').length];
        }"""
    )
    assert not raw, "formulas left as source"
    assert rendered >= math
    assert page.locator("mjx-merror").count() == 0


@each_page
def test_page_does_not_scroll_sideways(visit, name):
    page, _ = visit(name)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    culprits = page.evaluate(
        """() => [...document.querySelectorAll('article *')]
          .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .slice(0, 8).map(e => e.tagName + '.' + e.className)"""
    )
    assert wide <= 0, f"{wide} px too wide, among: {culprits}"
    # The theme's content column can hide what it cuts off instead of scrolling.
    column = page.evaluate(
        "(() => { const a = document.querySelector('article'); return a.scrollWidth - a.clientWidth; })()"
    )
    assert column <= 1, f"the text column is {column} px too wide, among: {culprits}"


@each_page
def test_live_elements_are_drawn_once_and_move(visit, name):
    page, problems = visit(name)
    elements = page.locator(".rwkv-live")
    expected = page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()
    if not expected:
        assert elements.count() == 0
        return
    assert page.locator(".widget-subarea > .jupyter-widgets").count() == expected, "each widget is drawn exactly once"
    for number in range(elements.count()):
        element = elements.nth(number)
        picture = element.locator("img.rwkv-live-frame:visible")
        assert picture.count() == 1
        before, text = picture.get_attribute("src"), picture.get_attribute("alt")
        slider = element.get_by_role("slider")
        slider.focus()
        at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        page.wait_for_function(
            """([root, old]) => [...root.querySelectorAll('img.rwkv-live-frame')]
              .some(image => image.checkVisibility() && image.alt !== old)""",
            arg=[element.element_handle(), text],
        )
        assert picture.count() == 1
        assert picture.get_attribute("src") != before, "the next value shows another picture"
        box = picture.bounding_box()
        assert box["width"] > 200 and box["x"] + box["width"] <= page.viewport_size["width"] + 1
    assert not problems


@each_page
def test_outputs_are_legible_in_dark_mode(browser, name):
    context = browser.new_context(color_scheme="dark", offline=True)
    page = context.new_page()
    page.goto((HTML / name).as_uri(), wait_until="load")
    if page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count():
        page.locator(".rwkv-live .widget-readout").first.wait_for()
    faint = page.evaluate(
        """() => {
          const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
          const luminance = colour => {
            const [r, g, b] = numbers(colour).slice(0, 3)
              .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = element => {
            const colour = getComputedStyle(element).backgroundColor;
            const clear = numbers(colour).length === 4 && numbers(colour)[3] === 0;
            return clear && element.parentElement ? ground(element.parentElement) : colour;
          };
          const texts = document.querySelectorAll(
            '.rwkv-table :is(th, td, caption), .rwkv-live :is(.widget-label, .widget-readout)');
          return [...texts].filter(e => e.textContent.trim()).map(e => {
            const [low, high] = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((a, b) => a - b);
            return [e.textContent, (high + 0.05) / (low + 0.05)];
          }).filter(([, contrast]) => !(contrast >= 4.5));
        }"""
    )
    context.close()
    assert not faint, "text with a contrast below 4.5"


@each_page
def test_page_names_no_script_or_style_of_another_site(name):
    text = (HTML / name).read_text(encoding="utf8")
    tags = re.findall(
        r"<(?:script|img|iframe|source)\b[^>]*\ssrc=\"(?:https?:)?//[^\"]*|<link\b[^>]*stylesheet[^>]*//[^>]*", text
    )
    assert not tags


def test_first_page_leads_into_the_book(browser):
    page = browser.new_page()
    page.goto((HTML / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    assert page.locator("article h1").inner_text().startswith("RWKV-UNet")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@each_page
def test_page_keeps_to_wcag(browser, name, scheme):
    width = {"light": 1280, "dark": 390}[scheme]
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((HTML / name).as_uri(), wait_until="load")
    page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => 0) : 0")
    if page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count():
        page.locator(".rwkv-live .widget-readout").first.wait_for()
    found = quality.violations(page)
    context.close()
    assert not found


@pytest.fixture(scope="module")
def served(built_book):
    """The address of the book on this machine: a page opened as a file may not read the pages that a search shows."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    "query, page",
    [("Spatial Mix", "notebooks/07_q_shift_spatial_mix.html"), ("empty mask", "notebooks/01_scoring.html")],
)
def test_search_finds(browser, served, query, page):
    context = browser.new_context()
    context.route("**/*", lambda route: route.continue_() if served in route.request.url else route.abort())
    tab = context.new_page()
    tab.goto(f"{served}/search.html?q={query}")
    tab.locator("ul.search li a").first.wait_for()
    tab.wait_for_function("!document.querySelector('#search-progress')?.textContent.trim().endsWith('...')")
    links = tab.eval_on_selector_all("ul.search li a", "links => links.map(link => link.pathname)")
    context.close()
    assert any(link.endswith(page) for link in links[:10]), links[:10]


def test_a_quiz_answers_only_what_is_chosen(browser):
    quizzes = [name for name in PAGES if name.startswith("book/quiz_")]
    assert len(quizzes) >= 5, "one for each part"
    page = browser.new_page()
    for name in quizzes:
        page.goto((HTML / name).as_uri())
        questions = page.locator(".rwkv-quiz")
        assert questions.count() >= 5
        for number in range(questions.count()):
            question = questions.nth(number)
            assert question.locator(".rwkv-right").count() == 1
            assert question.locator(".rwkv-feedback:visible").count() == 0
            for option in question.locator(".rwkv-option").all():
                option.locator("label").click()
                assert question.locator(".rwkv-feedback:visible").count() == 1
                assert option.locator(".rwkv-feedback").is_visible()
    page.close()


@each_page
def test_page_is_small_and_can_be_found(name):
    text = (HTML / name).read_text(encoding="utf8")
    assert len(text.encode()) < 3_000_000
    assert re.search(r"<title>[^<]{15,}</title>", text)
    assert re.search(r'<meta [^>]*property="og:image"', text) and re.search(r"<meta [^>]*og:description", text)
    if name.startswith("notebooks/"):
        assert re.search(rf'href="[^"]*/edit/main/{name.removesuffix(".html")}.ipynb"', text), "edit this page"
        assert re.search(r'href="[^"]*_sources/[^"]*\.ipynb"[^>]*download', text.replace("\n", " ")), "download"
        plain = re.search(r'href="https://colab[^"]*/blob/([^/"]+)/(notebooks/plain/[^"]+)"', text)
        assert plain and (HTML.parent.parent / plain[2]).is_file(), "Colab opens the plain edition"


def test_sitemap_names_the_pages():
    listed = [element.text for element in ElementTree.parse(HTML / "sitemap.xml").iter() if element.tag.endswith("loc")]
    missing = [name for name in PAGES if not any(link.endswith("/" + name) for link in listed)]
    assert not missing


@each_page
def test_page_prints_without_what_is_to_click(browser, name):
    page = browser.new_page(viewport={"width": 800, "height": 1100})
    page.goto((HTML / name).as_uri())
    page.emulate_media(media="print")
    shown = page.evaluate(
        """() => ['.bd-sidebar-primary', '.bd-header-article', '.prev-next-footer', '.copybtn']
          .filter(s => [...document.querySelectorAll(s)].some(e => e.checkVisibility()))"""
    )
    column = page.evaluate(
        "document.querySelector('article').scrollWidth - document.querySelector('article').clientWidth"
    )
    page.close()
    assert not shown and column <= 1


def test_reduced_motion_is_respected(browser):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto((HTML / "book/index.html").as_uri())
    moving = page.evaluate(
        """() => [...document.querySelectorAll('*')].filter(e => {
          const s = getComputedStyle(e);
          return s.transitionDuration.split(',').some(d => parseFloat(d) > 0) && s.transitionProperty !== 'none'
            || s.animationName !== 'none';
        }).map(e => e.className).slice(0, 5)"""
    )
    context.close()
    assert not moving
