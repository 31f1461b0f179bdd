"""The built pages in a browser without a network: what a reader sees is all there, on a wide screen and on a phone."""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from book import network, quality
from rwkvlib import load_pretrained

HTML = quality.HTML
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
READY = """() => Promise.all([
  window.MathJax && MathJax.startup ? MathJax.startup.promise : 0, document.fonts.ready]).then(() => true)"""

each_page = pytest.mark.parametrize("name", PAGES or ["book/index.html"])
# A page is opened once for each width, and all tests of it run one after the other in one process; see conftest.py.
VISITS = [
    pytest.param((name, width), id=f"{name}-{width}") for name in PAGES or ["book/index.html"] for width in WIDTHS
]


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


@dataclass
class Visit:
    """A page that is open in the browser, and what went wrong on the way."""

    page: object
    width: str
    problems: list[str]

    @property
    def live(self) -> int:
        """How many live elements the page has."""
        return self.page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()

    @contextmanager
    def seen(self, **media):
        """The page in another medium or colour scheme; as it was at the end."""
        self.page.emulate_media(**media)
        if scheme := media.get("color_scheme"):
            self.page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        yield self.page
        self.page.emulate_media(media="screen", color_scheme="light")
        self.page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")


@pytest.fixture(scope="module", params=VISITS)
def visit(browser, request):
    """Each page at each width, drawn to its end, formulas, fonts and live elements included."""
    name, kind = request.param
    width, height = WIDTHS[kind]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=kind == "phone")
    context.route("**/*", lambda route: route.continue_() if LOCAL.match(route.request.url) else route.abort())
    page, problems = context.new_page(), []
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:200]}"))
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    page.on("console", lambda said: problems.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("request", lambda r: None if LOCAL.match(r.url) else problems.append(f"external: {r.url[:200]}"))
    page.goto((HTML / name).as_uri(), wait_until="load")
    visit = Visit(page, kind, problems)
    if visit.live:
        page.wait_for_function(
            "n => document.querySelectorAll('.widget-subarea .jupyter-widgets').length >= n", arg=visit.live
        )
    page.evaluate(READY)
    yield visit
    context.close()


def test_page_is_complete(visit):
    page, problems = visit.page, visit.problems
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


def test_page_does_not_scroll_sideways(visit):
    page = visit.page
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


def test_live_elements_are_drawn_once_and_move(visit):
    page = visit.page
    elements = page.locator(".rwkv-live")
    assert page.locator(".widget-subarea > .jupyter-widgets").count() == visit.live, "each is drawn exactly once"
    assert bool(elements.count()) == bool(visit.live)
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
    assert not visit.problems


def test_outputs_are_legible_in_dark_mode(visit):
    with visit.seen(color_scheme="dark") as page:
        texts, faint = page.evaluate(
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
          const filled = [...texts].filter(e => e.textContent.trim());
          return [filled.length, filled.map(e => {
            const [low, high] = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((a, b) => a - b);
            return [e.textContent, (high + 0.05) / (low + 0.05)];
          }).filter(([, contrast]) => !(contrast >= 4.5))];
        }"""
        )
    assert not faint, "text with a contrast below 4.5"
    assert texts or not visit.live, "a live element has labels"


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


def test_page_keeps_to_wcag(visit):
    with visit.seen(color_scheme={"desktop": "light", "phone": "dark"}[visit.width]) as page:
        assert not quality.violations(page)


@pytest.mark.parametrize("where", ["in the light", "under a dark box", "in an open list"])
def test_one_faint_word_of_code_is_found(where, browser):
    """Of equal words only the first is looked at: not one that is hidden, nor one on another ground."""
    word = "<span class=k>def</span>"
    faint = {
        "in the light": "<span class=c>def</span>",
        "under a dark box": f"<div style='background: #333'>{word}</div>",
        "in an open list": "<details><span class=c>hidden</span></details><span class=c>shown</span>",
    }[where]
    page = browser.new_page()
    style = "<style>pre {background: #fff} .k {color: #222} .c {color: #eee}</style>"
    head = f"<html lang=en><head><title>Words</title>{style}</head><body><main><h1>Words</h1><pre>"
    page.set_content(head + 3 * word)
    assert not quality.violations(page)
    page.set_content(head + 3 * word + faint + word)
    assert [found.split()[0] for found in quality.violations(page)] == ["color-contrast"]
    page.close()


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


@pytest.mark.parametrize("way", ["served", "as a file"])
def test_the_network_in_the_page_answers_as_pytorch_does(browser, served, way):
    """The same logits to 1e-3 at two settings of the controls, a picture in under a second, nothing from elsewhere."""
    home = served if way == "served" else HTML.as_uri()
    context = browser.new_context()
    page, elsewhere = context.new_page(), []
    local = (home, "blob:", "data:")
    page.on("request", lambda request: None if request.url.startswith(local) else elsewhere.append(request.url))
    page.goto(f"{home}/book/index.html")
    start = page.get_by_role("button", name=re.compile(r"Run the network in this page \(\d\.\d MB\)"))
    start.wait_for()

    def next_answer(action) -> tuple[float, np.ndarray]:
        page.evaluate(
            """() => void (window.answer = new Promise(done => document.querySelector('.rwkv-network').addEventListener(
              'rwkv-logits', ({detail}) => done([detail.milliseconds, [...detail.logits]]), {once: true})))"""
        )
        action()
        milliseconds, logits = page.evaluate("() => window.answer")
        return milliseconds, np.array(logits)

    picture = torch.from_numpy(network.pictures()[0]["image"]).permute(2, 0, 1)[None] / 255
    model = network.Controlled(load_pretrained("rwkv_unet_p_synthetic")[0].eval())

    def expected(*controls: float) -> np.ndarray:
        with torch.inference_mode():
            return model(picture, *map(torch.tensor, controls)).numpy().ravel()

    _, logits = next_answer(start.click)
    np.testing.assert_allclose(logits, expected(1.0, 1.0, 1.0), atol=1e-3)
    slider = page.get_by_role("slider", name="Decay")
    for _ in range(2):
        milliseconds, logits = next_answer(lambda: slider.press("ArrowRight"))
    assert slider.get_attribute("aria-valuetext") == "times 100"
    np.testing.assert_allclose(logits, expected(100.0, 1.0, 1.0), atol=1e-3)
    assert milliseconds < 1000
    _, logits = next_answer(lambda: page.get_by_role("checkbox", name="Spatial Mix").uncheck())
    np.testing.assert_allclose(logits, expected(100.0, 1.0, 0.0), atol=1e-3)

    status = page.locator(".rwkv-network [role=status]")
    view = page.locator(".rwkv-network canvas")
    view.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    status.get_by_text("of all change comes from").wait_for(timeout=60_000)
    page.get_by_role("radio", name="draws a lump").check()
    _, drawn = next_answer(lambda: view.click(position={"x": 30, "y": 30}))
    assert np.abs(drawn - logits).max() > 0.1
    assert not quality.violations(page)
    assert not elsewhere
    context.close()


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


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("notebooks/")])
def test_numbers_are_the_chapters(name):
    """Figures, equations and exercises of chapter 4 are 4.1, 4.2 and so on."""
    text = (HTML / name).read_text(encoding="utf8")
    chapter = int(re.match(r"notebooks/(\d+)", name)[1])
    figures = re.findall(r'<span class="caption-number">Fig\. (\d+)\.\d+', text)
    exercises = re.findall(r'<span class="caption-number">Exercise (\d+)\.\d+', text)
    equations = re.findall(r'<span class="eqno">\((\d+)\.\d+\)', text)
    assert figures and exercises and {*figures, *exercises, *equations} == {str(chapter)}


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


def test_page_prints_without_what_is_to_click(visit):
    with visit.seen(media="print") as page:
        shown = page.evaluate(
            """() => ['.bd-sidebar-primary', '.bd-header-article', '.prev-next-footer', '.copybtn']
              .filter(s => [...document.querySelectorAll(s)].some(e => e.checkVisibility()))"""
        )
        column = page.evaluate(
            "document.querySelector('article').scrollWidth - document.querySelector('article').clientWidth"
        )
    assert not shown and column <= 1
    present = page.locator(".bd-header-article").count() + page.locator(".prev-next-footer").count()
    assert present, "the page has what is not to be printed"


def test_some_pages_are_live(built_book):
    live = [name for name in PAGES if "application/vnd.jupyter.widget-view+json" in (HTML / name).read_text("utf8")]
    assert len(live) >= 10


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
