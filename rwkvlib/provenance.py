"""Where a number came from: the record that every file in results/ carries."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .files import write_file

LIBRARIES = ("torch", "numpy", "numba", "monai", "kornia", "accelerate", "scipy", "pandas", "cuda-core")


def cpu_model() -> str:
    """Returns the processor's name as the system gives it, or the machine's architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """Returns the CPU's name, the cores this process may use, and the GPU's name and memory, or None for no GPU."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    return {"cpu": cpu_model(), "cores": cores, "threads": torch.get_num_threads(), "gpu": gpu}


def library_versions() -> dict[str, str]:
    """Returns the versions of Python, rwkvlib and the installed libraries that can change a number."""
    versions = {"python": platform.python_version()}
    for name in ("rwkvlib", *LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "torch" in versions:
        import torch

        versions["torch"] = str(torch.__version__)  # with the tag of the build, which the metadata may lack
        if torch.version.cuda:
            versions["cuda"] = torch.version.cuda
    return versions


def git_commit(folder: Path | str | None = None) -> str | None:
    """Returns the commit of the checkout around `folder`, with `-dirty` after uncommitted changes, or None outside one.

    The variable RWKVLIB_COMMIT, where it is set, names the commit instead: of a tree that was copied elsewhere without
    its history, or with that of another commit.

    Args:
        folder: where to look; default: the folder of this library, not the one the process happens to run in.
    """
    command = ["git", "-C", str(folder or Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    if os.environ.get("RWKVLIB_COMMIT"):
        return os.environ["RWKVLIB_COMMIT"]
    try:
        result = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def repeatable(arguments: list[str]) -> str:
    """Returns arguments of a command as they are typed in a shell, to be run again from the same folder. Of an absolute
    path only the base name stays, also in key=value: a result must not say where somebody keeps their files.
    """
    shown = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or "/" in key:
            key, equals, value = "", "", argument
        if os.path.isabs(os.path.expanduser(value)):
            value = os.path.basename(value.rstrip("/\\"))
        shown.append(shlex.quote(key + equals + value))
    return " ".join(shown)


def provenance(seed: int | None, command: str | None = None) -> dict[str, Any]:
    """Describes the present run, for storing beside the numbers it gives.

    Args:
        seed: the seed of the run's random numbers, or None for a run that draws none.
        command: the line that repeats the run; default: this process's own command line.

    Returns:
        A dict with seed, command, time (UTC, ISO 8601), commit, hardware and versions; JSON can hold all of it.
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed must be an int or None, got {seed!r}")
    return {
        "seed": seed,
        "command": command if command is not None else " ".join(["python", *sys.argv]),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "hardware": hardware(),
        "versions": library_versions(),
    }


def _plain(value: Any) -> Any:
    """Turns NumPy and torch numbers and arrays into Python's, and non-finite floats into None: JSON has neither."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any) -> str:
    """Returns `value` as JSON: numbers of NumPy and torch become plain ones, NaN and infinity null.

    Raises: TypeError: `value` holds something that JSON cannot.
    """
    return json.dumps(_plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_result(path: Path | str, result: dict[str, Any]) -> Path:
    """Writes `result` as JSON to `path`, under a temporary name first, so that no reader meets half a file.

    Numbers of NumPy and torch become plain ones; NaN and infinity become null.

    Raises:
        ValueError: `result` has no "provenance" entry.
        TypeError: `result` holds something that JSON cannot.
    """
    path = Path(path)
    if "provenance" not in result:
        raise ValueError(f"{path}: a result needs a 'provenance' entry; see rwkvlib.provenance.provenance")
    text = to_json(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)
    return path
