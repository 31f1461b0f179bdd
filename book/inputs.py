"""What notebooks and pages depend on, as hashes: nothing stale is passed off as built, and nothing is built twice."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a notebook's outputs depend on, apart from the notebook itself.
EXECUTION_INPUTS = ("rwkvlib", "data_scripts", "configs", "results", "tests/reference", "requirements.lock")
# What the pages depend on besides.
PAGE_INPUTS = (
    *("_config.yml", "_toc.yml", "references.bib", "genindex.md", "README.md", "CHANGELOG.md", "book", "notebooks"),
)
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
