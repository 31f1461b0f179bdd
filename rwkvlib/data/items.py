"""``items.csv`` as spreadsheets write it: a table of items, or an error that says which line of which file is wrong."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from typing import Any

import pandas as pd

# What R, Excel and pandas write for a missing value. Names may be called so.
MISSING = {"", "#N/A", "#NA", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
NAMES = ("name", "volume")
NUMBER = r"[+-]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][+-]?\d+)?"  # 007 is none: it would lose its zeros


def read_items(content: bytes, where: str) -> pd.DataFrame:
    """The table of an ``items.csv``, as `read_text` reads it, with types.

    `name` and `volume` are text whatever they look like. Other columns are numbers where every value is one, without
    leading zeros; ``spacing_...`` in mm (with a decimal comma, too) and ``slice`` must be.

    Args:
        where: the file, for messages.

    Raises: ValueError for a number that is none, and as `read_text`.
    """
    table = read_text(content, where)
    return pd.DataFrame({name: _column(name, values, where, table["name"]) for name, values in table.items()})


def read_text(content: bytes, where: str) -> dict[str, list[str]]:
    """The columns of an ``items.csv`` as typed: UTF-8 or, with its mark, UTF-16; blanks around values do not count.

    Raises: ValueError for another encoding, an empty table, a line of another length, a name that is none.
    """
    head, *lines = _rows(_decode(content, where), where)
    columns = [name for name in head if name]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"{where}: expected each column once, got several called {', '.join(twice)}")
    if "name" not in columns:
        hint = next((sep for sep in ";\t" if any(sep in c for c in columns)), None)
        hint = f": its values are parted by {'tabs' if hint == chr(9) else hint}; save it with commas" if hint else ""
        raise ValueError(f"{where}: expected a column 'name', got {columns}{hint}")
    table: dict[str, list[str]] = {name: [] for name in columns}
    for number, values in lines:
        if len(values) > len(head) or any(v for name, v in zip(head, values, strict=False) if not name):
            raise ValueError(
                f"{where}, line {number}: expected {len(head)} values as in the head ({', '.join(head)}), "
                f"got {len(values)}: {','.join(values)!r}; put a value with a comma in quotes"
            )
        values += [""] * (len(head) - len(values))
        for name, value in zip(head, values, strict=True):
            if name:
                table[name].append(value)
        if not table["name"][-1]:
            raise ValueError(f"{where}, line {number}: expected a name, got none")
    if not table["name"]:
        raise ValueError(f"{where}: expected a line for each item below the head, got none")
    return table


def _decode(content: bytes, where: str) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{where}, line {line}: expected UTF-8, got the byte 0x{content[error.start]:02x}; "
            "save the table as 'CSV UTF-8' (Excel: Save as, file type)"
        ) from None
    if "\0" in text:
        raise ValueError(f"{where}: expected text in UTF-8, got zero bytes; save the table as 'CSV UTF-8'")
    return text


def _rows(text: str, where: str) -> list:
    """The head, then (number, values) of each line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=None), strict=True, skipinitialspace=True)
    rows = []
    try:
        for values in reader:
            values = [v.strip() for v in values]
            if any(values):
                rows.append((reader.line_num, values))
    except csv.Error as error:
        raise ValueError(f"{where}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{where}: expected a head (name,split,...) and a line for each item, got an empty file")
    return [rows[0][1], *rows[1:]]


def _column(name: str, values: list[str], where: str, items: list[str]) -> pd.Series:
    if name in NAMES:
        return pd.Series([v or math.nan for v in values], dtype=object)
    given = [None if v in MISSING else v for v in values]
    measure = name.startswith("spacing_")
    if measure:
        given = [re.sub(r"^(\d+),(\d+)$", r"\1.\2", v) if v else None for v in given]
    if measure or name == "slice":
        given = [re.sub(r"^0+(?=\d)", "", v) if v else None for v in given]
    wrong = next((i for i, v in enumerate(given) if v is not None and not re.fullmatch(NUMBER, v)), None)
    if wrong is None and any(v is not None for v in given):
        return pd.to_numeric(pd.Series(given))
    if (measure or name == "slice") and wrong is not None:
        what = "millimetres" if measure else "a whole number"
        raise ValueError(f"{where}: {name} of item {items[wrong]!r}: expected {what}, got {given[wrong]!r}")
    return pd.Series([math.nan if v is None else v for v in given], dtype=object)


def as_text(value: Any) -> str:
    """A table's value as typed: numbers beside missing ones are floats, 0.0 for 0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
