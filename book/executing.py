"""Execution of notebooks: into the cache that Sphinx and the tests read, or in place, to be committed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .inputs import ROOT, execution_key

SETUP = ROOT / "book/setup_cell.py"  # the one place that names the repository and the version to install
TIMEOUT = 1800  # seconds of a cell


def environment() -> dict[str, str]:
    """Returns the environment of Sphinx and of the kernels: this Python, and output that repeats."""
    env = dict(os.environ)
    env["PATH"] = str(Path(sys.executable).parent) + os.pathsep + env.get("PATH", "")
    env["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel named python3 in the user's home must not win over ours
    env["PYTHONHASHSEED"] = "0"
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a debugger's remark on stderr, not the notebook's
    return env


def cache_folder(root: Path = ROOT) -> Path:
    """Returns the folder of executed notebooks of today's library; see `inputs.execution_key`."""
    return root / "_build/executed" / execution_key(root)


def missing(cache, paths: list[Path]) -> list[Path]:
    """Returns the notebooks that the cache has no outputs of."""
    import nbformat

    found = []
    for path in paths:
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            found.append(path)
    return found


def execute(cache, paths: list[Path], jobs: int) -> None:
    """Executes notebooks, the largest first, and puts those that succeed into the cache."""
    import nbformat
    from jupyter_cache.base import CacheBundleIn
    from jupyter_cache.executors.utils import single_nb_execution

    lock = threading.Lock()  # the cache is one database

    def run(path: Path) -> None:
        done = single_nb_execution(nbformat.read(path, as_version=4), str(path.parent), TIMEOUT, False)
        print(f"{path.stem}: {done.time:.0f} s{' FAILED' if done.err else ''}", flush=True)
        if not done.err:
            bundle = CacheBundleIn(done.nb, str(path), data={"execution_seconds": done.time})
            with lock:
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, sorted(paths, key=lambda path: -path.stat().st_size)))


def execute_ahead(root: Path = ROOT) -> Path:
    """Executes the notebooks that the cache lacks, several at a time; returns the cache's folder.

    Sphinx would execute one after the other. A notebook that fails is left out: Sphinx, or the test of it, executes it
    again and reports it. Outputs of another library are removed.
    """
    from jupyter_cache import get_cache

    folder = cache_folder(root)
    if folder.parent.is_dir():
        for old in folder.parent.iterdir():
            if old.name != folder.name:
                shutil.rmtree(old)
    cache, jobs = get_cache(folder), min(os.cpu_count() or 1, 8)
    paths = missing(cache, sorted((root / "notebooks").glob("*.ipynb")))
    os.environ.update(environment())
    if len(paths) > 1 and jobs > 1:  # one thread in each of several kernels is faster than several threads in one
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))
    execute(cache, paths, jobs)
    return folder


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


def sources_hash(notebook) -> str:
    """Returns what an executed notebook holds as ``executed``: the hash of its code, but for the setup cell."""
    code = [c.source for c in notebook.cells if c.cell_type == "code" and "setup" not in c.metadata.get("tags", [])]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def normalise(notebook):
    """Returns `notebook` (nbformat 4) as it is committed: no timestamps, editor settings, or random widget names."""
    import nbformat

    kept = ("kernelspec", "language_info", "widgets", "mystnb", "title", "authors", "executed")
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


def execute_notebook(path: Path, timeout: int = TIMEOUT) -> float:
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
    notebook.metadata["executed"] = sources_hash(notebook)
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
