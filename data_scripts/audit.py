"""The leakage audit of a data set in the project's layout, a folder or a zip."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from rwkvlib.data.dataset import iter_items, mask_values
from rwkvlib.data.items import as_text

from .similarity import thumbnail

# Columns that say what must stay on one side of a split.
GROUPS = ("patient", "sequence", "volume", "group")
# What the known duplicates of the benchmark sets have at least; see the data chapter for how the counts depend on it.
NEAR = 0.995


def audit(data: str | Path, *, near: float = NEAR) -> dict[str, Any]:
    """Looks for what makes a score too good.

    Args:
        data: folder or zip with images/, masks/ and items.csv.
        near: images whose thumbnails (24 x 24 grey means) correlate above this are near duplicates.

    Returns:
        items, empty_masks (names), mask_values (in how many masks each value occurs, as the files have it; 0 and 255 of
        a binary set are read as 0 and 1), split_items (how many items each value of each split column has), foreground
        (share of an image's pixels: min, median, max over the images), exact_duplicates and near_duplicates (pairs of
        names with correlation, the share of mask pixels that differ where sizes agree, and the columns of items.csv of
        splits, groups and label in which the two differ), crossing (for each such column, how many near duplicates
        differ in it), torn_groups (for each split column and group column, the groups on both sides of a split).

    Raises:
        ValueError: `near` is not between 0 and 1; masks that are no maps of class indices, with their files, values and
            the remedy; and as `iter_items`.
    """
    if not 0 < near < 1:
        raise ValueError(f"near: expected a correlation between 0 and 1, got {near}")
    values_of = mask_values(data)
    rows, thumbnails, digests, masks = [], [], [], []
    for row, read in tqdm(list(iter_items(data)), unit="item", disable=None):
        image, mask = read()
        values = np.asarray(mask, dtype=np.uint8)
        rows.append({**row, "_foreground": float((values > 0).mean())})
        thumbnails.append(thumbnail(image))
        digests.append(hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest())
        masks.append(values)
    items = pd.DataFrame(rows)
    columns = [c for c in items if c.startswith("split") or c in (*GROUPS, "label", "official")]

    shared = Counter(digests)
    stack = np.stack(thumbnails)
    pairs, exact = [], []
    for i in range(len(stack)):  # row by row: all at once is N x N numbers
        correlation = stack[i + 1 :] @ stack[i]
        same = [j for j in range(i + 1, len(stack)) if digests[j] == digests[i]] if shared[digests[i]] > 1 else []
        exact += [[items["name"][i], items["name"][j]] for j in same]
        for j in sorted({*(np.flatnonzero(correlation > near) + i + 1).tolist(), *same}):
            a, b = items.iloc[i], items.iloc[j]
            pair = dict(a=a["name"], b=b["name"], correlation=round(float(correlation[j - i - 1]), 5))
            if masks[i].shape == masks[j].shape:
                pair["masks_differ"] = round(float((masks[i] != masks[j]).mean()), 5)
            pair["differ_in"] = [c for c in columns if pd.notna(a[c]) and pd.notna(b[c]) and a[c] != b[c]]
            pairs.append(pair)

    torn = {}
    for split in (c for c in columns if c.startswith("split")):
        for group in (c for c in GROUPS if c in items):
            sides = items.groupby(group)[split].nunique()
            torn.setdefault(split, {})[group] = [_plain(g) for g in sides.index[sides > 1]]
    share = items["_foreground"]
    return dict(
        items=len(items),
        empty_masks=list(items.loc[share == 0, "name"]),
        foreground={k: round(float(f(share)), 5) for k, f in (("min", np.min), ("median", np.median), ("max", np.max))},
        mask_values={str(value): n for value, n in values_of.items()},
        split_items={
            c: items[c].dropna().map(as_text).value_counts().to_dict() for c in columns if c.startswith("split")
        },
        near=near,
        exact_duplicates=exact,
        near_duplicates=pairs,
        crossing={c: sum(c in pair["differ_in"] for pair in pairs) for c in columns},
        torn_groups=torn,
    )


def groups_of(pairs: list[dict], names: list[str]) -> dict[str, int]:
    """The number of each name's duplicate group: names that pairs connect, directly or through others, share one."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for pair in pairs:
        parent[root(pair["b"])] = root(pair["a"])
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(root(name), len(numbers)) for name in names}


def summary(result: dict[str, Any]) -> str:
    """An audit's result in a few lines."""
    crossing = ", ".join(f"{column} {n}" for column, n in result["crossing"].items() if n)
    torn = ", ".join(
        f"{len(groups)} by {group} in {split}"
        for split, each in result["torn_groups"].items()
        for group, groups in each.items()
        if groups
    )
    share = result["foreground"]
    return "\n".join(
        (
            f"{result['items']} items, {len(result['empty_masks'])} with an empty mask",
            f"mask values {_values(result['mask_values'])}",
            *(
                f"{column}: {', '.join(f'{k} {n}' for k, n in n_of.items())}"
                for column, n_of in result["split_items"].items()
            ),
            f"foreground {share['min']:.2%} to {share['max']:.2%} of an image, median {share['median']:.2%}",
            f"{len(result['exact_duplicates'])} exact duplicates",
            f"{len(result['near_duplicates'])} near duplicates (thumbnails correlate above {result['near']}); "
            f"that differ in: {crossing or 'no column'}",
            f"groups on both sides of a split: {torn or 'none'}",
        )
    )


def _values(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{value} (in {n} masks)" for value, n in list(counts.items())[:20])
    note = "; 255 is read as 1" if "255" in counts else "" if "0" in counts else "; none has 0, the background"
    return f"{listed}{', ...' if len(counts) > 20 else ''}{note}"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
