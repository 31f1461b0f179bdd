"""Execute the notebooks that a cache of jupyter-cache lacks, several at a time, so that Sphinx finds all of them there.

    python book/execute.py CACHE TIMEOUT NOTEBOOK ...

Sphinx would execute one after the other. A notebook that fails is left out: Sphinx executes it again and reports it.
One thread in each of several kernels is faster than several threads in one.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution


def missing(cache, paths: list[Path]) -> list[Path]:
    """Returns the notebooks that the cache has no outputs of."""
    found = []
    for path in paths:
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            found.append(path)
    return found


def execute(cache, paths: list[Path], timeout: int, jobs: int) -> None:
    """Executes notebooks, the largest first, and puts those that succeed into the cache."""
    lock = threading.Lock()  # the cache is one database

    def run(path: Path) -> None:
        done = single_nb_execution(nbformat.read(path, as_version=4), str(path.parent), timeout, False)
        print(f"{path.stem}: {done.time:.0f} s{' FAILED' if done.err else ''}", flush=True)
        if not done.err:
            bundle = CacheBundleIn(done.nb, str(path), data={"execution_seconds": done.time})
            with lock:
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, sorted(paths, key=lambda path: -path.stat().st_size)))


def main(argv: list[str]) -> None:
    """Reads the arguments, executes what is missing."""
    folder, timeout, *names = argv
    cache, jobs = get_cache(folder), min(os.cpu_count() or 1, 8)
    paths = missing(cache, [Path(name) for name in names])
    if len(paths) > 1 and jobs > 1:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    execute(cache, paths, timeout=int(timeout), jobs=jobs)


if __name__ == "__main__":
    main(sys.argv[1:])
