"""Helpers that all tests share."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from types import ModuleType

import pytest

STRICT = os.environ.get("RWKVLIB_STRICT", "0") not in ("", "0")

# The names under which a tool may be installed.
TOOLS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "g++": ("g++",),
    "nvcc": ("nvcc",),
}

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])  # sizes of an RWKV-UNet that takes milliseconds


# Files that take longest, the longest first. A file stays in one process, and one that begins last leaves the other
# processes idle. (Seconds change with the machine; the order hardly does.)
LONGEST = (
    "test_export.py",
    "test_gpu_run_all.py",
    "test_build.py",
    "test_cuda.py",
    "test_tables.py",
    "test_compile.py",
    "test_plain.py",
    "test_bench_efficiency.py",
    "test_train.py",
    "test_own_data.py",
    "test_sweep.py",
    "test_resume.py",
    "test_gradients.py",
    "test_evaluate.py",
    "test_integration.py",
    "test_values.py",
    "test_teacher.py",
    "test_multiprocess.py",
    "test_report.py",
    "test_pretrain.py",
    "test_seeing.py",
    "test_long_range.py",
    "test_predict.py",
    "test_reproduction.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first, then the longest files, then the others as they are; the order within a file stays."""

    def rank(item: pytest.Item) -> int:
        if item.path.suffix == ".ipynb":
            return -1
        return LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)

    items.sort(key=rank)


def find_tool(name: str) -> str:
    """Returns the path of a tool; without it skips the test, or fails it where RWKVLIB_STRICT is set."""
    for candidate in TOOLS.get(name, (name,)):
        path = shutil.which(candidate)
        if path:
            return path
    message = f"needs {name}, which is not installed"
    if STRICT:
        pytest.fail(f"{message} (RWKVLIB_STRICT is set)")
    pytest.skip(message)


@pytest.fixture(scope="session")
def require_package():
    """A function from a module's name to the module, or from None and what is missing: skips or fails without it, as
    `require_tool`."""

    def require(name: str | None, missing: str = "") -> ModuleType | None:
        if name and importlib.util.find_spec(name.split(".")[0]) and importlib.util.find_spec(name):
            return importlib.import_module(name)
        message = missing or f"needs the module {name}, which is not installed"
        if STRICT and sys.platform == "linux":
            pytest.fail(f"{message} (RWKVLIB_STRICT is set)")
        pytest.skip(message)

    return require


@pytest.fixture(scope="session")
def require_tool():
    """A function from a tool's name, such as "g++", "nvcc" or "chromium", to its path; skips or fails without it."""
    return find_tool


@pytest.fixture
def write_recipe(tmp_path):
    """A function that writes fields as a YAML recipe and returns its path."""

    def write(name="recipe.yaml", **fields):
        import yaml

        given = dict(data="synthetic:8", size=32, epochs=3, batch_size=4, overrides=TINY) | fields
        (tmp_path / name).write_text(yaml.safe_dump(given))
        return tmp_path / name

    return write
