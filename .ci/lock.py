"""Rewrite requirements.lock: resolve pyproject.toml's extras in a clean environment and write down what was chosen.

torch keeps a fixed version, without the tag of a CPU or CUDA build: which build it is, is the reader's machine's
choice, and so are the CUDA libraries that a build brings along.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
EXTRAS = ("cpu", "train", "data", "teacher", "weights", "export", "book-plots", "book", "dev", "cuda")
HEADER = f"""\
# Exact versions for `make install` (Python 3.11 or later), written by `make lock` from the extras
# {", ".join(EXTRAS)}.
# No build tag on torch: pip takes the build that fits the machine's package index. Ranges, not versions, for what a
# CUDA build of torch brings along in versions of its own.
"""
# A CUDA build of torch brings these along, in versions of its own: pinning them would break such a build. Those that
# pyproject.toml names keep its ranges.
OF_CUDA_TORCH = re.compile(r"(nvidia-|cuda-|triton\b|pytorch-triton)", re.IGNORECASE)


def requirements() -> list[str]:
    """Returns what pyproject.toml asks for, in its base and in EXTRAS, without the project itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    return [line for group in groups for line in group if not line.startswith(project["name"] + "[")]


def lock_lines(freeze: str) -> list[str]:
    """Turns the output of `pip freeze` into the lock's lines."""
    lines = []
    for line in freeze.splitlines():
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s+]+)(\+\S+)?", line.strip())
        if not pin:
            raise SystemExit(f"a line of pip freeze is not name==version: {line!r}")
        if not OF_CUDA_TORCH.match(pin[1]):
            lines.append(f"{pin[1]}=={pin[2]}")
    lines += filter(OF_CUDA_TORCH.match, requirements())
    return sorted(lines, key=str.lower)


def main() -> None:
    """Resolves, freezes, writes."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        install = [python, "-m", "pip", "install", "--quiet", f"torch=={TORCH}", *requirements()]
        subprocess.run(install, check=True)
        freeze = [python, "-m", "pip", "freeze"]
        lines = lock_lines(subprocess.run(freeze, check=True, capture_output=True, text=True).stdout)
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(lines) + "\n")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    sys.exit(main())
