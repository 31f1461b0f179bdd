"""Writes splits/NAME.csv and SHA256SUMS: how the committed splits were made, to be repeated or argued with."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rwkvlib.files import expand, write_file

from .entry import Entry
from .registry import REGISTRY, find
from .splits import FOLDER


def make_splits(
    only: Iterable[str] | None = None, data: str | Path | None = None, folder: Path = FOLDER
) -> dict[str, pd.DataFrame]:
    """Makes the splits of the sets that are named, of all without names, and writes them and their lines of
    ``SHA256SUMS``; those of the other sets stay. Returns the tables by name.

    Args:
        data: folder with the sets whose images are needed, in the project's layout: NAME_256.zip (as the committed
            splits were made of), NAME.zip or NAME.

    Raises: ValueError for an unknown set; FileNotFoundError, before anything is written, where images are missing.
    """
    entries = [find(name) for name in (sorted(REGISTRY) if only is None else only)]
    arguments = {entry.name: [_images(entry, data)] if entry.split_needs_images else [] for entry in entries}
    tables = {entry.name: entry.make_split(*arguments[entry.name]) for entry in entries}
    folder.mkdir(exist_ok=True)
    sums = folder / "SHA256SUMS"
    lines = {line.split()[1]: line for line in sums.read_text().splitlines()} if sums.exists() else {}
    for name, table in tables.items():
        content = table.to_csv(index=False, lineterminator="\n").encode()
        write_file(folder / f"{name}.csv", content)
        lines[f"{name}.csv"] = f"{hashlib.sha256(content).hexdigest()}  {name}.csv"
    write_file(sums, "".join(f"{lines[file]}\n" for file in sorted(lines)))
    return tables


def _images(entry: Entry, data: str | Path | None) -> Path:
    names = [f"{entry.name}_256.zip", f"{entry.name}.zip", entry.name]
    found = [] if data is None else [path for name in names if (path := expand(data) / name).exists()]
    if not found:
        where = "got no folder" if data is None else f"found none in {str(data)!r}"
        raise FileNotFoundError(
            f"data: the split of {entry.title} is made from its images: expected a folder with one of "
            f"{', '.join(names)}, {where}; give it with --data, or name other sets with --only"
        )
    return found[0]
