"""The numbers that the prose takes from results/: a page writes {{ name }}, and nobody types a measured number.

`book/build.py` hands the dictionary of `numbers` to Sphinx as MyST substitutions, `book/plain.py` puts it into the
plain edition.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS_A_MINUTE = 180
LINES_A_MINUTE = 12  # of code, which is read slowly


def result(root: Path, name: str) -> dict:
    """Return results/<name>.json, or an empty dictionary before it is measured."""
    path = root / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}


def minutes_to_read(path: Path) -> int:
    """Estimate the minutes that a chapter takes to read, to five, from its words and lines of code."""
    words = lines = 0
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        source = "".join(cell["source"])
        if "setup" in cell["metadata"].get("tags", []):
            continue
        if cell["cell_type"] == "code":
            lines += len([line for line in source.splitlines() if line.strip()])
        else:
            words += len(re.findall(r"\w+", source))
    return max(5, 5 * round((words / WORDS_A_MINUTE + lines / LINES_A_MINUTE) / 5))


def chapters(root: Path) -> dict[str, dict]:
    """Return for each chapter, by its number: file, title, minutes to read, seconds to run on a CPU and on a GPU."""
    measured = result(root, "book/quality").get("seconds_per_chapter", {})
    on_gpu = result(root, "book/quality_gpu").get("seconds_per_chapter", {})
    found = {}
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf8"))["cells"][0]["source"])
        found[path.stem[:2]] = {
            "file": path.stem,
            "title": first.splitlines()[0].removeprefix("# "),
            "minutes": minutes_to_read(path),
            "cpu": measured.get(path.stem),
            "gpu": on_gpu.get(path.stem),
        }
    return found


def seconds(value: float | None) -> str:
    """Write a measured time, or that there is none."""
    return "not measured" if value is None else f"{value:.0f} s"


def times(root: Path) -> dict[str, str]:
    """Return `time_NN` for each chapter, and `chapter_times`, a table of all."""
    found = chapters(root)
    texts = {}
    for number, chapter in found.items():
        run = "run time on a CPU not measured" if chapter["cpu"] is None else f"{chapter['cpu']:.0f} seconds to run"
        gpu = "not timed on a GPU" if chapter["gpu"] is None else f"{chapter['gpu']:.0f} seconds with a GPU"
        texts[f"time_{number}"] = (
            f"About {chapter['minutes']} minutes to read; {run} on two CPU cores, {gpu}. Nothing is downloaded."
        )
    rows = [
        f"| {{doc}}`../notebooks/{c['file']}` | {c['minutes']} min | {seconds(c['cpu'])} | {seconds(c['gpu'])} |"
        for c in found.values()
    ]
    head = ["| Chapter | to read | to run, two CPU cores | to run, GPU |", "| --- | --: | --: | --: |"]
    return texts | {"chapter_times": "\n".join(head + rows)}


def numbers(root: Path = ROOT) -> dict[str, str]:
    """Return the text of every name that the pages may use."""
    return times(root)
