"""Measure the built book: pages, figures, exercises, accessibility, size, times; write results/book/quality.json.

    python -m book quality

Needs a book built by `make book`, and Chromium. `violations` is what the tests of the pages call, too.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from rwkvlib.files import write_file
from rwkvlib.provenance import provenance

from .inputs import ROOT

HTML = ROOT / "_build/html"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# Code and formulas are thousands of elements in a dozen looks, and axe-core takes milliseconds for each: while it looks
# the page holds the first of each look alone, on the same ground, seen or unseen.
AXE = """async rules => {
  const looks = new Set(), alike = [], grounds = new Map();
  const ground = e => {
    if (!e) return '';
    if (!grounds.has(e)) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(e);
      const own = `${backgroundColor} ${backgroundImage} ${opacity}`, below = ground(e.parentElement);
      grounds.set(e, below.endsWith(own) ? below : `${below}; ${own}`);
    }
    return grounds.get(e);
  };
  for (const span of document.querySelectorAll(':is(pre, code, dt.sig) span:not(:has(*)), mjx-c')) {
    if (span.getAttributeNames().some(name => name !== 'class')) continue;
    const {color, fontSize, fontWeight, textShadow} = getComputedStyle(span);
    const seen = span.checkVisibility({visibilityProperty: true});
    const look = [color, fontSize, fontWeight, textShadow, seen, ground(span)].join();
    if (looks.has(look)) alike.push(span);
    looks.add(look);
  }
  const places = alike.map(() => document.createComment(''));
  alike.forEach((span, i) => span.replaceWith(places[i]));
  const found = await axe.run(document, {runOnly: rules});
  places.forEach((place, i) => place.replaceWith(alike[i]));
  return found.violations;
}"""


def pages() -> list[str]:
    """Returns the names of the built pages, relative to the book's folder."""
    folders = (HTML / "book", HTML / "book/api", HTML / "notebooks")
    return sorted(path.relative_to(HTML).as_posix() for folder in folders for path in folder.glob("*.html"))


def violations(page) -> list[str]:
    """Runs axe-core on an open page and returns what breaks WCAG 2.1 A or AA: rule, number of places, first ones."""
    page.add_script_tag(path=str(ROOT / "_build/axe.min.js"))
    found = page.evaluate(AXE, RULES)
    return [f"{v['id']} ({len(v['nodes'])}): {[str(n['target']) for n in v['nodes'][:3]]}" for v in found]


def count_violations() -> dict[str, int]:
    """Returns the number of broken rules of every page, in light and in dark mode, at 1280 and at 390 pixels."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("quality: expected Chromium on the PATH, found none")
    counts = dict.fromkeys(pages(), 0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme, width in (("light", 1280), ("dark", 390)):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
            for name in counts:
                page = context.new_page()
                page.goto((HTML / name).as_uri(), wait_until="load")
                page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => 0) : 0")
                counts[name] += len(violations(page))
                page.close()
            context.close()
        browser.close()
    return counts


def notebook_counts() -> dict[str, int]:
    """Counts the figures and exercises of the chapters, and those with alternative text or a solution in code."""
    names = ("figures", "figures_with_alt", "live", "exercises", "solutions", "solutions_with_code")
    counts = dict.fromkeys(names, 0)
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        solution, code = None, set()
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                counts["exercises"] += len(re.findall(r"^`{3,}\{exercise\}", source, re.MULTILINE))
                for found in re.finditer(r"\{solution(-start|-end)?\}(?: (\S+))?", source):
                    counts["solutions"] += found[1] != "-end"
                    solution = found[2] if found[1] == "-start" else None
                continue
            kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
            if kinds & {"image/png", "image/svg+xml", "image/jpeg"}:
                counts["figures"] += 1
                counts["figures_with_alt"] += bool(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"))
            counts["live"] += "application/vnd.jupyter.widget-view+json" in kinds
            if solution:
                code.add(solution)
        counts["solutions_with_code"] += len(code)
    return counts


def seconds_per_chapter() -> dict[str, float]:
    """Returns how long each chapter took when the book was built, from the cache of executed notebooks."""
    from jupyter_cache import get_cache

    times = {}
    for folder in (ROOT / "_build/executed").iterdir():
        for record in get_cache(folder).list_cache_records():
            times[Path(record.uri).stem] = round(record.data["execution_seconds"], 1)
    return dict(sorted(times.items()))


def main() -> int:
    """Measures and writes the file under a temporary name first."""
    if not (HTML / "index.html").is_file():
        print("There is no book yet: run `make book` first.", file=sys.stderr)
        return 1
    axe = count_violations()
    files = [path for path in HTML.rglob("*") if path.is_file()]
    report = {
        "pages": len(axe),
        **notebook_counts(),
        "axe_rules": RULES,
        "axe_violations": sum(axe.values()),
        "axe_violations_per_page": {name: count for name, count in axe.items() if count},
        "bytes": sum(path.stat().st_size for path in files),
        "largest_page_bytes": max(path.stat().st_size for path in files if path.suffix == ".html"),
        "build_seconds": json.loads((ROOT / "_build/seconds.json").read_text())["html"],
        "seconds_per_chapter": seconds_per_chapter(),
        "provenance": provenance(seed=None, command="python -m book quality"),
    }
    target = ROOT / "results/book/quality.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "provenance"}, indent=1))
    return 0
