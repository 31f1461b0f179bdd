"""Helpers that all tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import pytest

STRICT = os.environ.get("RWKVLIB_STRICT", "0") not in ("", "0")

# The names under which a tool may be installed.
TOOLS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "g++": ("g++",),
    "nvcc": ("nvcc",),
}


def find_tool(name: str) -> str:
    """Return the path of a tool; without it skip the test, or fail it where RWKVLIB_STRICT is set."""
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
    """A function from a module's name, or None and what is missing: skips or fails without it, as `require_tool`."""

    def require(name: str | None, missing: str = "") -> None:
        if name and importlib.util.find_spec(name.split(".")[0]) and importlib.util.find_spec(name):
            return
        message = missing or f"needs the module {name}, which is not installed"
        if STRICT and sys.platform == "linux":
            pytest.fail(f"{message} (RWKVLIB_STRICT is set)")
        pytest.skip(message)

    return require


@pytest.fixture(scope="session")
def require_tool():
    """A function from a tool's name, such as "g++", "nvcc" or "chromium", to its path; skips or fails without it."""
    return find_tool
