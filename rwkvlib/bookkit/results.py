"""Stored results: the only source of the numbers that a chapter states about long runs."""

from __future__ import annotations

import html
import json
import math
import numbers
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

# A hyphen that stands for a minus: before a number, and behind nothing that it could join to it.
MINUS = re.compile(r"(?<![\w.)-])-(?=\.?\d)")
PACKAGE = Path(__file__).resolve().parent.parent


def result_folders() -> list[Path]:
    """Returns where results are looked for: results/ in or above the working folder, the checkout, the package."""
    here = Path.cwd()
    folders = [folder / "results" for folder in (here, *here.parents)]
    return list(dict.fromkeys([*folders, PACKAGE.parent / "results", PACKAGE / "results"]))


def find_result(name: str) -> Path:
    """Returns the path of a file below results/, in the checkout around the working folder or in the installed library.

    Args:
        name: the file's path below results/, such as "bench/wkv_cpu.json".

    Raises:
        FileNotFoundError: no such file; the message lists where it was looked for and what is there.
        ValueError: the name leaves results/.
    """
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"a result's name is a path below results/, got {name!r}")
    folders = [folder for folder in result_folders() if folder.is_dir()]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    kind = relative.suffix
    known = sorted({p.relative_to(f).with_suffix("").as_posix() for f in folders for p in f.rglob(f"*{kind}")})
    looked = ", ".join(str(folder) for folder in folders) or f"no folder results/ in or above {Path.cwd()}"
    raise FileNotFoundError(f"no result {relative.as_posix()!r}. Looked in: {looked}. There is: {known or 'nothing'}")


def read_result(name: str) -> dict[str, Any]:
    """Reads results/<name>.json.

    Args:
        name: as of `find_result`, with or without `.json`.

    Raises:
        FileNotFoundError, ValueError: as `find_result`; ValueError also where the file is not JSON.
    """
    path = find_result(name if name.endswith(".json") else f"{name}.json")
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def reference_file(name: str) -> Path:
    """Returns the path of a file of reference numbers: in tests/reference of the checkout, or in the installed library.

    Args:
        name: the file's name, such as "golden_T_64.npz".

    Raises:
        FileNotFoundError: no such file; the message lists where it was looked for.
    """
    folders = [PACKAGE.parent / "tests/reference", PACKAGE / "reference"]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"name: no file {name!r} in {' or '.join(map(str, folders))}")


def _text(value: Any, fmt: str | Callable[[Any], str] | None) -> str:
    """Writes one cell: a dash for nothing, floats to four significant digits, thousands apart by a comma as in text,
    and a minus sign before negative numbers, also within text."""
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return "–"
    if fmt is not None:
        text = fmt(value) if callable(fmt) else fmt.format(value)
    elif isinstance(value, bool | np.bool_):
        text = "yes" if value else "no"
    elif isinstance(value, numbers.Integral) or (isinstance(value, numbers.Real) and 1e4 <= abs(float(value)) < 1e12):
        text = f"{value:,.0f}"
    elif isinstance(value, numbers.Real):
        text = f"{float(value):.4g}"
    else:
        text = str(value)
    return MINUS.sub("\u2212", text)


def p_value(p: float) -> str:
    """Writes a p-value: two significant digits, and "< 0.0001" below that, as nobody needs to know how far."""
    return "–" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{float(f'{p:.2g}'):.6f}".rstrip("0").rstrip(".")


def table(
    df: pd.DataFrame,
    *,
    caption: str | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    index: bool = False,
) -> HTML:
    """Shows a data frame as a table that scrolls inside its own box on a narrow page, numbers to the right.

    Args:
        df: the rows; columns named as readers should see them, units included.
        caption: a sentence above the table.
        formats: how to write a column's values: a format string such as "{:.2f}", or a function.
        index: show the data frame's index as the first column.

    Raises:
        KeyError: `formats` names a column that `df` lacks.
    """
    from IPython.display import HTML
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if index:
        df = df.reset_index()
    formats = dict(formats or {})
    unknown = set(formats) - set(df.columns)
    if unknown:
        raise KeyError(f"formats for columns that are not there: {sorted(unknown)}; there are: {list(df.columns)}")

    right = [is_numeric_dtype(dtype) and not is_bool_dtype(dtype) for dtype in df.dtypes]
    classes = [' class="rwkv-number"' if number else "" for number in right]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(str(name))}</th>' for name, kind in zip(df.columns, classes, strict=True)
    )
    rows = []
    for number in range(len(df)):
        cells = [_text(df.iloc[number, i], formats.get(name)) for i, name in enumerate(df.columns)]
        row = "".join(f"<td{kind}>{html.escape(text)}</td>" for text, kind in zip(cells, classes, strict=True))
        rows.append(f"<tr>{row}</tr>")
    # The span is as wide as the box at most, and stays in sight when the table is scrolled (book.css).
    title = f"<caption><span>{html.escape(caption)}</span></caption>" if caption else ""
    name = html.escape(caption or "Table")
    return HTML(
        f'<div class="rwkv-table" role="region" tabindex="0" aria-label="{name}"><table>{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
