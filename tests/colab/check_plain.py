"""Run the plain edition of every chapter where nothing of this project is installed, as on Colab.

    python tests/colab/check_plain.py

A fresh environment holds torch and what Colab brings along, and no library of the book; an empty folder holds the
notebooks of the last commit. The setup cell installs the library from its address and tag. Git is told that the address
is a local clone with that tag on the last commit, so what is tested is what would be released. Exits 1 when a cell
fails, when torch was replaced, or when the library came from elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BROUGHT_ALONG = ("torch", "numpy", "pandas", "matplotlib", "ipykernel", "nbclient", "nbformat")

RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
path = sys.argv[1]
notebook = nbformat.read(path, as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell(
    "import importlib.metadata as m, rwkvlib, json; print(json.dumps([m.version('torch'), rwkvlib.__file__]))"))
try:
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
except CellExecutionError as error:
    sys.exit(f"{path}: {error}")
print(notebook.cells[-1].outputs[0].text)
"""


def git(*command: str) -> str:
    """Runs git and returns what it prints."""
    return subprocess.run(["git", *command], check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Makes clone, environment and folder, runs, reports."""
    address, tag = re.search(r"git\+(https://[^@\"]+)@([^\"]+)", (ROOT / "book/setup_cell.py").read_text()).groups()
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lock if line.split("==")[0] in BROUGHT_ALONG]
    with tempfile.TemporaryDirectory() as folder:
        clone, work, python = Path(folder, "clone"), Path(folder, "work"), Path(folder, "venv/bin/python")
        git("clone", "--quiet", str(ROOT), str(clone))
        git("-C", str(clone), "tag", "--force", tag)
        shutil.copytree(clone / "notebooks/plain", work)
        start = time.perf_counter()
        venv.create(python.parent.parent, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--quiet", *pins], check=True)
        print(f"environment: {time.perf_counter() - start:.0f} s", flush=True)

        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        # MKL's too: where both are set torch takes MKL's, and two kernels would have four threads on two cores.
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        env |= dict.fromkeys(threads, "1") | {"JUPYTER_PREFER_ENV_PATH": "1"}
        env |= {"PATH": f"{python.parent}{os.pathsep}{env.get('PATH', '')}"}
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf"}
        env |= {"GIT_CONFIG_VALUE_0": address}
        torch = next(pin for pin in pins if pin.startswith("torch==")).split("==")[1]

        def run(path: Path) -> bool:
            start = time.perf_counter()
            done = subprocess.run([python, "-c", RUN, path.name], cwd=work, env=env, capture_output=True, text=True)
            took = f"{path.name}: {time.perf_counter() - start:.0f} s"
            if done.returncode:
                print(f"{took}, FAILED\n{done.stderr[-4000:]}", flush=True)
                return False
            version, library = json.loads(done.stdout)
            good = version.split("+")[0] == torch and Path(library).is_relative_to(Path(folder, "venv"))
            print(took if good else f"{took}, FAILED: torch {version}, rwkvlib in {library}", flush=True)
            return good

        first, *others = sorted(work.glob("*.ipynb"))
        passed = [run(first)]  # installs, which two at once should not
        if passed[0]:
            with ThreadPoolExecutor(2) as pool:
                passed += pool.map(run, others)
    print(f"{sum(passed)} of {1 + len(others)} notebooks ran as on Colab")
    return int(sum(passed) < 1 + len(others))


if __name__ == "__main__":
    sys.exit(main())
