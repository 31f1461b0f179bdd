"""The pages: Sphinx on executed notebooks, and never a stale or a failed build that is called a success.

Three rules hold the build together.

- Executed notebooks are kept in a folder whose name is a hash of everything a notebook runs against (library,
  results, lock, profile). jupyter-cache compares only the notebook's own cells, so it would otherwise keep the outputs
  of an older library.
- A stamp with the hash of every input is written after a build without warnings. No matching stamp: the pages are
  built from nothing. Sphinx reports a page's warnings only when it reads that page, so a second, unchanged build after
  a failed one would pass if the pages of the first were kept.
- Scripts that the pages load come from npm into _build/assets and are served with the book, which so reads offline.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .assets import fetch_assets
from .executing import environment, execute_ahead
from .inputs import EXECUTION_INPUTS, PAGE_INPUTS, ROOT, digest, execution_key
from .measured import numbers
from .network import make_network

# Its own process, in the book's folder, so that it can import book/extension.py, the book's Sphinx extension.
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def with_solutions() -> bool:
    """Tells whether the pages show solutions: yes, unless the environment says RWKVLIB_SOLUTIONS=0."""
    switch = os.environ.get("RWKVLIB_SOLUTIONS", "1")
    if switch not in ("0", "1"):
        raise SystemExit(f"RWKVLIB_SOLUTIONS: expected 0 or 1, got {switch!r}")
    return switch == "1"


def write_config(root: Path, cache: Path) -> Path:
    """Writes _build/config.yml: _config.yml with the folder of executed notebooks and the measured numbers in it."""
    import yaml

    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    config.setdefault("execute", {})["cache"] = str(cache)
    sphinx = config.setdefault("sphinx", {}).setdefault("config", {})
    if (root / "results").is_dir():
        sphinx["myst_substitutions"] = numbers(root)
    if not with_solutions():
        sphinx["rwkv_solutions"] = False
        # The notebooks behind these buttons hold the solutions.
        config.pop("launch_buttons", None)
        sphinx.setdefault("html_theme_options", {})["use_download_button"] = False
        sphinx["html_copy_source"] = False
    path = root / "_build/config.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf8")
    return path


def build_html(root: Path = ROOT, assets: bool = True) -> int:
    """Builds `root`'s book into _build/html; returns the exit code, 0 only for a build without warnings."""
    start = time.perf_counter()
    build = root / "_build"
    page = build / "html/index.html"
    stamp = build / "book.stamp"
    key = execution_key(root)
    inputs = digest(root, (*EXECUTION_INPUTS, *PAGE_INPUTS), key, f"solutions {with_solutions()}")
    if page.is_file() and stamp.is_file() and stamp.read_text() == inputs:
        print(f"The book is up to date ({time.perf_counter() - start:.1f} s).\nOpen {page.as_uri()}")
        return 0

    build.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)
    if assets:
        fetch_assets(root)
        make_network(root)
    for stale in (build / "html", build / ".doctrees"):
        if stale.exists():
            shutil.rmtree(stale)
    config = write_config(root, execute_ahead(root))
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root)]
    command += ["--config", str(config), "-W", "-n", "--keep-going"]
    code = subprocess.run(command, cwd=root, env=environment()).returncode
    if code == 0 and not page.is_file():
        print(f"jupyter-book reported success, but {page} does not exist", file=sys.stderr)
        code = 1
    if code:
        print("The book was NOT built: see the warnings and errors above.", file=sys.stderr)
        print(f"Reports of notebooks that failed: {build / 'html/reports'}", file=sys.stderr)
        return code
    stamp.write_text(inputs)
    (build / "seconds.json").write_text(json.dumps({"html": round(time.perf_counter() - start, 1)}))
    print(f"The book is built ({time.perf_counter() - start:.0f} s).\nOpen {page.as_uri()}")
    return 0


def check_links(root: Path = ROOT) -> int:
    """Follows the links to other sites; returns 1 when one is dead. Needs a built book and the internet."""
    config = root / "_build/config.yml"
    if not config.is_file():
        print("There is no book yet: run `make book` first.", file=sys.stderr)
        return 1
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root)]
    command += ["--config", str(config), "--builder", "linkcheck"]
    return subprocess.run(command, cwd=root, env=environment()).returncode


def serve(root: Path = ROOT, port: int = 8000) -> int:
    """Serves _build/html on 127.0.0.1 until interrupted."""
    html = root / "_build/html"
    if not (html / "index.html").is_file():
        print("There is no book yet: run `make book` first.", file=sys.stderr)
        return 1
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"Open http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C stops)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
